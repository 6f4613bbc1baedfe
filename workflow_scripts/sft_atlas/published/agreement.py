"""Where results agree: LoRA with full fine-tuning, training sets with each other in each base model, and a set with its own topic.

Functions of ``cells`` (see :mod:`sft_atlas.analyse.consistency`). Scores are centred within model, method and benchmark, so that no base score
is needed, and each benchmark has unit spread.
"""

import numpy as np
import polars as pl

from sft_atlas.analyse import consistency, select
from sft_atlas.published import overall
from sft_atlas.stats import two_way
from sft_atlas.stats.estimates import (
    FEWEST_CLUSTERS,
    RESAMPLES,
    Estimate,
    benjamini_hochberg,
    correlation_matrix,
    decidable_q,
    interval_over_clusters,
    paired_difference,
    undefined,
)

ALL = "all"
TOPICS = {"general": "instruction following"}  # group of training sets: group of benchmarks, where the names differ
NUMBERS = ("effect", "low", "high", "p", "p_greater", "p_less")


def numbers(estimate: Estimate) -> tuple[float, ...]:
    """The NUMBERS of an estimate."""
    return tuple(getattr(estimate, name) for name in NUMBERS)


def method_correlation(cells: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Correlation over training sets of the scores after LoRA and after full fine-tuning, within benchmarks: per base model, and for all.

    Each benchmark counts once (:func:`overall.weights`). ``pairs`` counts pairs of scores, ``models`` base models, ``sets`` training sets.
    p shuffles training sets as wholes. The interval resamples training sets, in the row ``all`` also base models where there are five; below
    five training sets there is none. ``q`` is over the base models.
    """
    spread = pl.col("centred").std().over("benchmark")
    both = cells.filter(pl.col("method").is_in(["full", "lora"]))
    scaled = both.with_columns(pl.when(spread > 0).then(pl.col("centred") / spread).alias("scaled"))
    names = {key: scaled[key].unique(maintain_order=True).to_list() for key in ("model", "benchmark", "dataset")}
    weight = np.sqrt(overall.weights(names["benchmark"]))[:, None]
    x, y = (weight * select.array(scaled.filter(pl.col("method") == method), "scaled", names) for method in ("full", "lora"))
    parts = {name: ([name] * x.shape[1], x[i], y[i]) for i, name in enumerate(names["model"])}
    flat = (array.reshape(-1, x.shape[2]) for array in (x, y))
    parts[ALL] = (np.repeat(names["model"], x.shape[1]), *flat)
    rows = []
    for name, (clusters, one, other) in parts.items():
        one, other, kept = two_way.compact(one, other, clusters)
        estimate = two_way.correlation(one, other, kept, seed)
        sets = one.shape[1]
        few = sets < FEWEST_CLUSTERS
        low, high = (np.nan, np.nan) if few else (estimate.low, estimate.high)
        counts = int(np.isfinite(one).sum()), len(set(kept.tolist())), sets
        rest = estimate.p, estimate.p_greater, estimate.p_less
        rows.append((name, *counts, estimate.effect, low, high, *rest, "none" if few else estimate.interval_method))
    schema = {"model": pl.String} | dict.fromkeys(("pairs", "models", "sets"), pl.Int64) | dict.fromkeys(NUMBERS, pl.Float64)
    table = pl.DataFrame(rows, schema=schema | {"interval": pl.String}, orient="row")
    p = table["p"].to_numpy().copy()
    p[-1] = np.nan
    return table.with_columns(pl.Series("q", benjamini_hochberg(p), dtype=pl.Float64))


def set_similarity(cells: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Correlation over benchmarks of the effects of two training sets: per base model, and its mean over base models (``all``).

    ``cells`` are of one method. ``n`` counts what ``unit`` names: columns of scores in a single base model, base models in ``all``. Columns of
    one base model are not independent, so a single r has no interval; that of ``all`` resamples base models and needs five. ``smallest`` and
    ``largest`` are the ends of the base models' r.
    """
    rows = []
    for value in consistency.VALUES:
        models, sets, r, n = correlations_of_sets(cells, value)
        for i, j in zip(*np.triu_indices(len(sets), 1), strict=True):
            pair, nothing = (value, sets[i], sets[j]), [np.nan] * 4
            rows += [(*pair, name, r[m, i, j], *nothing, n[m, i, j], "columns of scores") for m, name in enumerate(models)]
            mean = paired_difference(r[:, i, j], models, seed, unit="base models", resamples=1999)
            rows.append((*pair, ALL, mean.effect, mean.low, mean.high, mean.smallest, mean.largest, mean.n, mean.unit))
    schema = dict.fromkeys(("value", "first", "second", "model"), pl.String)
    schema |= dict.fromkeys(("r", "low", "high", "smallest", "largest"), pl.Float64) | {"n": pl.Int64, "unit": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def correlations_of_sets(cells: pl.DataFrame, value: str) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Base models, training sets, r and its number of columns [models, sets, sets]; each benchmark at unit spread over all base models."""
    models, sets = (cells[key].unique(maintain_order=True).to_list() for key in ("model", "dataset"))
    _, flat = consistency.vectors(cells, "dataset", value)
    pairs = [correlation_matrix(part) for part in np.moveaxis(flat.reshape(len(sets), len(models), -1), 1, 0)]
    shape = len(models), len(sets), len(sets)
    r, n = (np.array([pair[k] for pair in pairs]).reshape(shape) for k in range(2))
    return models, sets, r, n


def set_agreement(cells: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Whether base models agree on which training sets act alike: mean correlation between two base models' r of all pairs of sets.

    ``n`` counts base models with at least three such r. The one-sided p relabels the training sets of each base model (as a Mantel test does),
    the interval resamples base models, pairs none with itself, and needs five.
    """
    rows = []
    for value in consistency.VALUES:
        _, sets, r, _ = correlations_of_sets(cells, value)
        rows.append((value, len(sets), *_agreement(r, seed)))
    schema = {"value": pl.String, "sets": pl.Int64, "n": pl.Int64} | dict.fromkeys(("effect", "low", "high", "p"), pl.Float64)
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.Series("q", benjamini_hochberg(table["p"].to_numpy()), dtype=pl.Float64))


def _agreement(r: np.ndarray, seed: int) -> tuple[int, float, float, float, float]:
    """Base models, effect, ends of the interval and p, from r [models, sets, sets]."""
    upper = np.triu_indices(r.shape[1], 1)
    r = r[np.isfinite(r[:, *upper]).sum(axis=1) > 2]
    models, sets = r.shape[:2]
    if models < 2 or sets < two_way.FEWEST_SETS:
        return models, *[np.nan] * 4
    rng = np.random.default_rng(seed)
    among = np.triu_indices(models, 1)
    own = correlation_matrix(r[:, *upper])[0]
    if not np.isfinite(own[among]).any():
        return models, *[np.nan] * 4
    orders = rng.permuted(np.tile(np.arange(sets), (consistency.PERMUTATIONS, models, 1)), axis=2)
    which = np.arange(models)[:, None]
    null = [np.nanmean(correlation_matrix(r[which, order[:, upper[0]], order[:, upper[1]]])[0][among]) for order in orders]
    effect = float(np.nanmean(own[among]))
    low, high = interval_over_clusters(consistency.mean_of_pairs(own, rng.integers(models, size=(RESAMPLES, models))), models)
    return models, effect, low, high, float((1 + np.sum(np.array(null) >= effect - 1e-12)) / (1 + len(null)))


def own_topic(cells: pl.DataFrame, study: dict, seed: int) -> pl.DataFrame:
    """Rank of each training set among all sets on the benchmarks of its own topic (1: best), mean over base models, per method.

    A base model ranks the sets on a column of scores if it has a score for every set; ties share ranks, and each benchmark counts once. ``p``
    is the sign-flip test against ``expected``, the middle rank; ``p_less``: better than that. ``best`` counts base models in which no set has
    a better mean rank. ``q`` is over the rows with enough base models to reach 0.05. Sets whose topic has no benchmark have no row.
    """
    from scipy.stats import rankdata

    rows = []
    for (method,), part in cells.group_by("method", maintain_order=True):
        (models, sets, names), values = consistency.cube(part, "score", ("model", "dataset", "benchmark"))
        ranks = rankdata(-values, axis=1)  # NaN for a model and column with gaps
        middle = (len(sets) + 1) / 2
        for place, name in enumerate(sets):
            group = study["datasets"][name]["group"]
            topic = TOPICS.get(group, group)
            columns = [i for i, key in enumerate(names) if topic != "other" and study["benchmarks"][key]["group"] == topic]
            if not columns or len(sets) < 2:
                continue
            known = np.isfinite(ranks[:, 0, columns])
            weight = known * overall.weights([names[i] for i in columns])
            total = weight.sum(axis=1)
            summed = (np.nan_to_num(ranks[:, :, columns]) * weight[:, None]).sum(axis=2)
            mean = np.divide(summed, total[:, None], out=np.full(summed.shape, np.nan), where=total[:, None] > 0)[total > 0]
            judges = [model for model, some in zip(models, total > 0, strict=True) if some]
            own = mean[:, place]
            found = paired_difference(own - middle, judges, seed, unit="base models") if judges else undefined("", 0, "base models")
            best = int((own <= mean.min(axis=1) + 1e-9).sum()) if judges else 0
            ends = (middle + number for number in (found.effect, found.low, found.high, found.smallest, found.largest))
            rows.append((method, name, topic, len(sets), middle, best, found.n, *ends, found.p, found.p_greater, found.p_less))
    schema = dict.fromkeys(("method", "dataset", "topic"), pl.String)
    schema |= {"sets": pl.Int64, "expected": pl.Float64, "best": pl.Int64, "n": pl.Int64}
    schema |= dict.fromkeys(("effect", "low", "high", "smallest", "largest", "p", "p_greater", "p_less"), pl.Float64)
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.Series("q", decidable_q(table["p"].to_numpy(), table["n"].to_numpy()), dtype=pl.Float64))


