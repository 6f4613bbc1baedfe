"""Variance components of a crossed random design with replicates in its cells: how much factors, their interactions and replicates vary.

Functions of arrays. Estimates are those of the analysis of variance (Searle, Casella and McCulloch 1992, *Variance Components*, chapter 4), where cells
have unequal numbers of replicates of the cells' means without weights (Burdick and Graybill 1992, *Confidence Intervals on Variance Components*). Intervals are percentiles of generalized pivotal quantities
(Weerahandi 1993, doi:10.1080/01621459.1993.10476355): every mean square is drawn from the distribution that it has given its degrees of freedom.
They suppose normal effects, and hold for the population that the levels of the factors are a sample of.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

DRAWS = 4_999
FEWEST_LEVELS = 3  # with two levels, one degree of freedom, an interval spans four orders of magnitude


@dataclass(frozen=True)
class Component:
    """A variance, cut at 0, with its 95 % interval (NaN where there is none). ``df``: of the mean square of the term itself."""

    term: str
    variance: float
    low: float
    high: float
    df: float


@dataclass(frozen=True)
class Replicates:
    """The variance between replicates of a cell, pooled over cells, with its degrees of freedom.

    ``known`` is the part of it that is known to come from something else than the replicates themselves, such as the sampling of items.
    """

    variance: float
    df: float
    known: float = 0.0


def pooled(variances, counts) -> tuple[float, float]:
    """The mean of cells' variances weighted by replicates minus 1, and the sum of these weights; NaN and 0 where no cell has two."""
    variances, weights = np.asarray(variances, dtype=float), np.asarray(counts, dtype=float) - 1
    several = weights > 0
    total = float(weights[several].sum())
    return (float((weights * variances)[several].sum() / total), total) if total else (np.nan, 0.0)


def replicate_components(replicates: Replicates, seed: int) -> list[Component]:
    """``run``: between replicates as observed; ``seed``: without the part that is known; ``items``: that part, without an interval."""
    drawn = replicates.variance / _chi_square(np.random.default_rng(seed), replicates.df)
    own = [
        _component(term, replicates.variance - minus, drawn - minus, replicates.df)
        for term, minus in (("run", 0.0), ("seed", replicates.known))
    ]
    return [*own, Component("items", max(0.0, replicates.known), np.nan, np.nan, np.nan)]


def mean_squares(values: np.ndarray) -> dict[tuple[int, ...], tuple[float, int]]:
    """Mean square and degrees of freedom of each set of axes of a complete array, for axes of two or more levels."""
    values = np.asarray(values, dtype=float)
    axes = [axis for axis in range(values.ndim) if values.shape[axis] > 1]
    result = {}
    for size in range(1, len(axes) + 1):
        for term in combinations(axes, size):
            effect = values
            for axis in range(values.ndim):
                mean = effect.mean(axis=axis, keepdims=True)
                effect = effect - mean if axis in term else np.broadcast_to(mean, effect.shape)
            df = int(np.prod([values.shape[axis] - 1 for axis in term]))
            result[term] = (float((effect**2).sum() / df), df)
    return result


def crossed_components(
    values: np.ndarray, names: tuple[str, ...], replicates: Replicates | None, counts: np.ndarray, seed: int
) -> list[Component]:
    """Components of a complete array of cell means: each axis, their interactions, then ``seed`` and ``items`` as in :func:`replicate_components`.

    ``counts`` holds the replicates of each cell. Without ``replicates`` the highest interaction cannot be told from them, and is called
    ``rest``. Axes of one level have no component; those of fewer than FEWEST_LEVELS have one without an interval.
    """
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    squares = mean_squares(values)
    if not squares:
        return []
    top = max(squares, key=len)
    drawn = {term: square / _chi_square(rng, df) for term, (square, df) in squares.items()}
    share = float(np.mean(1 / np.asarray(counts, dtype=float)))  # of the variance between replicates in that of cell means
    replicated = replicates.variance / _chi_square(rng, replicates.df) if replicates else None
    found = []
    for term, (_, df) in squares.items():
        scale = float(np.prod([values.shape[axis] for axis in range(values.ndim) if axis not in term]))
        above = [(other, (-1) ** (len(other) - len(term))) for other in squares if set(other) >= set(term)]
        variance = sum(sign * squares[other][0] for other, sign in above) / scale
        draws = sum(sign * drawn[other] for other, sign in above) / scale
        if term == top and replicates:
            variance, draws = variance - share * replicates.variance, draws - share * replicated
        name = "rest" if term == top and not replicates else " x ".join(names[axis] for axis in term)
        few = min(values.shape[axis] for axis in term) < FEWEST_LEVELS and len(term) == 1
        found.append(_component(name, variance, draws, df) if not few else Component(name, max(0.0, variance), np.nan, np.nan, df))
    return found + [part for part in (replicate_components(replicates, seed) if replicates else ()) if part.term != "run"]


def _chi_square(rng: np.random.Generator, df: float) -> np.ndarray:
    return rng.chisquare(df, DRAWS) / df


def _component(term: str, variance: float, draws: np.ndarray, df: float) -> Component:
    low, high = np.maximum(np.percentile(draws, [2.5, 97.5]), 0.0).tolist()
    return Component(term, max(0.0, float(variance)), low, high, float(df))
