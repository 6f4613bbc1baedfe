"""Effects with intervals and p-values, for results that share base models, runs and items.

Pure functions of arrays. Intervals of paired differences are 95 % t intervals over clusters. Others are expanded percentile bootstrap
intervals (Hesterberg 2015, arXiv 1411.5279: plain percentiles are too narrow with few clusters) unless ``interval_method`` says otherwise;
with 5 clusters these cover only about 90 %. Below 5 clusters there is none.
Permutation p-values count the observed arrangement, (1 + hits) / (1 + permutations), so that none is ever 0. Every random number comes
from an explicit seed.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

RESAMPLES = 9999
FEWEST_CLUSTERS = 5
EXACT_CLUSTERS = 12
TINY = 1e-12
ITEM_NOISE = "normal, item noise only"
BOTH_NOISES = "t, noise of items and of training"


@dataclass(frozen=True)
class Estimate:
    """One number with its uncertainty. ``n`` counts what ``unit`` names; NaN marks what is undefined.

    ``p`` is two-sided; ``p_greater`` and ``p_less`` are one-sided, for the claims that the effect is above and below 0. ``smallest`` and
    ``largest`` are the ends of the units' own means, for units too few for an interval. ``attainable_p`` is the smallest p that the test
    can give with n units, whatever their effects are (:func:`smallest_p`); NaN where that is no limit.
    """

    what: str
    effect: float
    low: float
    high: float
    p: float
    n: int
    unit: str = "observations"
    interval_method: str = ""
    p_greater: float = np.nan
    p_less: float = np.nan
    smallest: float = np.nan
    largest: float = np.nan
    attainable_p: float = np.nan

    @property
    def decidable(self) -> bool:
        """Whether n units are enough for the test to reach p = 0.05."""
        return not self.attainable_p > 0.05

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves out 0."""
        return bool(self.low > 0 or self.high < 0)


def undefined(what: str, n: int, unit: str = "observations") -> Estimate:
    """The estimate of something that these data cannot show."""
    return Estimate(what, np.nan, np.nan, np.nan, np.nan, n, unit, "none")


def benjamini_hochberg(p) -> np.ndarray:
    """Adjusted p-values (false discovery rate, Benjamini and Hochberg 1995) in the order given; NaN stays NaN and is not counted."""
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def two_sided_p(z, n) -> np.ndarray:
    """Two-sided p of a paired t statistic ``z`` over ``n`` items; infinite z gives 0, null or NaN gives NaN."""
    from scipy.special import stdtr

    z, n = np.asarray(z, dtype=float), np.asarray(n, dtype=float)
    return np.where(n > 1, 2 * stdtr(np.maximum(n - 1, 1), -np.abs(z)), np.nan)


def smallest_p(n) -> np.ndarray:
    """The smallest two-sided p that the exact sign-flip test of ``n`` units can give: 2 of 2^n arrangements; 1 below 2 units."""
    n = np.asarray(n, dtype=float)
    return np.where(n < 2, 1.0, 2.0 ** (1 - np.minimum(n, EXACT_CLUSTERS)))


def decidable_q(p, n, level: float = 0.05) -> np.ndarray:
    """Adjusted p-values of sign-flip tests over ``n`` units each, NaN where n is too small to reach ``level`` before any correction.

    Such tests cannot be decided whatever their data are, so they are left out of the correction: n does not depend on the effects, so the
    false discovery rate stays below the level (Gilbert 2005, doi:10.1111/j.1467-9876.2005.00475.x).
    """
    return benjamini_hochberg(np.where(smallest_p(n) <= level, np.asarray(p, dtype=float), np.nan))


def expanded_interval(drawn: np.ndarray, n: int, means: int = 1) -> tuple[float, float]:
    """The 95 % expanded percentile interval of bootstrap draws from ``n`` units around ``means`` estimated means."""
    from scipy.special import ndtr, stdtrit

    free = max(n - means, 1)
    tail = 100 * float(ndtr(-np.sqrt(n / free) * stdtrit(free, 0.975)))
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def interval_over_clusters(drawn: np.ndarray, clusters: int) -> tuple[float, float]:
    """:func:`expanded_interval` of draws of whole clusters; NaN below five clusters."""
    return expanded_interval(drawn, clusters) if clusters >= FEWEST_CLUSTERS else (np.nan, np.nan)


