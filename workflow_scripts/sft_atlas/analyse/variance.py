"""Principal components of effects, and variance by factor. Functions of ``cells`` (see :mod:`sft_atlas.analyse.consistency`)."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from sft_atlas.analyse.consistency import cube
from sft_atlas.stats.estimates import interval_over_clusters
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns

EXPLAINED = 0.9
NULLS = 199
DRAWS = 299
TERMS = ("model", "dataset", "method", "model x dataset", "model x method", "dataset x method", "rest")


@dataclass(frozen=True)
class Components:
    """Principal components of observations x variables, each variable at mean 0 and unit spread."""

    variables: list[str]
    observations: list[tuple[str, ...]]
    share: np.ndarray  # of the variance, per component
    null: np.ndarray  # the same with unrelated variables: draws x components
    loadings: np.ndarray  # variables x components
    places: np.ndarray  # observations x components

    @property
    def needed(self) -> int:
        """Components that explain 90 % of the variance."""
        return _needed(self.share)

    @property
    def needed_by_chance(self) -> tuple[float, float]:
        """2.5 and 97.5 % points of the same number under shuffling."""
        return tuple(np.percentile([_needed(share) for share in self.null], [2.5, 97.5]).tolist())

    @property
    def beyond_chance(self) -> int:
        """Leading components that explain more than the same component of 95 % of the shuffles."""
        above = self.share > np.percentile(self.null, 95, axis=0)
        return int(np.argmin(above)) if not above.all() else len(above)


def _needed(share: np.ndarray) -> int:
    return int(np.searchsorted(np.cumsum(share), EXPLAINED - 1e-9) + 1)


def complete_part(values: np.ndarray) -> list[np.ndarray]:
    """Indices along each axis that are left when the slice with the largest share of gaps is dropped until none has any; ties: the first."""
    kept, gaps = [np.arange(size) for size in values.shape], ~np.isfinite(values)
    while (part := gaps[np.ix_(*kept)]).any():
        shares = [np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1).mean(axis=1) for axis in range(part.ndim)]
        worst = int(np.argmax([share.max() for share in shares]))
        kept[worst] = np.delete(kept[worst], shares[worst].argmax())
    return kept


def components(cells: pl.DataFrame, value: str, variables: str, seed: int) -> Components | None:
    """Principal components of ``value`` with one variable per ``variables`` (model, dataset or benchmark); None below 3 x 3.

    Observations are the combinations of the other two keys, each benchmark at unit spread; only complete slices of the three keys are
    used (:func:`complete_part`). Within a variable, runs of one base model or training set are dependent even if the variables are
    unrelated, so the null shuffles these keys as wholes, separately in every variable. Gains on different training sets share their base
    score: with training sets as variables, use ``centred``.
    """
    if cells.is_empty():
        return None
    axes = (*(key for key in ("model", "dataset", "benchmark") if key != variables), variables)
    names, array = cube(cells, value, axes)
    kept = complete_part(array)
    part = array[np.ix_(*kept)]
    first, second, shown = ([every[i] for i in index] for every, index in zip(names, kept, strict=True))
    sets = axes.index("dataset") if value == "centred" else None
    moving = _recentred(part, sets).std(axis=(0, 1)) > 1e-12 if part.size else np.zeros(0, bool)
    if moving.sum() < 3 or len(first) * len(second) < 3:
        return None
    part = part[..., moving]
    spread = part.std(axis=tuple(i for i in range(3) if axes[i] != "benchmark"), keepdims=True)
    part = np.divide(part, spread, out=np.zeros_like(part), where=spread > 1e-12)
    left, scale, right = np.linalg.svd(_standard(part, sets), full_matrices=False)
    rng = np.random.default_rng(seed)
    null = np.array([np.linalg.svd(_standard(_shuffled(part, rng), sets), compute_uv=False) ** 2 for _ in range(NULLS)])
    return Components(
        [name for name, moves in zip(shown, moving, strict=True) if moves],
        [(a, b) for a in first for b in second],
        scale**2 / (scale**2).sum(),
        null / null.sum(axis=1, keepdims=True),
        right.T,
        left * scale,
    )


def _recentred(part: np.ndarray, sets: int | None) -> np.ndarray:
    """Minus the mean over training sets (an axis), which sets that were dropped or shuffled have moved; as it is where that is None."""
    return part if sets is None else part - part.mean(axis=sets, keepdims=True)


def _standard(part: np.ndarray, sets: int | None) -> np.ndarray:
    """Observations x variables at mean 0 and unit spread, from two keys x variables."""
    matrix = _recentred(part, sets).reshape(-1, part.shape[2])
    return (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)


def _shuffled(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two keys x variables, the levels of both keys in another order in every variable."""
    moved = [part[rng.permutation(part.shape[0])][:, rng.permutation(part.shape[1]), j] for j in range(part.shape[2])]
    return np.stack(moved, axis=2)


