"""Statistics for gains in a design of base models x training sets, where both are sampled.

Every base model is tuned on the same training sets, so two gains on one set are not independent, whichever base models they belong to.
Shuffling gains within each base model separately treats them as if they were, and finds spurious correlations whenever some sets help
every base model. The p-values here therefore shuffle training sets as wholes, the same way in every base model; the intervals resample
base models and training sets at once (pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122, which errs on the wide side).

Matrices are groups x training sets, NaN where missing. A group is a base model, or a base model x benchmark; ``clusters`` names the base
model of each group.
"""

from itertools import permutations as orders
from math import factorial

import numpy as np

from sft_atlas.stats.estimates import FEWEST_CLUSTERS, RESAMPLES, TINY, Estimate, expanded_interval, ratio, undefined

MOST_ENUMERATED = 5040  # 7!: up to seven training sets the test is exact
FEWEST_SETS = 4  # with three sets there are six orders, and no p below 1/6


def within_groups(*matrices) -> list[np.ndarray]:
    """The matrices minus the mean of each group over the cells that all of them have; 0 in the other cells."""
    values = [np.asarray(matrix, dtype=float) for matrix in matrices]
    known = np.all([np.isfinite(matrix) for matrix in values], axis=0)
    counts = np.maximum(known.sum(axis=1, keepdims=True), 1)
    filled = [np.where(known, matrix, 0.0) for matrix in values]
    return [np.where(known, matrix - matrix.sum(axis=1, keepdims=True) / counts, 0.0) for matrix in filled]


def shuffled_orders(sets: int, seed: int, count: int) -> tuple[np.ndarray, bool]:
    """Orders of ``sets`` training sets [orders, sets], and whether they are all there are (the first is then the observed one)."""
    if factorial(min(sets, 10)) <= min(count, MOST_ENUMERATED):
        return np.array(list(orders(range(sets)))), True
    return np.random.default_rng(seed).permuted(np.tile(np.arange(sets), (count, 1)), axis=1), False


def shuffle_p(statistics: np.ndarray, observed: float, exact: bool) -> float:
    """p of ``observed`` among the shuffled statistics, which hold it themselves where ``exact``."""
    hits = int(np.sum(statistics >= observed - TINY))
    return hits / len(statistics) if exact else (1 + hits) / (1 + len(statistics))


def cell_weights(clusters, sets: int, seed: int, count: int) -> tuple[np.ndarray, np.ndarray, str, int]:
    """How often each group [count, groups] and each training set [count, sets] is drawn; what was resampled; units for the interval.

    Base models are resampled where there are five or more, training sets always. Resampling both is wide enough by itself: the units
    returned then are so many that :func:`expanded_interval` does not widen it further.
    """
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    drawn = rng.multinomial(sets, np.full(sets, 1 / sets), size=count).astype(float)
    if len(names) < FEWEST_CLUSTERS:
        return np.ones((count, len(index))), drawn, f"bootstrap over {sets} training sets", sets
    groups = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count).astype(float)[:, index]
    return groups, drawn, f"bootstrap over {len(names)} base models and {sets} training sets", count


