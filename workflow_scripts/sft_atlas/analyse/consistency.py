"""Effects of training sets across base models: consistency, concordance of rankings, similarity.

Functions of ``cells``: one row per base model x training set x method x benchmark, with ``score`` and ``gain`` (null without a base
score). ``select.single(gains, study)`` makes such a frame from a study's tables, ``published.frames.cells`` from a CSV.

Two readings of every question: ``gain`` (score minus the base model's) and ``centred`` (score minus the mean over training sets for
the same model, method and benchmark). The second needs no base score, so that a base model that fails on a format does not decide.
"""

import warnings

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.stats.estimates import (
    RESAMPLES,
    Estimate,
    benjamini_hochberg,
    correlation_matrix,
    decidable_q,
    interval_over_clusters,
    paired_difference,
    signed_rank_p,
    undefined,
)
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns

VALUES = ("centred", "gain")
PERMUTATIONS = 999
TIE = 1e-9  # points: smaller differences are rounding


def cells(gains: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Single-set runs of the main recipes, last kept epoch: model, dataset, method, benchmark, score, gain, centred, in the study's
    order. ``gains`` holds fractions; the result is in points."""
    part = select.single(gains, study).select("model", "dataset", "method", "benchmark", pl.col("score") * 100, pl.col("gain") * 100)
    places = {key: {name: i for i, name in enumerate(study[f"{key}s"])} for key in ("model", "dataset", "benchmark")}
    order = [pl.col(key).replace_strict(place, return_dtype=pl.Int64) for key, place in places.items()]
    return centred(part.sort(*order, "method"))


def centred(cells: pl.DataFrame) -> pl.DataFrame:
    """Add ``centred``: score minus its mean over the training sets of the same model, method and benchmark."""
    return cells.with_columns((pl.col("score") - pl.col("score").mean().over("model", "method", "benchmark")).alias("centred"))


def cube(cells: pl.DataFrame, value: str, axes: tuple[str, ...]) -> tuple[list[list[str]], np.ndarray]:
    """The names along each axis, in order of appearance, and an array of ``value`` over them, NaN where missing."""
    names = {axis: cells[axis].unique(maintain_order=True).to_list() for axis in axes}
    return list(names.values()), select.array(cells, value, names)


# ---------------------------------------------------------------- consistency over base models


def consistency(cells: pl.DataFrame, value: str, seed: int) -> pl.DataFrame:
    """Per training set and benchmark over base models: mean effect, interval (bootstrap over models), p-values, and how many base models
    it moves ``up`` and ``down`` or leaves exactly as they were (``ties``); these three sum to n.

    ``p`` is the exact sign-flip test, ``p_wilcoxon`` the signed-rank test, ``q`` Benjamini-Hochberg of ``p`` over the rows with enough base
    models to reach 0.05 (:func:`decidable_q`), NaN in the others.
    """
    rows = []
    for (dataset, benchmark), part in cells.group_by("dataset", "benchmark", maintain_order=True):
        known = part.filter(pl.col(value).is_not_nan()).group_by("model", maintain_order=True).agg(pl.col(value).mean())
        numbers = known[value].to_numpy()
        estimate = paired_difference(numbers, known["model"].to_numpy(), seed, unit="base models", resamples=1999)
        up, down = (int((sign * numbers > TIE).sum()) for sign in (1, -1))
        counts = {"up": up, "down": down, "ties": len(numbers) - up - down}
        keys = {"dataset": dataset, "benchmark": benchmark, "value": value}
        rows.append({**keys, **vars(estimate), **counts, "p_wilcoxon": signed_rank_p(numbers)})
    schema = {
        **columns("dataset benchmark value", TEXT),
        **columns("n up down ties", WHOLE),
        **columns("effect low high p p_wilcoxon", REAL),
    }
    frame = pl.DataFrame(rows, schema)
    return frame.with_columns(pl.Series("q", decidable_q(frame["p"].to_numpy(), frame["n"].to_numpy()), dtype=pl.Float64))


# ---------------------------------------------------------------- concordance of rankings


def kendall_w(values: np.ndarray) -> float:
    """Kendall's coefficient of concordance of ``values`` (judges x objects), corrected for ties; NaN below 2 judges or 3 objects."""
    from scipy.stats import rankdata

    judges, objects = values.shape
    if judges < 2 or objects < 3:
        return np.nan
    ranks = rankdata(values, axis=1)
    squares = float(((ranks.sum(axis=0) - judges * (objects + 1) / 2) ** 2).sum())
    ties = sum(float((counts**3 - counts).sum()) for counts in (np.unique(row, return_counts=True)[1] for row in ranks))
    scale = judges**2 * (objects**3 - objects) - judges * ties
    return 12 * squares / scale if scale > 0 else np.nan


def concordance(cells: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Agreement of base models on the ranking of training sets, per benchmark. Scores, gains and centred scores rank them the same.

    Judges are the models with a score for every training set. ``w`` is Kendall's W, ``effect`` the mean Spearman correlation between
    two models with its interval (bootstrap over models, a model never paired with itself); ``p`` shuffles each model's ranking.
    """
    from scipy.stats import rankdata

    rng, rows = np.random.default_rng(seed), []
    for (benchmark,), part in cells.group_by("benchmark", maintain_order=True):
        _, values = cube(part, "score", ("model", "dataset"))
        values = values[np.isfinite(values).all(axis=1)]
        judges = len(values)
        w = kendall_w(values)
        if not np.isfinite(w):
            rows.append((benchmark, judges, values.shape[1], *[np.nan] * 5))
            continue
        ranks = rankdata(values, axis=1)
        shuffled = rng.permuted(np.broadcast_to(ranks, (PERMUTATIONS, *ranks.shape)), axis=2)
        spread = ((shuffled.sum(axis=1) - ranks.sum() / ranks.shape[1]) ** 2).sum(axis=1)
        own = ((ranks.sum(axis=0) - ranks.sum() / ranks.shape[1]) ** 2).sum()
        r = correlation_matrix(ranks)[0]
        drawn = mean_of_pairs(r, rng.integers(judges, size=(RESAMPLES, judges)))
        low, high = interval_over_clusters(drawn, judges)
        p = float((1 + (spread >= own - 1e-9).sum()) / (1 + PERMUTATIONS))
        rows.append((benchmark, judges, values.shape[1], w, float(np.nanmean(r[np.triu_indices(judges, 1)])), low, high, p))
    schema = {"benchmark": TEXT, **columns("n datasets", WHOLE), **columns("w effect low high p", REAL)}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.Series("q", benjamini_hochberg(frame["p"].to_numpy()), dtype=pl.Float64))


def mean_of_pairs(r: np.ndarray, draws: np.ndarray, among: np.ndarray | bool = True) -> np.ndarray:
    """Mean of r over pairs of different units (``among``: a mask of pairs), per draw of units (draws x units); NaN where there is none."""
    weight = np.stack([(draws == unit).sum(axis=1) for unit in range(len(r))], axis=1).astype(float)
    known = np.isfinite(r) & ~np.eye(len(r), dtype=bool) & among
    total = np.einsum("di,ij,dj->d", weight, np.where(known, r, 0.0), weight, optimize=True)
    pairs = np.einsum("di,ij,dj->d", weight, known.astype(float), weight, optimize=True)
    return np.divide(total, pairs, out=np.full(len(draws), np.nan), where=pairs > 0)


# ---------------------------------------------------------------- similarity


def vectors(cells: pl.DataFrame, of: str, value: str) -> tuple[list[str], np.ndarray]:
    """``value`` as variables (one per ``of``) x observations (combinations of the other two keys), each benchmark at unit spread.

    Without a common unit, the two or three benchmarks with the widest range would decide a correlation over benchmarks.
    """
    spread = pl.col(value).std().over("benchmark")
    scaled = cells.with_columns(pl.when(spread > 0).then(pl.col(value) / spread).alias(value))
    others = tuple(key for key in ("model", "dataset", "benchmark") if key != of)
    (names, *_), array = cube(scaled, value, (of, *others))
    return names, array.reshape(len(names), array[:1].size)


def similarity(cells: pl.DataFrame, value: str, seed: int, resamples: int = 500) -> pl.DataFrame:
    """Correlations between models, between training sets and between benchmarks: of, first, second, value, r, low, high, n.

    The 95 % interval resamples base models as wholes; between models it resamples training sets.
    """
    parts = []
    for of in ("model", "dataset", "benchmark"):
        names, array = vectors(cells, of, value)
        r, n = correlation_matrix(array)
        units = cells["dataset" if of == "model" else "model"].n_unique()
        drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), resamples)
        repeated = (weighted_correlations(array, np.repeat(weights, array.shape[1] // units)) for weights in drawn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # cells without any correlation stay NaN
            low, high = np.nanpercentile(np.stack(list(repeated)), [2.5, 97.5], axis=0)
        low, high = (np.where(np.isfinite(r), side, np.nan) for side in (low, high))
        pairs = {"of": of, "first": np.repeat(names, len(names)), "second": np.tile(names, len(names)), "value": value}
        parts.append(pl.DataFrame(pairs | {"r": r.ravel(), "low": low.ravel(), "high": high.ravel(), "n": n.ravel()}))
    return pl.concat(parts)


def weighted_correlations(array: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """:func:`correlation_matrix` of variables x observations where observation j stands ``weights[j]`` times."""
    return correlation_matrix(np.repeat(array, weights, axis=1))[0]


def grouped_pairs(
    r: np.ndarray, labels: list[dict[str, str]], seed: int, what: str, same: tuple[str, ...], other: tuple[str, ...]
) -> Estimate:
    """Mean r of pairs alike in ``same`` (and unlike in ``other``) minus that of the pairs unlike in ``same`` (and alike in ``other``).

    ``labels`` holds one dict per variable; without ``other`` all unlike pairs are compared with. The p-value permutes the variables'
    labels, two-sided. The interval resamples variables, a variable never paired with itself.
    """
    size = len(labels)
    if size < 2:
        return undefined(what, 0, "alike pairs")

    def alike(keys: tuple[str, ...]) -> np.ndarray:
        return np.array([[all(a[k] == b[k] for k in keys) for b in labels] for a in labels])

    def difference(draws: np.ndarray) -> np.ndarray:
        return mean_of_pairs(r, draws, first) - mean_of_pairs(r, draws, second)

    first, second = alike(same), ~alike(same)
    if other:
        first, second = first & ~alike(other), second & alike(other)
    known = np.isfinite(r) & ~np.eye(size, dtype=bool)
    effect = float(difference(np.arange(size)[None])[0])
    pairs = int((np.triu(first & known, 1)).sum())
    if not np.isfinite(effect):
        return Estimate(what, np.nan, np.nan, np.nan, np.nan, pairs, "alike pairs", "none")
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.broadcast_to(np.arange(size), (PERMUTATIONS * 5, size)), axis=1)
    moved, seen = (array[orders[:, :, None], orders[:, None, :]] for array in (np.where(known, r, 0.0), known))
    null = _mean_where(moved, seen & first) - _mean_where(moved, seen & second)
    hits = np.array([np.nansum(side >= own - 1e-12) for side, own in ((np.abs(null), abs(effect)), (null, effect), (-null, -effect))])
    p, greater, less = ((1 + hits) / (1 + len(null))).tolist()
    low, high = interval_over_clusters(difference(rng.integers(size, size=(RESAMPLES, size))), size)
    kind = f"bootstrap over {size} models"
    return Estimate(what, effect, low, high, p, pairs, "alike pairs", kind, p_greater=greater, p_less=less)


def _mean_where(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over the last two axes where the mask holds; NaN where it holds nowhere."""
    count = mask.sum(axis=(1, 2))
    return np.divide((values * mask).sum(axis=(1, 2)), count, out=np.full(len(values), np.nan), where=count > 0)
