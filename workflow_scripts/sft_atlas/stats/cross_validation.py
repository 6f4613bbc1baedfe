"""Leave-one-out prediction of gains: for a base model, or a training set, that is held out.

A prediction is a baseline plus one slope times the predictor, centred within groups (base models, or base models x benchmarks). The
slope and the baseline come from the other base models, or the other training sets. For a new base model the error is that of gains
relative to its mean gain over the training sets: the mean is unknown beforehand and irrelevant for choosing a set.
"""

from collections.abc import Iterator

import numpy as np

from sft_atlas.stats.estimates import Estimate, paired_difference, undefined

FEWEST = 3  # base models, or training sets, of which one is held out


def errors(x: np.ndarray, gain: np.ndarray, clusters, seed: int) -> Iterator[tuple[str, Estimate, float, str, float]]:
    """From groups x training sets (NaN where missing; ``clusters``: the base model of each group), for three kinds of hold-out: statistic, estimate, root mean squared error, baseline, and the baseline's error (fractions).

    ``new base model``: predictor alone, against the training set's mean gain in the other base models ("dataset mean");
    ``new base model, dataset known``: that mean plus the predictor, against the mean alone;
    ``new dataset``: the base model's mean gain on the other sets plus the predictor, against that mean ("model mean").
    The estimate's effect is the share of the baseline's squared error that is removed (below 0: it adds error); its p flips the sign of
    whole base models, or whole training sets.
    """
    known = np.isfinite(x) & np.isfinite(gain)
    x, y, clusters = np.where(known, x, np.nan), np.where(known, gain, np.nan), np.asarray(clusters)
    models = np.broadcast_to(clusters[:, None], y.shape)
    sets = np.broadcast_to(np.arange(y.shape[1])[None, :], y.shape)
    alone, joint, mean = new_base_model(x, y, clusters)
    by_set, model_mean = new_dataset(x, y)
    for name, truth, prediction, baseline, baseline_name, units, unit in (
        ("new base model", centre(y), alone, mean, "dataset mean", models, "base models"),
        ("new base model, dataset known", centre(y), joint, mean, "dataset mean", models, "base models"),
        ("new dataset", y, by_set, model_mean, "model mean", sets, "training sets"),
    ):
        yield name, *compare(truth, prediction, baseline, units, unit, seed, baseline_name)


def compare(
    y: np.ndarray, prediction: np.ndarray, baseline: np.ndarray, units: np.ndarray, unit: str, seed: int, baseline_name: str
) -> tuple[Estimate, float, str, float]:
    """Share of the baseline's squared error that the prediction removes, with the interval and test of the paired difference.

    Without p where the units are too few for one below 0.05; undefined below three units, and where the prediction is the baseline: a property of the training set alone adds nothing to its mean.
    """
    known = np.isfinite(y) & np.isfinite(prediction) & np.isfinite(baseline)
    count = len(np.unique(units[known]))
    if count < FEWEST or np.allclose(prediction[known], baseline[known], rtol=0, atol=1e-9):
        return undefined("", count, unit), np.nan, baseline_name, np.nan
    ours, theirs = (y - prediction)[known] ** 2, (y - baseline)[known] ** 2
    removed = paired_difference(theirs - ours, units[known], seed, unit=unit)
    scale = theirs.mean() or np.nan
    p = removed.p if removed.decidable else np.nan
    estimate = Estimate(
        "", float(removed.effect / scale), removed.low / scale, removed.high / scale, p, count, unit, removed.interval_method
    )
    return estimate, float(np.sqrt(ours.mean())), baseline_name, float(np.sqrt(theirs.mean()))


def new_base_model(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions for each base model from the others: predictor alone; dataset mean plus predictor; dataset mean (groups x sets).

    All are relative to the group's mean over the training sets that have a gain in it.
    Groups of one benchmark are predicted from the same benchmark: the groups of every base model stand in the same order.
    """
    names = list(dict.fromkeys(clusters.tolist()))
    each = len(clusters) // len(names) if len(names) else 0
    alone, joint, mean = (np.full(y.shape, np.nan) for _ in range(3))
    if len(names) < 2:
        return alone, joint, mean
    centred = centre(x)
    for name in names:
        held = clusters == name
        others_x, others_y = (values[~held].reshape(-1, each, y.shape[1]) for values in (centred, y))
        averages = _mean(centre(others_y), 0)  # each x sets
        slope = _slope(others_x, centre(others_y))
        alone[held] = slope * centred[held]
        # The part of predictor and gain that is specific to a base model, which the dataset mean lacks.
        average = _mean(others_x, 0)
        extra = _slope(others_x - average, centre(others_y) - averages)
        joint[held] = averages + extra * (centred[held] - average)
        mean[held] = averages
    return tuple(centre(np.where(np.isfinite(y), values, np.nan)) for values in (alone, joint, mean))


def new_dataset(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions for each training set from the others: group mean plus predictor; group mean (groups x sets)."""
    predicted, mean = np.full(y.shape, np.nan), np.full(y.shape, np.nan)
    for j in range(y.shape[1]):
        rest = np.arange(y.shape[1]) != j
        levels, places = _mean(y[:, rest], 1), _mean(x[:, rest], 1)
        slope = _slope(x[:, rest] - places[:, None], y[:, rest] - levels[:, None])
        mean[:, j] = levels
        predicted[:, j] = levels + slope * (x[:, j] - places)
    return predicted, mean


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def centre(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Values minus their mean over an axis; NaN is kept and not counted."""
    return values - np.expand_dims(_mean(values, axis), axis)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least-squares slope through the origin over the complete cells; 0 without variation, so that the baseline stands."""
    known = np.isfinite(x) & np.isfinite(y)
    square = float((x[known] ** 2).sum())
    return float((x[known] * y[known]).sum() / square) if square > 1e-12 else 0.0