def weighted_moments(x: np.ndarray, y: np.ndarray, groups: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Within-group sums of xy, xx and yy [draws, 3] under the weights of :func:`cell_weights`."""
    known = np.isfinite(x) & np.isfinite(y)
    a, b = np.where(known, x, 0.0), np.where(known, y, 0.0)
    weight = sets @ known.T.astype(float)
    totals = [sets @ matrix.T for matrix in (a, b)]

    def moment(left: np.ndarray, right: np.ndarray, i: int, j: int) -> np.ndarray:
        centred = sets @ (left * right).T - np.divide(totals[i] * totals[j], weight, out=np.zeros_like(weight), where=weight > 0)
        return (groups * centred).sum(axis=1)

    return np.stack([moment(a, b, 0, 1), moment(a, a, 0, 0), moment(b, b, 1, 1)], axis=1)


def varies(x: np.ndarray) -> bool:
    """Whether centred values are more than rounding noise."""
    return bool(np.abs(x).max(initial=0) > 1e-9)


def correlation(x, y, clusters, seed: int, what: str = "", count: int = RESAMPLES) -> Estimate:
    """Pearson correlation within groups (repeated-measures correlation), tested by shuffling training sets as wholes.

    Undefined below four training sets with two values in some group, or where x or y does not vary within groups.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    x, y, clusters = compact(x, y, clusters)
    n = int((np.isfinite(x) & np.isfinite(y)).sum())
    if x.shape[1] < FEWEST_SETS:
        return undefined(what, n)
    a, b = within_groups(x, y)
    if not (varies(a) and varies(b)):
        return undefined(what, n)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    effect = float((a * b).sum() / scale)
    shuffles, exact = shuffled_orders(x.shape[1], seed, count)
    cross = a.T @ b  # sum over groups; a shuffle picks one entry per row
    null = cross[np.arange(x.shape[1]), shuffles].sum(axis=1) / scale
    groups, sets, kind, units = cell_weights(clusters, x.shape[1], seed, count)
    low, high = expanded_interval(ratio(weighted_moments(x, y, groups, sets)), units)
    p, greater, less = (shuffle_p(*each, exact) for each in ((np.abs(null), abs(effect)), (null, effect), (-null, -effect)))
    return Estimate(what, effect, max(low, -1.0), min(high, 1.0), p, n, interval_method=kind, p_greater=greater, p_less=less)


def compact(x: np.ndarray, y: np.ndarray, clusters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without the groups that have fewer than two complete cells and the training sets that have none."""
    known = np.isfinite(x) & np.isfinite(y)
    rows = known.sum(axis=1) > 1
    columns = known[rows].any(axis=0) if rows.any() else np.zeros(x.shape[1], bool)
    keep = np.ix_(rows, columns)
    return np.where(known, x, np.nan)[keep], np.where(known, y, np.nan)[keep], np.asarray(clusters)[rows]


def within_shuffle_p(x, y, seed: int, count: int = RESAMPLES) -> float:
    """p from shuffling gains within each group separately; for comparison only, because it treats gains on one training set as independent."""
    a, b = within_groups(x, y)
    if not (varies(a) and varies(b)):
        return np.nan
    rng = np.random.default_rng(seed)
    null = np.zeros(count)
    for left, right in zip(a, b, strict=True):
        null += rng.permuted(np.tile(right, (count, 1)), axis=1) @ left
    return shuffle_p(np.abs(null), abs(float((a * b).sum())), exact=False)


def mixed_slope(x, y, clusters, what: str = "") -> Estimate:
    """Slope of y on x (in standard deviations within groups) with random effects of base model and training set, by REML.

    Where groups are base models x benchmarks, which stand in the same order in every base model, also of group and training set x benchmark.
    Interval and p from t with (training sets - 2) degrees of freedom, because a predictor that is much the same in every base model
    carries no more information than that. Undefined below five training sets or two base models, without variation, or where the fit fails to converge.
    """
    from scipy.special import stdtr, stdtrit

    clusters = np.asarray(clusters)
    benchmark = np.array([np.sum(clusters[:i] == name) for i, name in enumerate(clusters)], int)  # place of a group in its base model
    x, y, kept = compact(np.asarray(x, dtype=float), np.asarray(y, dtype=float), np.arange(len(clusters)))
    clusters, benchmark = clusters[kept], benchmark[kept]
    sets, known = x.shape[1], np.isfinite(x)
    n = int(known.sum())
    a, _ = within_groups(x, y)
    if sets < 5 or len(set(clusters.tolist())) < 2 or not varies(a) or not varies(within_groups(y)[0]):
        return undefined(what, n)
    rows, columns = np.nonzero(known)
    fixed = np.stack([np.ones(n), a[known] / a[known].std()], axis=1)
    nested, crossed = [columns], [np.unique(clusters, return_inverse=True)[1][rows]]
    if len(set(clusters.tolist())) < len(clusters):
        nested.insert(0, benchmark[rows] * sets + columns)  # what a set does to a benchmark, it does in every base model
        crossed.append(rows)
    fit = _reml(y[known] / (scale := y[known].std()), fixed, nested, crossed)
    if fit is None:
        return undefined(what, n)
    slope, error = (float(value) * scale for value in fit)
    half = float(stdtrit(sets - 2, 0.975)) * error
    p = float(2 * stdtr(sets - 2, -abs(slope) / error))
    return Estimate(what, slope, slope - half, slope + half, p, n, interval_method="mixed model")


def _reml(y: np.ndarray, fixed: np.ndarray, nested: list[np.ndarray], crossed: list[np.ndarray]) -> tuple[float, float] | None:
    """Last coefficient of ``fixed`` [n, terms] and its standard error under random intercepts; None where the fit does not converge.

    ``nested`` and ``crossed`` label the n observations by each random effect; each of ``nested`` lies within the next one. This is the
    profiled REML criterion of lme4 (Bates et al. 2015, doi:10.18637/jss.v067.i01): in statsmodels, whose matrices are dense in the
    observations, a hundred training sets do not end. Here nested effects, whose matrices are diagonal, are eliminated first, so that
    the cost of a step grows with the training sets and not with their cube.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve
    from scipy.optimize import minimize

    n, terms = fixed.shape
    indicators = [
        np.eye(label.max() + 1)[label] for label in (np.unique(label, return_inverse=True)[1] for label in [*nested[1:], *crossed])
    ]
    rest = np.concatenate([*indicators, fixed, y[:, None]], axis=1)
    sizes = [indicator.shape[1] for indicator in indicators]
    first = np.unique(nested[0], return_inverse=True)[1]
    sums = np.zeros((first.max() + 1, rest.shape[1]))
    np.add.at(sums, first, rest)
    counts = np.bincount(first)
    gram = rest.T @ rest
    by_count = [(size, np.sum(counts == size), sums[counts == size].T @ sums[counts == size]) for size in np.unique(counts)]

    def solve(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The criterion, the cross products of fixed terms and y given the random effects' relative sizes, and their log-determinant."""
        square = theta[0] ** 2
        left = gram - sum(square / (1 + square * size) * part for size, _, part in by_count)
        log_det = sum(number * np.log1p(square * size) for size, number, _ in by_count)
        for relative, width in zip(theta[1 : len(nested)] ** 2, sizes, strict=False):
            diagonal = left.diagonal()[:width]
            across = left[:width, width:]
            log_det += np.log1p(relative * diagonal).sum()
            left = left[width:, width:] - across.T @ (across * (relative / (1 + relative * diagonal))[:, None])
        scales = np.repeat(theta[len(nested) :], sizes[len(nested) - 1 :])
        width = len(scales)
        factor = cho_factor(np.eye(width) + scales[:, None] * left[:width, :width] * scales, lower=True)
        across = scales[:, None] * left[:width, width:]
        left = left[width:, width:] - across.T @ cho_solve(factor, across)
        log_det += 2 * np.log(factor[0].diagonal()).sum()
        inside = np.linalg.inv(left[:-1, :-1])
        coefficients = inside @ left[:-1, -1]
        residual = left[-1, -1] - left[-1, :-1] @ coefficients
        value = log_det + np.linalg.slogdet(left[:-1, :-1])[1] + (n - terms) * np.log(max(residual, TINY))
        return float(value), coefficients, inside * residual / (n - terms)

    def criterion(theta: np.ndarray) -> float:
        return solve(theta)[0]

    try:
        # No gradients: they mislead where a variance is zero, which is at the edge of what is allowed.
        place, options = np.ones(len(nested) + len(crossed)), {"xatol": 1e-5, "fatol": 1e-9, "maxiter": 4000, "maxfev": 4000}
        for _ in range(2):  # from its own end, because a simplex may collapse at the edge
            result = minimize(criterion, place, method="Nelder-Mead", bounds=[(0, None)] * len(place), options=options)
            place = result.x
        _, coefficients, covariance = solve(place)
    except (LinAlgError, np.linalg.LinAlgError):
        return None
    error = np.sqrt(covariance[-1, -1])
    return (coefficients[-1], error) if result.success and np.isfinite(error) and error > 0 else None