def wilson(hits: int, n: int, what: str, unit: str) -> Estimate:
    """A share with its Wilson score interval; it carries no test."""
    if n == 0:
        return undefined(what, 0, unit)
    share, z = hits / n, 1.959964
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Estimate(what, share, max(0.0, centre - half), min(1.0, centre + half), np.nan, n, unit, "Wilson")


# ---------------------------------------------------------------- correlation


def ratio(moments: np.ndarray) -> np.ndarray:
    """Correlation from the moments xy, xx and yy [..., 3]; NaN without variation."""
    scale = np.sqrt(np.maximum(moments[..., 1], 0) * np.maximum(moments[..., 2], 0))
    return np.divide(moments[..., 0], scale, out=np.full(scale.shape, np.nan), where=scale > TINY)


def correlation_matrix(values) -> tuple[np.ndarray, np.ndarray]:
    """Pairwise-complete Pearson correlations between the rows of ``values`` (variables x observations, NaN where missing).

    Returns r and the number of complete pairs, both variables x variables; r is NaN below 3 pairs or without variation.
    """
    values = np.asarray(values, dtype=float)
    known = np.isfinite(values)
    filled, mask = np.where(known, values, 0.0), known.astype(float)
    n = mask @ mask.T
    with np.errstate(invalid="ignore", divide="ignore"):
        total, square = filled @ mask.T, (filled**2) @ mask.T  # of row i over the observations that j has too
        covariance = filled @ filled.T - total * total.T / n
        variance = square - total**2 / n
        r = covariance / np.sqrt(variance * variance.T)
    r[(n < 3) | (variance < 1e-12) | (variance.T < 1e-12)] = np.nan
    return np.clip(r, -1, 1), n.astype(int)


def most_similar(values, names: list[str], seed: int, axes, permutations: int = 1999) -> Estimate:
    """The pair of rows with the highest correlation, its bootstrap interval, and a p-value of the maximum.

    ``axes``: base model and benchmark of each observation (column). Neither those of a base model nor those of a benchmark are
    independent, so the null shuffles both as wholes, separately in every row. It takes the highest correlation of all pairs, which
    accounts for the search over pairs. The interval resamples benchmarks, and base models where there are five.
    """
    values = np.asarray(values, dtype=float)
    r, n = correlation_matrix(values)
    upper = np.triu_indices(len(values), 1)
    if not len(upper[0]) or np.all(np.isnan(r[upper])):
        return undefined("most similar pair", 0)
    best = np.nanargmax(r[upper])
    i, j = upper[0][best], upper[1][best]
    rng = np.random.default_rng(seed)
    model, benchmark = (np.unique(np.asarray(axis), return_inverse=True)[1] for axis in axes)
    models, benchmarks = model.max() + 1, benchmark.max() + 1
    cells = np.full((len(values), models, benchmarks), np.nan)
    cells[:, model, benchmark] = values
    null = []
    for _ in range(permutations):
        moved = [row[rng.permutation(models)][:, rng.permutation(benchmarks)].ravel() for row in cells]
        among = correlation_matrix(moved)[0][upper]
        null.append(-1.0 if np.isnan(among).all() else np.nanmax(among))
    p = (1 + np.sum(np.asarray(null) >= r[i, j] - 1e-12)) / (1 + permutations)
    both = np.isfinite(values[i]) & np.isfinite(values[j])
    weights, resampled, units = rng.multinomial(benchmarks, np.full(benchmarks, 1 / benchmarks), RESAMPLES)[:, benchmark], "", benchmarks
    if models >= FEWEST_CLUSTERS:  # resampling both errs on the wide side (Owen 2007, doi:10.1214/07-AOAS122)
        weights = weights * rng.multinomial(models, np.full(models, 1 / models), RESAMPLES)[:, model]
        resampled, units = f"{models} base models and ", RESAMPLES
    drawn = _weighted_correlation(values[i, both], values[j, both], weights[:, both].astype(float))
    low, high = expanded_interval(drawn, units)
    kind = f"bootstrap over {resampled}{benchmarks} benchmarks"
    return Estimate(
        f"{names[i]} and {names[j]}", float(r[i, j]), max(low, -1.0), min(high, 1.0), float(p), int(n[i, j]), interval_method=kind
    )


