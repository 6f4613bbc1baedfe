"""Relate weight change by depth to the gain: at which depth do they correlate, and is that depth certain?

Change is the log of the relative Frobenius change of a whole layer, gain the mean over benchmarks; both are taken relative to the base
model's mean over training sets. The layers of base models of different depth are brought to one grid of depths by linear interpolation.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import write_table
from sft_atlas.stats import two_way
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
from sft_atlas.tables import stored

GRID = 21  # depths, at most: 0, 0.05, ... 1
DRAWS = 1999
LEVEL = 0.95
CURVES = {**columns("method measure", TEXT), **columns("depth value low high band p", REAL), **columns("n models sets", WHOLE)}
PEAKS = {
    **columns("method measure", TEXT),
    **columns("depth depth_low depth_high near value p rise rise_low rise_high", REAL),
    **columns("n models sets", WHOLE),
}
NEAR = 0.1  # of the depth: how far a bootstrap peak may lie from the observed one to count as the same place


@dataclass(frozen=True)
class Cube:
    """``change``: depths x base models x training sets (log relative change), ``gain``: base models x training sets; NaN where missing."""

    depths: np.ndarray
    change: np.ndarray
    gain: np.ndarray
    models: list[str]


def cube(tables: dict[str, pl.DataFrame], study: dict, method: str) -> Cube:
    """The runs of one method: last checkpoints on single training sets, main recipe."""
    profile = select.layer_profile(tables["layers"], study).filter(pl.col("method") == method, pl.col("relative_change") > 0)
    means = select.mean_gains(select.single(tables["gains"], study).filter(pl.col("method") == method))
    models = [name for name in study["models"] if name in set(profile["model"])]
    sets = [name for name in select.kinds(study, "single") if name in set(profile["dataset"])]
    spans = profile.group_by("model").agg(pl.col("depth").n_unique().alias("layers"), low=pl.col("depth").min(), high=pl.col("depth").max())
    # A recipe may train a range of layers only: depths at or beyond which some base model has no trained layer are left out.
    low, high = (spans["low"].max(), spans["high"].min()) if spans.height else (0.0, 1.0)
    own = sorted(set(profile["depth"])) if spans["layers"].n_unique() == 1 else []
    grid = own if 0 < len(own) <= GRID else np.linspace(low, high, min(GRID, spans["layers"].max() or 2))
    depths = np.array([depth for depth in grid if low <= depth <= high])
    change = np.full((len(depths), len(models), len(sets)), np.nan)
    for (model, dataset), part in profile.sort("depth").group_by("model", "dataset", maintain_order=True):
        if model in models and dataset in sets:
            at = models.index(model), sets.index(dataset)
            change[:, *at] = np.interp(depths, part["depth"], np.log(part["relative_change"]), left=np.nan, right=np.nan)
    return Cube(depths, change, select.array(means, "gain", {"model": models, "dataset": sets}), models)


def gain_correlation(data: Cube, seed: int, draws: int = DRAWS) -> tuple[list[dict], dict] | None:
    """Within-model correlation of change and gain at every depth, and the place of its largest size; None where undefined.

    ``band``: 95 % of the shuffles of training sets stay below it at every depth (max-T, Westfall and Young 1993); ``p`` is adjusted for
    all depths in the same way. ``low`` and ``high`` are pointwise bootstrap intervals. The peak's ``near`` is the share of bootstrap
    draws whose peak lies within 0.1 of it, ``depth_low`` and ``depth_high`` hold 95 % of them; ``rise`` is how far the correlation at
    the peak exceeds the mean over depths.
    """
    known = np.isfinite(data.gain) & np.isfinite(data.change).all(axis=0)
    parts = [two_way.compact(layer, np.where(known, data.gain, np.nan), data.models) for layer in data.change]
    change, (_, gain, clusters) = np.array([layer for layer, _, _ in parts]), parts[0]
    if gain.shape[1] < two_way.FEWEST_SETS or not two_way.varies(two_way.within_groups(gain)[0]):
        return None
    centred = np.array([two_way.within_groups(layer, gain) for layer in change])  # depths x 2 x models x sets
    a, b = centred[:, 0], centred[0, 1]
    scale = np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum())
    if (scale < two_way.TINY).any():
        return None
    cross = np.einsum("kms,mt->kst", a, b) / scale[:, None, None]
    value = np.trace(cross, axis1=1, axis2=2)
    shuffles, exact = two_way.shuffled_orders(gain.shape[1], seed, draws)
    largest = np.abs(cross[:, np.arange(gain.shape[1]), shuffles].sum(axis=2)).max(axis=0)
    p = [two_way.shuffle_p(largest, abs(r), exact) for r in value]
    groups, weights, _, _ = two_way.cell_weights(clusters, gain.shape[1], seed, draws)
    drawn = np.array([two_way.ratio(two_way.weighted_moments(layer, gain, groups, weights)) for layer in change])
    drawn = drawn[:, np.isfinite(drawn).all(axis=0)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    size = {"n": int(known.sum()), "models": gain.shape[0], "sets": gain.shape[1]}
    curve = _curve("gain", data.depths, value, low, high, size, float(np.quantile(largest, LEVEL)), p)
    return curve, _peak("gain", data.depths, value, drawn, p) | size


def _curve(
    measure: str, depths, value, low, high, size: dict[str, int], band: float | None = None, p: Iterable = repeat(None)
) -> list[dict]:
    """The rows of one curve of ``CURVES``, without the method."""
    rows = zip(depths, value, low, high, p, strict=False)
    return [{"measure": measure, "depth": d, "value": v, "low": lo, "high": hi, "band": band, "p": q, **size} for d, v, lo, hi, q in rows]


def _peak(measure: str, depths: np.ndarray, value: np.ndarray, drawn: np.ndarray, p: list[float]) -> dict:
    best = int(np.abs(value).argmax())
    sign = np.sign(value[best])
    places = depths[(sign * drawn).argmax(axis=0)]
    rises = sign * (drawn[best] - drawn.mean(axis=0))
    tail = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    (low, high), (rise_low, rise_high) = np.quantile(places, tail, method="nearest"), np.quantile(rises, tail)
    return {
        "measure": measure, "depth": depths[best], "depth_low": low, "depth_high": high,
        "near": float(np.mean(np.abs(places - depths[best]) <= NEAR + 1e-9)), "value": value[best], "p": p[best],
        "rise": float(sign * (value[best] - value.mean())), "rise_low": rise_low, "rise_high": rise_high,
    }  # fmt: skip


def agreement(data: Cube, seed: int, draws: int = DRAWS) -> tuple[list[dict], dict] | None:
    """Correlation between base models of which training sets change a layer more, mean over pairs of base models, at every depth.

    Training sets that some base model lacks are left out. The shuffle orders the training sets of each base model by itself; the
    intervals resample training sets. None below two base models or four training sets.
    """
    complete = np.isfinite(data.change).all(axis=(0, 1)) if data.change.size else np.zeros(0, bool)
    change = data.change[:, :, complete]
    depths, models, sets = change.shape
    if models < 2 or sets < two_way.FEWEST_SETS:
        return None

    def mean_pairwise(standard: np.ndarray) -> np.ndarray:
        """From values of mean 0 and length 1 over the last axis: the mean correlation over pairs of base models (second last axis)."""
        total = (standard.sum(axis=-2) ** 2).sum(axis=-1)
        return (total - models) / (models * (models - 1))

    def standardised(values: np.ndarray) -> np.ndarray:
        centred = values - values.mean(axis=-1, keepdims=True)
        length = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
        return np.divide(centred, length, out=np.zeros_like(centred), where=length > two_way.TINY)

    rng, standard = np.random.default_rng(seed), standardised(change)
    value = mean_pairwise(standard)
    largest, drawn = np.empty(draws), np.empty((depths, draws))
    for i in range(draws):
        order = rng.permuted(np.tile(np.arange(sets), (models, 1)), axis=1)
        largest[i] = mean_pairwise(np.take_along_axis(standard, order[None], axis=2)).max()
        drawn[:, i] = mean_pairwise(standardised(change[:, :, rng.integers(sets, size=sets)]))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    p = [two_way.shuffle_p(largest, r, exact=False) for r in value]
    size = {"n": models * (models - 1) // 2, "models": models, "sets": sets}
    curve = _curve("agreement", data.depths, value, low, high, size, float(np.quantile(largest, LEVEL)), p)
    return curve, _peak("agreement", data.depths, value, drawn, p) | size


def magnitude(data: Cube) -> list[dict]:
    """Median relative change over runs at every depth, with the range that holds the middle half of the runs."""
    if not data.change.size:
        return []
    runs = np.isfinite(data.change).all(axis=0)
    values = np.exp(data.change[:, runs])
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
    size = {"n": int(runs.sum()), "models": int(runs.any(axis=1).sum()), "sets": int(runs.any(axis=0).sum())}
    return _curve("magnitude", data.depths, middle, low, high, size)


def curves(tables: dict[str, pl.DataFrame], study: dict) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All curves (``CURVES``: measures gain, agreement, magnitude) and the peaks of the first two (``PEAKS``), per method."""
    rows, peaks = [], []
    for method in sorted(set(select.layer_profile(tables["layers"], study)["method"])):
        data = cube(tables, study, method)
        if not len(data.depths):
            continue
        measured = [measure(data, study["seed"]) for measure in (gain_correlation, agreement)]
        for curve, peak in filter(None, measured):
            rows += [{"method": method, **row} for row in curve]
            peaks.append({"method": method, **peak})
        rows += [{"method": method, **row} for row in magnitude(data)]
    return pl.DataFrame(rows, schema=CURVES), pl.DataFrame(peaks, schema=PEAKS)


def main(args: argparse.Namespace) -> None:
    study, tables = stored.load(args, ("gains", "layers"))
    gain_curves, peaks = curves(tables, study)
    write_table(args.output_curves, gain_curves)
    write_table(args.output_peaks, peaks)


def add_options(p: argparse.ArgumentParser) -> None:
    curves, peaks = "Parquet, one row per method, measure and depth", "Parquet, one row per method and measure"
    stored.add_options(p, output_curves=curves, output_peaks=peaks)
