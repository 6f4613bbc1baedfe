"""Rankings of training sets by what they did for other base models, and how good such a ranking is for a base model that is held out.

Functions of arrays of effects [base models, training sets], NaN where missing. An effect is a score relative to the base model's mean over
training sets, so that no score of the base model itself is needed.
"""

from dataclasses import dataclass, field

import numpy as np

from sft_atlas.stats.cross_validation import centre
from sft_atlas.stats.estimates import Estimate, decidable_q, paired_difference
from sft_atlas.stats.two_way import shuffle_p
from sft_atlas.stats.wording import SIGNIFICANT

FEWEST_MODELS, FEWEST_SETS = 3, 4
SHUFFLES = 199
RESAMPLES = 1999
BASELINE = "mean of the other base models"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Order:
    """How good a predicted order of training sets is: mean over base models of Spearman's ``rank`` correlation with the true one;
    ``regret``: what the set in first place gains less than the best (in the unit of the gains, mean over base models); ``top``: for how many
    of the ``models`` it is the best."""

    rank: float = np.nan
    regret: float = np.nan
    top: int = 0
    models: int = 0


def relative(values: np.ndarray) -> np.ndarray:
    """Values minus the mean over training sets (axis 1), NaN kept."""
    return centre(values, 1)


def column_means(values: np.ndarray) -> np.ndarray:
    """Means over axis 0 of what is known, NaN where nothing is."""
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    return np.divide(np.where(known, values, 0.0).sum(axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def rank_correlations(predicted: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Spearman's correlation per base model, NaN below three sets; 0 where the prediction or the truth does not vary."""
    both = np.isfinite(predicted) & np.isfinite(gain)
    a, b = (relative(np.where(both, ranks(np.round(side, 12), both), np.nan)) for side in (predicted, gain))
    products = [np.where(both, left * right, 0.0).sum(axis=1) for left, right in ((a, b), (a, a), (b, b))]
    scale = np.sqrt(products[1] * products[2])
    values = np.divide(products[0], scale, out=np.zeros(len(gain)), where=scale > 0)
    return np.where(both.sum(axis=1) < 3, np.nan, values)


def ranks(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Rank of each known value in its row, ties sharing the mean of theirs; all rows at once, as simulations rank many of a few values."""
    other, own, there = values[:, None, :], values[:, :, None], known[:, None, :]
    return ((other < own) & there).sum(axis=2) + (((other == own) & there).sum(axis=2) + 1) / 2


def rank_agreement(predicted: np.ndarray, gain: np.ndarray) -> float:
    """Mean over base models of :func:`rank_correlations`."""
    values = rank_correlations(predicted, gain)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def regrets(predicted: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, int]:
    """What the set in first place gains less than the best, per base model, and for how many of them it is the best.

    A prediction that does not vary within a base model picks its sets at random. NaN below two sets.
    """
    values, top = np.full(len(gain), np.nan), 0
    for m, (left, right) in enumerate(zip(predicted, gain, strict=True)):
        both = np.isfinite(left) & np.isfinite(right)
        if both.sum() < 2:
            continue
        rounded = np.round(left[both], 12)
        first, true = rounded == rounded.max(), right[both]
        values[m] = true.max() - true[first].mean()
        top += int(first.sum() == 1 and true[first][0] == true.max())
    return values, top


def order(predicted: np.ndarray, gain: np.ndarray) -> Order:
    """How good the predicted order is."""
    values, top = regrets(predicted, gain)
    known = np.isfinite(values)
    return Order(rank_agreement(predicted, gain), float(values[known].mean()) if known.any() else np.nan, top, int(known.sum()))


def mean_of_others(gain: np.ndarray) -> np.ndarray:
    """For each base model the mean over the others of the relative gain of every training set."""
    return held_out(relative(gain))


# ---------------------------------------------------------------- effects of training sets


def effects(scores: np.ndarray) -> np.ndarray:
    """Scores [base models, sets] minus base model's level, where a set that a base model lacks does not shift the others.

    The level is that of the additive model of base model and set, fitted by least squares (alternating means).
    """
    own = relative(scores)
    known = np.isfinite(own)
    if known.all() or not known.any():
        return own
    for _ in range(200):
        sets = column_means(own)
        sets = sets - np.nanmean(sets)
        shift = np.array([np.mean((row - sets)[there]) if there.any() else 0.0 for row, there in zip(own, known, strict=True)])
        own = own - shift[:, None]
        if np.abs(shift).max() < 1e-10:
            break
    return own


def held_out(effect: np.ndarray, like: list[str] | None = None, unlike: list[str] | None = None) -> np.ndarray:
    """Means over the other base models. ``like``: labels, such as families, of which only base models with the same one count where there
    are any; ``unlike``: labels of which only base models with another one count."""
    if like is None and unlike is None:  # all others: the sum without one's own
        known = np.isfinite(effect)
        filled = np.where(known, effect, 0.0)
        counts = known.sum(axis=0) - known
        return np.divide(filled.sum(axis=0) - filled, counts, out=np.full(effect.shape, np.nan), where=counts > 0)
    made = []
    for m in range(len(effect)):
        others = np.arange(len(effect)) != m
        if unlike is not None:
            others &= (np.array(unlike) != unlike[m]) | (np.array(unlike) == UNKNOWN)
        same = others & (np.array(like) == like[m]) if like is not None and like[m] != UNKNOWN else np.zeros(len(effect), bool)
        made.append(column_means(effect[same if same.any() else others]))
    return np.stack(made) if made else np.zeros(effect.shape)


def residuals(predicted: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Errors of effects relative to the mean over the sets that the base model has."""
    known = np.isfinite(predicted) & np.isfinite(effect)
    return relative(np.where(known, predicted, np.nan)) - relative(np.where(known, effect, np.nan))


def errors(predicted: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """Root mean square error per base model."""
    return np.sqrt(column_means(residuals(predicted, effect).T ** 2))


def half_widths(error: np.ndarray) -> np.ndarray:
    """Half the width of a set's 95 % prediction interval for a base model without scores, from held-out errors [base models, sets].

    t-based with one degree of freedom fewer than errors; NaN below three.
    """
    from scipy.special import stdtrit

    n = np.isfinite(error).sum(axis=0)
    return np.where(n >= FEWEST_MODELS, stdtrit(np.maximum(n - 1, 1), 0.975) * np.sqrt(column_means(error**2)), np.nan)


@dataclass(frozen=True)
class Alternative:
    """A way to predict, held out: per base model Spearman's ``rank`` correlation, ``regret`` and ``error`` (RMSE); for how many it finds
    the best set (``top``). ``better``: the baseline's error minus its own where the two differ, and its ``q`` over the alternatives."""

    name: str
    rank: np.ndarray
    regret: np.ndarray
    error: np.ndarray
    top: int
    better: Estimate | None = None
    q: float = np.nan

    @property
    def is_better(self) -> bool:
        """Whether it is shown to be better than the baseline."""
        return self.better is not None and self.better.effect > 0 and bool(self.q < SIGNIFICANT)


def judged(name: str, predicted: np.ndarray, effect: np.ndarray, **more) -> Alternative:
    """The quality of held-out predictions."""
    regret, top = regrets(predicted, effect)
    return Alternative(name, rank_correlations(predicted, effect), regret, errors(predicted, effect), top, **more)


def alternatives(effect: np.ndarray, traits: dict[str, list[str]], seed: int) -> list[Alternative]:
    """The mean over base models that share a trait, such as family, against the mean over all others."""
    baseline, found, tests = errors(held_out(effect), effect), [], []
    for name, labels in traits.items():
        predicted = held_out(effect, like=labels)
        difference = baseline - errors(predicted, effect)
        differ = np.abs(difference) > 1e-12  # a base model without a relative has the baseline's prediction
        tests.append(paired_difference(difference[differ], np.flatnonzero(differ), seed, unit="base models", resamples=RESAMPLES))
        found.append((f"mean of the same {name}", predicted))
    q = decidable_q(np.array([test.p for test in tests]), np.array([test.n for test in tests]))
    return [
        judged(name, predicted, effect, better=test, q=float(value)) for (name, predicted), test, value in zip(found, tests, q, strict=True)
    ]


def chosen_trait(effect: np.ndarray, traits: dict[str, list[str]], seed: int) -> str | None:
    """The trait whose mean is shown to be better than that over all base models, if any."""
    found = dict(zip(traits, alternatives(effect, traits, seed), strict=True))
    better = {name: one.better.effect for name, one in found.items() if one.is_better}
    return max(better, key=better.get) if better else None


@dataclass(frozen=True)
class Quality:
    """How good a ranking is with a base model held out: of the adviser, whose choice of a trait is made anew without that base model, of the
    baseline, of a set at random, and of others. ``p``: rank correlation by shuffling; ``regret``: that of a set at random minus the
    adviser's; ``covered`` of ``intervals`` prediction intervals hold the truth."""

    adviser: Alternative
    baseline: Alternative
    chance: Alternative
    others: list[Alternative]
    trait: str | None
    p: float
    regret: Estimate
    covered: int
    intervals: int
    models: int
    sets: int
    predicted: np.ndarray = field(repr=False, default=None)

    @property
    def enough(self) -> bool:
        """Whether there are base models and sets enough to judge a ranking."""
        return self.models >= FEWEST_MODELS and self.sets >= FEWEST_SETS

    @property
    def useful(self) -> bool:
        """Whether the order is significantly better than chance, and error and regret are below those of a set at random."""
        if not self.enough:
            return False
        better = np.nanmean(self.adviser.rank) > 0 and np.nanmean(self.adviser.error) < np.nanmean(self.chance.error)
        return bool(self.p < SIGNIFICANT and better and self.regret.effect > 0)


def quality(effect: np.ndarray, traits: dict[str, list[str]], seed: int, shuffles: int = SHUFFLES) -> Quality:
    """Leave each base model out in turn. Chance: effects shuffled over the training sets, separately in each base model."""
    models, sets = effect.shape
    nothing = Alternative("", *[np.full(models, np.nan)] * 3, 0)
    if models < FEWEST_MODELS or sets < FEWEST_SETS:
        return Quality(nothing, nothing, nothing, [], None, np.nan, paired_difference([], [], seed), 0, 0, models, sets)
    predicted, half = [], []
    for m in range(models):  # as if this base model had never been seen, also by the choice of a trait and by the intervals
        rest = np.delete(effect, m, axis=0)
        labels = {name: [*np.delete(own, m)] for name, own in traits.items()}
        trait = chosen_trait(rest, labels, seed)
        predicted.append(held_out(effect, traits[trait] if trait else None)[m])
        half.append(half_widths(residuals(held_out(rest, labels[trait] if trait else None), rest)))
    predicted, half = np.stack(predicted), np.stack(half)
    error = residuals(predicted, effect)
    known = np.isfinite(error) & np.isfinite(half)
    rng, null = np.random.default_rng(seed), []
    for _ in range(shuffles):
        shuffled = rng.permuted(effect, axis=1)
        null.append(rank_agreement(held_out(shuffled), shuffled))
    adviser, chance = (
        judged("the adviser", predicted, effect),
        judged("a set at random", np.where(np.isfinite(effect), 0.0, np.nan), effect),
    )
    others = alternatives(effect, traits, seed)
    if "family" in traits:
        others.append(judged("mean of the base models of other families", held_out(effect, unlike=traits["family"]), effect))
    gained = paired_difference(chance.regret - adviser.regret, np.arange(models), seed, unit="base models", resamples=RESAMPLES)
    p = shuffle_p(np.array(null), float(np.nanmean(adviser.rank)), exact=False)
    return Quality(
        adviser, judged(BASELINE, held_out(effect), effect), chance, others, chosen_trait(effect, traits, seed), p, gained,
        int((np.abs(error) <= half)[known].sum()), int(known.sum()), models, sets, predicted,
    )  # fmt: skip


@dataclass(frozen=True)
class Ranked:
    """A training set: its effect (mean over ``n`` units), the 95 % interval and q of that mean, and where it is a prediction, the 95 %
    prediction interval ``below`` to ``above`` of the effect in a base model without scores. ``behind``: first place minus it, with q."""

    dataset: str
    effect: float
    low: float
    high: float
    p: float
    q: float
    n: int
    below: float
    above: float
    behind: Estimate
    behind_q: float


def ranked(values: np.ndarray, sets: list[str], half: np.ndarray, unit: str, seed: int) -> list[Ranked]:
    """Training sets by their mean effect over units [units, sets], best first. q is over the sets."""

    def mean(column: np.ndarray) -> Estimate:
        return paired_difference(column, np.arange(len(column)), seed, unit=unit, resamples=RESAMPLES)

    def corrected(tests: list[Estimate]) -> list[float]:
        return decidable_q(np.array([test.p for test in tests]), np.array([test.n for test in tests])).tolist()

    means = [mean(values[:, s]) for s in range(len(sets))]
    first = int(np.nanargmax([one.effect for one in means]))
    behind = [mean(values[:, first] - values[:, s]) for s in range(len(sets))]
    q, apart = corrected(means), np.full(len(sets), np.nan)
    rest = [s for s in range(len(sets)) if s != first]
    apart[rest] = corrected([behind[s] for s in rest])
    rows = [
        Ranked(
            name, one.effect, one.low, one.high, one.p, q[s], one.n, one.effect - half[s], one.effect + half[s], behind[s], float(apart[s])
        )
        for s, (name, one) in enumerate(zip(sets, means, strict=True))
        if one.n
    ]
    return sorted(rows, key=lambda one: -one.effect)