def _weighted_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlation of a and b [n] under each row of weights [draws, n]."""
    a, b = a - a.mean(), b - b.mean()
    total = np.maximum(weights.sum(axis=1), 1.0)
    mean_a, mean_b = weights @ a / total, weights @ b / total
    moments = (weights @ (a * b) / total - mean_a * mean_b, weights @ a**2 / total - mean_a**2, weights @ b**2 / total - mean_b**2)
    return ratio(np.stack(moments, axis=1))


# ---------------------------------------------------------------- differences


def paired_difference(differences, clusters, seed: int, what: str = "", unit: str = "runs", resamples: int = RESAMPLES) -> Estimate:
    """Mean of paired ``differences``; interval and sign-flip test treat each cluster's differences as one.

    The test flips the sign of whole clusters, over all 2^k arrangements up to 12 clusters and at random beyond. The interval needs five
    clusters; it is that of Student's t with k - 1 degrees of freedom and the error of a mean over clusters (Cameron and Miller 2015,
    doi:10.3368/jhr.50.2.317), with clusters of one size the t interval of their means. ``n`` counts clusters. Without a test below 2.
    """
    from scipy.special import stdtrit

    differences, clusters = np.asarray(differences, dtype=float), np.asarray(clusters)
    keep = np.isfinite(differences)
    _, index = np.unique(clusters[keep], return_inverse=True)
    sums, counts = np.bincount(index, differences[keep]), np.bincount(index)
    k = len(sums)
    if k < 2:
        return Estimate(what, float(differences[keep].mean()) if k else np.nan, np.nan, np.nan, np.nan, k, unit, "none")
    rng = np.random.default_rng(seed)
    exact = k <= EXACT_CLUSTERS
    signs = all_signs(k) if exact else rng.choice((-1.0, 1.0), size=(resamples, k))
    flipped, total = signs @ sums, sums.sum()
    near = abs(total) * 1e-9
    hits = np.array([np.sum(np.abs(flipped) >= abs(total) - near), np.sum(flipped >= total - near), np.sum(flipped <= total + near)])
    p, p_greater, p_less = hits / len(signs) if exact else (1 + hits) / (1 + len(signs))
    mean, means = total / counts.sum(), sums / counts
    error = np.sqrt(k / (k - 1) * np.sum((sums - mean * counts) ** 2)) / counts.sum()
    half = float(stdtrit(k - 1, 0.975) * error) if k >= FEWEST_CLUSTERS else np.nan
    method = f"t over {k} {unit}" if k >= FEWEST_CLUSTERS else "none"
    return Estimate(
        what, float(mean), float(mean) - half, float(mean) + half, float(p), k, unit, method, float(p_greater), float(p_less),
        float(means.min()), float(means.max()), float(smallest_p(k)),
    )  # fmt: skip


def signed_rank_p(values) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros are dropped, ties share ranks.

    Exact over all signs up to 12 values, else the normal approximation with tie correction. NaN below 2 values.
    """
    from scipy.stats import rankdata, wilcoxon

    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values) & (values != 0)]
    if len(values) < 2:
        return np.nan
    if len(values) > EXACT_CLUSTERS:
        return float(wilcoxon(values, method="asymptotic").pvalue)
    ranks = rankdata(np.abs(values))
    return float(np.mean(np.abs(all_signs(len(values)) @ ranks) >= abs(np.sign(values) @ ranks) - 1e-9))


@cache
def all_signs(k: int) -> np.ndarray:
    """Every arrangement of k signs [2^k, k]; the second half begins with 1, the last is all ones."""
    return np.array(list(product((-1.0, 1.0), repeat=k)))


