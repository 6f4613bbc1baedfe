"""Which training set for a new base model? Gains predicted from what is known before training, with the error such predictions have.

The predictor is a ridge regression on properties of base model and training set and, for training sets whose gains are known, on the
training set itself. Everything is relative to the base model's mean over training sets. Its error is that of predictions for base models
left out, and, where a candidate is a training set never trained on, for base models and training sets left out together.
"""

from dataclasses import dataclass

import numpy as np

from sft_atlas.stats.two_way import shuffle_p

PRIOR = 3.0  # training sets of evidence that a coefficient of a property is shrunk by
FEWEST_MODELS, FEWEST_SETS = 3, 4
SHUFFLES = 199
CHANCE = 0.05


@dataclass(frozen=True)
class Training:
    """``gain``: base models x training sets (fractions, NaN where missing); ``features``: the same x properties; names of all three."""

    gain: np.ndarray
    features: np.ndarray
    models: list[str]
    sets: list[str]
    properties: list[str]
    source: str


@dataclass(frozen=True)
class Skill:
    """Held-out error of the adviser. ``rmse`` of relative gains and ``rmse_gain`` of gains (fractions); ``spread``: RMSE of predicting the
    same gain for every set; ``rank``: mean over base models of Spearman's correlation of predicted and true gains; ``p`` of ``rank``."""

    rmse: float
    rmse_gain: float
    spread: float
    rank: float
    p: float
    models: int
    sets: int
    held_out: str

    @property
    def useful(self) -> bool:
        """Whether the ranking is better than chance and the predictions better than none."""
        return bool(self.p < CHANCE and self.rank > 0 and self.rmse < self.spread)


def relative(values: np.ndarray) -> np.ndarray:
    """Values minus the mean over training sets (axis 1), NaN kept."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis=1, keepdims=True), known.sum(axis=1, keepdims=True)
    return values - np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def fit(x: np.ndarray, y: np.ndarray, sets: np.ndarray, count: int, with_sets: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the properties and effects of the training sets (0 without ``with_sets``) from cells ``x`` [cells, properties],
    relative gains ``y`` and the training set of each cell. A property's evidence is as many cells as there are base models per set."""
    each = len(y) / max(len(set(sets.tolist())), 1)
    columns, penalty = [x], [PRIOR * each] * x.shape[1]
    if with_sets:
        columns.append(np.eye(count)[sets])
        penalty += [1.0] * count
    design = np.concatenate(columns, axis=1)
    if not design.shape[1]:
        return np.zeros(0), np.zeros(count)
    found = np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ y)
    return found[: x.shape[1]], found[x.shape[1] :] if with_sets else np.zeros(count)


def standardised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Properties relative to each base model's mean, in units of their spread; missing ones are average. And that spread."""
    centred = relative(features)
    scale = np.sqrt(np.nanmean(centred**2, axis=(0, 1))) if centred.size else np.zeros(features.shape[-1])
    scale = np.where(np.isfinite(scale) & (scale > 1e-9), scale, np.inf)
    return np.where(np.isfinite(centred), centred, 0.0) / scale, scale


def held_out_predictions(features: np.ndarray, gain: np.ndarray, new_sets: bool) -> np.ndarray:
    """Relative gains predicted for each base model from the others; with ``new_sets`` also without the training set in question."""
    y, known = relative(gain), np.isfinite(gain)
    x, _ = standardised(features)
    models, sets = gain.shape
    index = np.broadcast_to(np.arange(sets), gain.shape)
    found = np.full(gain.shape, np.nan)
    for m in range(models):
        for j in range(sets) if new_sets else (None,):
            use = known.copy()
            use[m] = False
            if j is not None:
                use[:, j] = False
            if not use.any():
                continue
            target = y
            if j is not None:  # relative to the mean of the sets that are seen
                target = relative(np.where(np.arange(sets) == j, np.nan, gain))
            slope, effect = fit(x[use], target[use], index[use], sets, with_sets=not new_sets)
            prediction = x[m] @ slope + effect
            found[m] = np.where(np.arange(sets) == j, prediction, found[m]) if j is not None else prediction
    return relative(np.where(known, found, np.nan))