# ---------------------------------------------------------------- variance


def shares(values: np.ndarray) -> np.ndarray:
    """Share of the sum of squares of each of ``TERMS`` in a complete array of models x datasets x methods; NaN if nothing varies."""
    grand = values.mean()
    m, d, k = values.shape
    model, dataset, method = (values.mean(axis=axes, keepdims=True) - grand for axes in ((1, 2), (0, 2), (0, 1)))
    sides = ((2, model, dataset), (1, model, method), (0, dataset, method))
    pairs = [values.mean(axis=axis, keepdims=True) - grand - one - other for axis, one, other in sides]
    parts = (model, dataset, method, *pairs, values - grand - model - dataset - method - sum(pairs))
    squares = np.array([float((np.broadcast_to(part, (m, d, k)) ** 2).sum()) for part in parts])
    squares[squares < 1e-12 * squares.sum()] = 0  # terms that centring has removed
    return squares / squares.sum() if squares.sum() > 0 else np.full(len(TERMS), np.nan)


def variance(cells: pl.DataFrame, value: str, seed: int) -> pl.DataFrame:
    """Per benchmark the share of each term in the variance of ``value``, and their mean over benchmarks (``all``) with an interval.

    Only base models with every training set and method count; the interval of the mean resamples base models, of which it needs five.
    """
    rows, arrays = [], {}
    for (benchmark,), part in cells.group_by("benchmark", maintain_order=True):
        (models, *_), array = cube(part, value, ("model", "dataset", "method"))
        full = np.isfinite(array).all(axis=(1, 2))
        if full.sum() < 2 or min(array.shape[1:]) < 2:
            continue
        arrays[benchmark] = {name: array[i] for i, name in enumerate(models) if full[i]}
        size = int(full.sum())
        rows += [(benchmark, value, term, size, share, np.nan, np.nan) for term, share in zip(TERMS, shares(array[full]), strict=True)]
    if arrays:
        names = list(dict.fromkeys(name for part in arrays.values() for name in part))
        point = np.nanmean([shares(np.stack(list(part.values()))) for part in arrays.values()], axis=0)
        rng, drawn = np.random.default_rng(seed), []
        for _ in range(DRAWS):
            picked = [names[i] for i in rng.integers(len(names), size=len(names))]
            stacks = [np.stack([part[name] for name in picked if name in part]) for part in arrays.values() if len({*picked} & {*part}) > 1]
            drawn.append(np.nanmean([shares(stack) for stack in stacks], axis=0) if stacks else np.full(len(TERMS), np.nan))
        for j, term in enumerate(TERMS):
            low, high = interval_over_clusters(np.array(drawn)[:, j], len(names))
            rows.append(("all", value, term, len(names), float(point[j]), *np.clip((low, high), 0.0, 1.0).tolist()))
    schema = {**columns("benchmark value term", TEXT), "n": WHOLE, **columns("effect low high", REAL)}
    return pl.DataFrame(rows, schema, orient="row")