def combined(effects, stderrs, what: str, unit: str, tests: int = 1, training=None, runs=None) -> Estimate:
    """Mean of checkpoints' estimates with known standard errors; normal interval and p, Bonferroni-adjusted for ``tests`` comparisons.

    They reflect the sampling of items only, and so hold for these checkpoints, not for another run or base model. ``training``, where all of
    it is known, adds the noise of training: three arrays, the standard error by seeds, the error by seeds as observed on the same items, and
    the degrees of freedom of the variance behind both; and ``runs``, a label of the run behind each estimate, because a seed may change all of a
    run's scores alike. Then interval and p are of t with Satterthwaite's degrees of freedom.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    effects, stderrs = np.asarray(effects, dtype=float), np.asarray(stderrs, dtype=float)
    keep = np.isfinite(effects) & np.isfinite(stderrs)
    n = int(keep.sum())
    if n == 0:
        return undefined(what, 0, unit)
    mean, variance, method = effects[keep].mean(), (stderrs[keep] ** 2).sum() / n**2, ITEM_NOISE
    half = 1.959964 * np.sqrt(variance)
    p = 2 * ndtr(-abs(mean) / np.sqrt(variance)) if variance > 0 else float(mean == 0)
    seeds, observed, df = (np.asarray(part, dtype=float)[keep] for part in training) if training is not None else (np.full(n, np.nan),) * 3
    if np.isfinite([seeds, observed, df]).all():
        index = np.unique(np.asarray(runs)[keep], return_inverse=True)[1] if runs is not None else np.arange(n)
        by_seeds, by_runs = (float((np.bincount(index, part) ** 2).sum()) / n**2 for part in (seeds, observed))
        variance, method = variance + by_seeds, BOTH_NOISES
        uncertain = by_runs**2 / df.min()  # one variance behind all: its error does not average out
        free = variance**2 / uncertain if uncertain > 0 else 1e9
        half = stdtrit(free, 0.975) * np.sqrt(variance)
        p = 2 * stdtr(free, -abs(mean) / np.sqrt(variance)) if variance > 0 else float(mean == 0)
    low, high = float(mean - half), float(mean + half)
    return Estimate(what, float(mean), low, high, min(1.0, float(p) * tests), n, unit, method)


# ---------------------------------------------------------------- distances


def explained_share(squared_distances, labels, units, what: str = "") -> Estimate:
    """Share of the total squared distance that lies between labels (PERMANOVA's R squared, Anderson 2001); it carries no test.

    The interval is a delete-one-unit jackknife (``units``: one label per point, the training set), normal approximation, cut at 0 and 1;
    NaN with one unit. Undefined with one label, or one point per label.
    """
    squared, units = np.asarray(squared_distances, dtype=float), np.asarray(units)
    _, codes = np.unique(np.asarray(labels), return_inverse=True)
    n, k = len(codes), len(set(codes.tolist()))
    if k < 2 or n <= k or squared.sum() == 0:
        return undefined(what, n, "checkpoints")
    effect = _between(squared, codes)
    low = high = np.nan
    names = list(dict.fromkeys(units.tolist()))
    if len(names) > 1:
        keeps = [np.flatnonzero(units != name) for name in names]
        left = np.array([_between(squared[np.ix_(keep, keep)], codes[keep]) for keep in keeps])
        half = 1.959964 * np.sqrt((len(names) - 1) / len(names) * np.sum((left - left.mean()) ** 2))
        low, high = max(0.0, effect - half), min(1.0, effect + half)
    return Estimate(what, effect, float(low), float(high), np.nan, n, "checkpoints", f"jackknife over {len(names)} training sets")


def _between(squared: np.ndarray, codes: np.ndarray) -> float:
    member = np.eye(codes.max() + 1)[codes]
    sizes = member.sum(axis=0)
    within = np.divide(
        np.einsum("ig,ij,jg->g", member, squared, member, optimize=True), 2 * sizes, out=np.zeros(len(sizes)), where=sizes > 0
    ).sum()
    total = squared.sum() / (2 * len(codes))
    return float(1 - within / total) if total > 0 else np.nan