def rank_agreement(predicted: np.ndarray, gain: np.ndarray) -> float:
    """Mean over base models of Spearman's rank correlation; a prediction that does not vary counts as 0."""
    from scipy.stats import rankdata

    values = []
    for left, right in zip(predicted, gain, strict=True):
        both = np.isfinite(left) & np.isfinite(right)
        if both.sum() < 3:
            continue
        a, b = (rankdata(np.round(side[both], 12)) for side in (left, right))
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a @ a) * (b @ b))
        values.append(float(a @ b / scale) if scale > 0 else 0.0)
    return float(np.mean(values)) if values else np.nan


def skill(training: Training, new_sets: bool, seed: int, shuffles: int = SHUFFLES) -> Skill:
    """Held-out error, and whether the ranking is better than chance.

    Chance: gains shuffled over training sets, and everything fitted anew. Where training sets are known the shuffle is separate in each
    base model (does anything carry over from one base model to another?); for new ones it is the same in all base models (do the
    properties tell sets apart?).
    """
    gain, features = training.gain, training.features
    models, sets = gain.shape
    told = "a base model and a training set" if new_sets else "a base model"
    if models < FEWEST_MODELS or sets < FEWEST_SETS:
        return Skill(np.nan, np.nan, np.nan, np.nan, np.nan, models, sets, told)
    y = relative(gain)
    predicted = held_out_predictions(features, gain, new_sets)
    both = np.isfinite(predicted) & np.isfinite(y)
    level = np.nanmean(gain, axis=1)
    guess = (level.sum() - level) / (models - 1)  # of each base model's level, from the others
    rank = rank_agreement(predicted, gain)
    rng, null = np.random.default_rng(seed), []
    for _ in range(shuffles):
        orders = np.tile(rng.permutation(sets), (models, 1)) if new_sets else rng.permuted(np.tile(np.arange(sets), (models, 1)), axis=1)
        shuffled = np.take_along_axis(gain, orders, axis=1)
        null.append(rank_agreement(held_out_predictions(features, shuffled, new_sets), shuffled))
    error = (predicted - y)[both]
    absolute = (predicted + guess[:, None] - gain)[both]
    return Skill(
        float(np.sqrt((error**2).mean())), float(np.sqrt((absolute**2).mean())), float(np.sqrt((y[both] ** 2).mean())),
        rank, shuffle_p(np.array(null), rank, exact=False), models, sets, told,
    )  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """Per candidate, best first: gain and its 95 % prediction interval, and the gain relative to the candidates' mean (fractions)."""

    dataset: str
    gain: float
    low: float
    high: float
    relative: float
    known: bool


def advise(training: Training, candidates: list[str], features: np.ndarray, seed: int) -> tuple[list[Advice], Skill]:
    """Predicted gains of the candidates for a new base model; ``features``: candidates x properties, NaN where unknown.

    The list is empty where the adviser's error is no better than chance. The interval is t-based, with one degree of freedom fewer than
    base models, on the held-out error of gains.
    """
    from scipy.special import stdtrit

    known = [name in training.sets for name in candidates]
    found = skill(training, not all(known), seed)
    if not found.useful:
        return [], found
    x, scale = standardised(training.features)
    seen = np.isfinite(training.gain)
    index = np.broadcast_to(np.arange(len(training.sets)), training.gain.shape)
    slope, effect = fit(x[seen], relative(training.gain)[seen], index[seen], len(training.sets), with_sets=all(known))
    own = relative(features[None])[0]
    own = np.where(np.isfinite(own), own, 0.0) / scale
    values = own @ slope + np.array([effect[training.sets.index(name)] if name in training.sets else 0.0 for name in candidates])
    values = values - values.mean()
    half = float(stdtrit(found.models - 1, 0.975)) * found.rmse_gain
    level = float(np.nanmean(training.gain[:, [training.sets.index(n) for n in candidates]]) if all(known) else np.nanmean(training.gain))
    made = [
        Advice(name, level + value, level + value - half, level + value + half, value, is_known)
        for name, value, is_known in zip(candidates, values.tolist(), known, strict=True)
    ]
    return sorted(made, key=lambda one: -one.gain), found