BETWEEN = "between languages"


def transfer_by_language(cells: pl.DataFrame, study: dict, examinations: tuple[tuple[str, str], ...], seed: int) -> pl.DataFrame:
    """Correlation over training sets of one examination in two languages, by the base models' pre-training language.

    ``effect`` is the mean over base models of their own r (of at least four training sets); its interval needs five base models,
    ``smallest`` and ``largest`` are the ends of their r. In the rows BETWEEN it is the share of the variance of r that lies between languages;
    ``p`` permutes the languages of the base models and needs six. ``q`` is over these rows.
    """
    rows = []
    for (method,), part in cells.group_by("method", maintain_order=True):
        (models, _, names), scores = consistency.cube(part, "score", ("model", "dataset", "benchmark"))
        spoken = np.array([study["models"][name]["language"] for name in models])
        absent = np.full(scores.shape[:2], np.nan)
        for pair in examinations:
            arrays = (scores[:, :, names.index(name)] if name in names else absent for name in pair)
            r = np.array([_correlation(x, y) for x, y in zip(*arrays, strict=True)])
            known = np.isfinite(r)
            for language in dict.fromkeys(spoken.tolist()):
                own = known & (spoken == language)
                mean = paired_difference(r[own], np.array(models)[own], seed, unit="base models", resamples=1999)
                rows.append((method, *pair, language, mean.n, mean.effect, mean.low, mean.high, mean.smallest, mean.largest, np.nan))
            share, p = _share_between(r[known], spoken[known], seed)
            rows.append((method, *pair, BETWEEN, int(known.sum()), share, *[np.nan] * 4, p))
    schema = dict.fromkeys(("method", "first", "second", "language"), pl.String) | {"n": pl.Int64}
    schema |= dict.fromkeys(("effect", "low", "high", "smallest", "largest", "p"), pl.Float64)
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.Series("q", benjamini_hochberg(table["p"].to_numpy()), dtype=pl.Float64))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    known = np.isfinite(x) & np.isfinite(y)
    return float(correlation_matrix([x, y])[0][0, 1]) if known.sum() >= two_way.FEWEST_SETS else np.nan


def _share_between(values: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Share of the sum of squares between labels, and p over permutations of the labels; NaN below two labels or one repeated label."""
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2 or len(values) <= len(names) or not two_way.varies(values - values.mean()):
        return np.nan, np.nan
    member = np.eye(len(names))[codes]
    centred = values - values.mean()
    orders = np.random.default_rng(seed).permuted(np.tile(centred, (RESAMPLES, 1)), axis=1)
    shares = ((np.vstack([centred, orders]) @ member) ** 2 / member.sum(axis=0)).sum(axis=1) / (centred**2).sum()
    p = two_way.shuffle_p(shares[1:], shares[0], exact=False) if len(values) > FEWEST_CLUSTERS else np.nan
    return float(shares[0]), p
