"""Statistics over all benchmarks of the published scores. Each benchmark counts once: its variants (numbers of shots) share its weight.

Neither benchmarks nor their variants are independent: a training set that helps a base model tends to help on many of them.
"""

from collections import Counter

import numpy as np
import polars as pl

from sft_atlas.analyse import variance
from sft_atlas.analyse.consistency import PERMUTATIONS, cube, mean_of_pairs
from sft_atlas.published.columns import task
from sft_atlas.stats.estimates import RESAMPLES, Estimate, interval_over_clusters, undefined

DRAWS = 499


def weights(columns: list[str]) -> np.ndarray:
    """Weights of columns of scores, summing to 1: equal for all benchmarks, split among a benchmark's variants."""
    names = [task(column).benchmark for column in columns]
    counts = Counter(names)
    return np.array([1 / counts[name] / len(counts) for name in names])


def concordance(cells: pl.DataFrame, seed: int) -> Estimate:
    """Mean Spearman correlation between two base models' rankings of the training sets, over benchmarks; ``n``: base models.

    ``cells`` are of one method; a model counts on a benchmark if it has a score for every set. The one-sided p shuffles the training sets
    of each model, in the same way on all benchmarks; the interval resamples base models and pairs none with itself.
    """
    from scipy.stats import rankdata

    (models, sets, columns), values = cube(cells, "score", ("model", "dataset", "benchmark"))
    if len(sets) < 3:
        return undefined("", len(models), "base models")
    ranks = rankdata(values, axis=1)  # NaN for a model and column with gaps
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    ranks = np.divide(ranks, scale, out=np.full(ranks.shape, np.nan), where=scale > 0)
    judges = np.isfinite(ranks[:, 0]).sum(axis=0)  # per column
    ranks, columns = ranks[:, :, judges > 1], [name for name, known in zip(columns, judges > 1, strict=True) if known]
    ranks = ranks[np.isfinite(ranks).any(axis=(1, 2))]
    if len(ranks) < 2:
        return undefined("", len(ranks), "base models")
    draws = np.random.default_rng(seed).integers(len(ranks), size=(RESAMPLES, len(ranks)))
    draws[0] = np.arange(len(ranks))
    r = np.stack([mean_of_pairs(part @ part.T, draws) for part in np.moveaxis(ranks, 2, 0)])
    weight = np.where(np.isfinite(r), weights(columns)[:, None], 0.0)
    drawn = np.nansum(weight * r, axis=0) / np.maximum(weight.sum(axis=0), 1e-9)
    low, high = interval_over_clusters(drawn[1:], len(ranks))
    known = np.nan_to_num(ranks)
    per_pair = weights(columns) / (judges[judges > 1] * (judges[judges > 1] - 1))
    null = _shuffled(known, per_pair, seed)
    observed = float(((known.sum(axis=0) ** 2).sum(axis=0) * per_pair).sum())
    p = (1 + (null >= observed - 1e-9).sum()) / (1 + len(null))
    return Estimate("", float(drawn[0]), low, high, float(p), len(ranks), "base models", f"bootstrap over {len(ranks)} base models")


def _shuffled(ranks: np.ndarray, weight: np.ndarray, seed: int) -> np.ndarray:
    """Null distribution of the weighted sum over columns of squared sums over models; ``ranks`` is [models, sets, columns]."""
    rng, (models, sets, _) = np.random.default_rng(seed), ranks.shape
    orders = rng.permuted(np.tile(np.arange(sets), (PERMUTATIONS, models, 1)), axis=2)
    sums = (np.take_along_axis(ranks, order[:, :, None], axis=1).sum(axis=0) for order in orders)
    return np.array([((total**2).sum(axis=0) * weight).sum() for total in sums])


def model_minus_set(cells: pl.DataFrame, seed: int) -> Estimate:
    """Share of variance due to the base model minus that due to the training set, mean over benchmarks; ``n``: base models.

    Only base models with every training set and method count. The interval resamples base models and training sets; there is no test.
    """
    (_, sets, _, columns), values = cube(cells, "score", ("model", "dataset", "method", "benchmark"))
    full = np.isfinite(values).all(axis=(1, 2))  # models x columns
    used = full.sum(axis=0) > 1
    values, full, columns = values[..., used], full[:, used], [name for name, known in zip(columns, used, strict=True) if known]
    values, full = values[full.any(axis=1)], full[full.any(axis=1)]
    models = len(values)
    if models < 2 or len(sets) < 2:
        return undefined("", models, "base models")
    rng, weight = np.random.default_rng(seed), weights(columns)

    def difference(model: np.ndarray, dataset: np.ndarray) -> float:
        differences = np.full(len(columns), np.nan)
        for column, known in enumerate(full.T):
            picked = model[known[model]]
            if len(set(picked.tolist())) > 1:
                differences[column] = np.subtract(*variance.shares(values[np.ix_(picked, dataset)][..., column])[:2])
        use = np.isfinite(differences)
        return float((weight * differences)[use].sum() / weight[use].sum()) if use.any() else np.nan

    drawn = [difference(rng.integers(models, size=models), rng.integers(len(sets), size=len(sets))) for _ in range(DRAWS)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    effect = difference(np.arange(models), np.arange(len(sets)))
    kind = f"bootstrap over {models} base models and {len(sets)} training sets"
    return Estimate("", effect, float(low), float(high), np.nan, models, "base models", kind)
