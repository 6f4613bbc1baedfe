"""Rank training sets for a new base model by gains predicted from what is known before training, or refuse where that fails.

The predictor is a ridge regression on properties of base model and training set and, for training sets whose gains are known, on the
training set itself. Everything is relative to the base model's mean over training sets. Its error is that of predictions for base models
held out and, where a candidate is a training set without known gains, for base models and training sets held out together.
"""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_predictors import known_before
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_table, write_text
from sft_atlas.core.markdown import bullets, table
from sft_atlas.stats.cross_validation import centre
from sft_atlas.stats.two_way import shuffle_p
from sft_atlas.stats.wording import SIGNIFICANT, p_value
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
from sft_atlas.tables.perplexity import perplexity_summary

PRIOR = 3.0  # ridge penalty of a property, in training sets
FEWEST_MODELS, FEWEST_SETS = 3, 4
SHUFFLES = 199


@dataclass(frozen=True)
class Training:
    """``gain``: base models x training sets (fractions, NaN where missing); ``features``: the same x properties; names of all three.

    ``base_free``: ``gain`` is the score itself, so that only its differences between training sets mean anything.
    """

    gain: np.ndarray
    features: np.ndarray
    models: list[str]
    sets: list[str]
    properties: list[str]
    source: str
    base_free: bool = False


@dataclass(frozen=True)
class Skill:
    """Held-out error of the adviser. ``rmse`` of relative gains and ``rmse_gain`` of gains (fractions); ``spread``: RMSE of predicting the
    same gain for every set; ``own``: how good its order is, ``p`` of the rank correlation; ``baseline``: how good the order of the mean
    over the other base models is, which knows no properties (None where sets are held out, which then have no such mean)."""

    rmse: float
    rmse_gain: float
    spread: float
    own: "Order"
    p: float
    models: int
    sets: int
    held_out: str
    baseline: "Order | None" = None

    @property
    def useful(self) -> bool:
        """Whether the ranking is significantly better than chance and the error below ``spread``."""
        return bool(self.p < SIGNIFICANT and self.own.rank > 0 and self.rmse < self.spread)


@dataclass(frozen=True)
class Order:
    """How good a predicted order of training sets is: mean over base models of Spearman's ``rank`` correlation with the true one;
    ``regret``: what the set in first place gains less than the best (fraction, mean over base models); ``top``: for how many of the
    ``models`` it is the best."""

    rank: float = np.nan
    regret: float = np.nan
    top: int = 0
    models: int = 0


def relative(values: np.ndarray) -> np.ndarray:
    """Values minus the mean over training sets (axis 1), NaN kept."""
    return centre(values, 1)


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
    solution = np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ y)
    return solution[: x.shape[1]], solution[x.shape[1] :] if with_sets else np.zeros(count)


def standardised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Properties relative to each base model's mean, in units of their spread; missing ones are average. And that spread."""
    centred = relative(features)
    scale = np.sqrt(np.nanmean(centred**2, axis=(0, 1))) if centred.size else np.zeros(features.shape[-1])
    scale = np.where(np.isfinite(scale) & (scale > 1e-9), scale, np.inf)
    return np.where(np.isfinite(centred), centred, 0.0) / scale, scale


def held_out_predictions(features: np.ndarray, gain: np.ndarray, new_sets: bool) -> np.ndarray:
    """Relative gains predicted for each base model from the others; with ``new_sets`` also without the training set in question."""
    known, predicted = np.isfinite(gain), np.full(gain.shape, np.nan)
    x, _ = standardised(features)
    models, sets = gain.shape
    index = np.broadcast_to(np.arange(sets), gain.shape)
    hold_outs = np.eye(sets, dtype=bool) if new_sets else np.zeros((1, sets), bool)
    for m, hidden in product(range(models), hold_outs):
        use = known & ~hidden & (np.arange(models) != m)[:, None]
        if use.any():
            target = relative(np.where(hidden, np.nan, gain))  # to the mean of the sets that are seen
            slope, effect = fit(x[use], target[use], index[use], sets, with_sets=not new_sets)
            predicted[m] = np.where(hidden | (not new_sets), x[m] @ slope + effect, predicted[m])
    return relative(np.where(known, predicted, np.nan))


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


def order(predicted: np.ndarray, gain: np.ndarray) -> Order:
    """How good the predicted order is; a prediction that does not vary within a base model picks its sets at random."""
    regrets, top = [], 0
    for left, right in zip(predicted, gain, strict=True):
        both = np.isfinite(left) & np.isfinite(right)
        if both.sum() < 2:
            continue
        values = np.round(left[both], 12)
        first, true = values == values.max(), right[both]
        regrets.append(true.max() - true[first].mean())
        top += int(first.sum() == 1 and true[first][0] == true.max())
    return Order(rank_agreement(predicted, gain), float(np.mean(regrets)) if regrets else np.nan, top, len(regrets))


def mean_of_others(gain: np.ndarray) -> np.ndarray:
    """For each base model the mean over the others of the relative gain of every training set."""
    y = relative(gain)
    return np.stack([_column_means(np.delete(y, m, axis=0)) for m in range(len(y))])


def _column_means(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    return np.divide(np.where(known, values, 0.0).sum(axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def skill(training: Training, new_sets: bool, seed: int, shuffles: int = SHUFFLES) -> Skill:
    """Held-out error, and whether the ranking is better than chance.

    Chance: gains shuffled over training sets, everything refitted. Where training sets are known the shuffle is separate in each
    base model (does anything carry over from one base model to another?); for new ones it is the same in all base models (do the
    properties distinguish sets?).
    """
    gain, features = training.gain, training.features
    models, sets = gain.shape
    held_out = "a base model and a training set" if new_sets else "a base model"
    if models < FEWEST_MODELS or sets < FEWEST_SETS:
        return Skill(np.nan, np.nan, np.nan, Order(), np.nan, models, sets, held_out)
    y = relative(gain)
    predicted = held_out_predictions(features, gain, new_sets)
    both = np.isfinite(predicted) & np.isfinite(y)
    level = np.nanmean(gain, axis=1)
    guess = (level.sum() - level) / (models - 1)  # of each base model's level, from the others
    own, baseline = order(predicted, gain), None if new_sets else order(mean_of_others(gain), gain)
    rng, null = np.random.default_rng(seed), []
    for _ in range(shuffles):
        orders = np.tile(rng.permutation(sets), (models, 1)) if new_sets else rng.permuted(np.tile(np.arange(sets), (models, 1)), axis=1)
        shuffled = np.take_along_axis(gain, orders, axis=1)
        null.append(rank_agreement(held_out_predictions(features, shuffled, new_sets), shuffled))
    error = (predicted - y)[both]
    absolute = (predicted + guess[:, None] - gain)[both]
    rmse, spread = float(np.sqrt((error**2).mean())), float(np.sqrt((y[both] ** 2).mean()))
    rmse_gain = np.nan if training.base_free else float(np.sqrt((absolute**2).mean()))
    return Skill(rmse, rmse_gain, spread, own, shuffle_p(np.array(null), own.rank, exact=False), models, sets, held_out, baseline)


@dataclass(frozen=True)
class Advice:
    """Per candidate, best first: gain and its 95 % prediction interval (NaN where only differences are known), and the same of the gain
    relative to the candidates' mean (fractions)."""

    dataset: str
    gain: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    known: bool


def advise(training: Training, candidates: list[str], features: np.ndarray, seed: int) -> tuple[list[Advice], Skill]:
    """Predicted gains of the candidates for a new base model; ``features``: candidates x properties, NaN where unknown.

    The list is empty where the adviser's error is no better than chance. The interval is t-based, with one degree of freedom fewer than
    base models, on the held-out error of gains.
    """
    from scipy.special import stdtrit

    known = [name in training.sets for name in candidates]
    measured = skill(training, not all(known), seed)
    if not measured.useful:
        return [], measured
    x, scale = standardised(training.features)
    seen = np.isfinite(training.gain)
    index = np.broadcast_to(np.arange(len(training.sets)), training.gain.shape)
    slope, effect = fit(x[seen], relative(training.gain)[seen], index[seen], len(training.sets), with_sets=all(known))
    own = relative(features[None])[0]
    own = np.where(np.isfinite(own), own, 0.0) / scale
    values = own @ slope + np.array([effect[training.sets.index(name)] if name in training.sets else 0.0 for name in candidates])
    values = values - values.mean()
    factor = float(stdtrit(measured.models - 1, 0.975))
    half, apart = factor * measured.rmse_gain, factor * measured.rmse
    level = float(np.nanmean(training.gain[:, [training.sets.index(n) for n in candidates]]) if all(known) else np.nanmean(training.gain))
    level = np.nan if training.base_free else level
    made = [
        Advice(name, level + value, level + value - half, level + value + half, value, value - apart, value + apart, is_known)
        for name, value, is_known in zip(candidates, values.tolist(), known, strict=True)
    ]
    return sorted(made, key=lambda one: -one.relative), measured


FEATURES = (
    "perplexity_response", "tokens_response", "words", "lexical_diversity", "near_duplicates", "lexical_centroid", "semantic_centroid",
)  # fmt: skip


def from_study(tables: dict[str, pl.DataFrame], study: dict, model: str, candidates: list[str]) -> tuple[Training, np.ndarray]:
    """Training data without the base model in question, and the candidates' properties under it [candidates, properties].

    ``tables``: gains, and perplexity, properties and similarity of the study together with those of the candidates. Properties that
    neither side has are left out.
    """
    means = select.mean_gains(select.of_leading_method(select.single(tables["gains"], study)))
    models = [name for name in study["models"] if name in set(means["model"]) and name != model]
    sets = [name for name in select.kinds(study, "single") if name in set(means["dataset"])]
    known = known_before(tables).group_by("model", "dataset", "predictor").agg(pl.col("value").mean())

    def features(names: list[str], columns: list[str]) -> np.ndarray:
        layers = []
        for feature in FEATURES:
            part = known.filter(pl.col("predictor") == feature)
            axes = {"dataset": columns} if part["model"].null_count() else {"model": names, "dataset": columns}
            layers.append(np.broadcast_to(select.array(part, "value", axes), (len(names), len(columns))))
        return np.stack(layers, axis=-1)

    learned, own = features(models, sets), features([model], candidates)[0]
    use = np.isfinite(learned).any(axis=(0, 1)) & np.isfinite(own).all(axis=0)
    gain = select.array(means, "gain", {"model": models, "dataset": sets})
    names = [name for name, kept in zip(FEATURES, use, strict=True) if kept]
    return Training(gain, learned[:, :, use], models, sets, names, f"the study {study['study']}"), own[:, use]


PUBLISHED = "the published scores"


def from_published(cells: pl.DataFrame, model: str, candidates: list[str]) -> tuple[Training, np.ndarray]:
    """Published scores after the audit's repairs, relative to each base model's mean over training sets; they need no base model's score.

    ``cells``: the table ``gains`` of the published scores, one row per model, training set, method and benchmark with its number of shots;
    ``score`` in points of each scale's range. Sets are compared on the tests that all sets of a base model have; a benchmark counts once,
    whatever the number of its variants. Published scores come without properties of the training sets, so only the sets themselves are
    predictors.
    """
    part = select.of_leading_method(cells).drop_nulls("score").filter(pl.col("model") != model)
    common = pl.col("dataset").n_unique().over("model", "benchmark") == pl.col("dataset").n_unique().over("model")
    name = pl.col("benchmark").str.replace(r"-\d+$", "").alias("name")
    means = part.filter(common).group_by("model", "dataset", name).agg(pl.col("score").mean() / 100)
    whole = means.group_by("model", "dataset").agg(pl.col("score").mean())
    models, sets = whole["model"].unique().sort().to_list(), whole["dataset"].unique().sort().to_list()
    score = select.array(whole, "score", {"model": models, "dataset": sets})
    unknown = [name for name in candidates if name not in sets]
    if unknown:
        raise AtlasError(
            f"there is no published gain of {', '.join(unknown)}; the published training sets are {', '.join(sets) or 'none'}. "
            "Run the study, so that the adviser can learn from the properties of training sets"
        )
    training = Training(score, np.zeros((*score.shape, 0)), models, sets, [], PUBLISHED, base_free=True)
    return training, np.zeros((len(candidates), 0))


def page(model: str, candidates: list[str], training: Training, advice: list[Advice], skill: Skill) -> str:
    """The advice as Markdown: the ranked table, or why there is none, and what it rests on."""
    lines, notes = [f"# Training sets for {model}", ""], []
    if advice:
        rows = []
        for rank, one in enumerate(advice, 1):
            gain, low, high = (f"{100 * value:+.1f}" for value in (one.gain, one.low, one.high))
            relative, below, above = (f"{100 * value:+.1f}" for value in (one.relative, one.relative_low, one.relative_high))
            rows.append((rank, one.dataset, *(() if training.base_free else (gain, f"{low} to {high}")), relative, f"{below} to {above}"))
        head = ["rank", "training set", *([] if training.base_free else ["predicted gain", "95 % interval"])]
        lines += [*table([*head, "relative to the candidates' mean", "95 % interval"], rows), ""]
        notes.append("Means over benchmarks, percentage points. An interval is a prediction interval for this base model, not for a mean.")
    elif np.isnan(skill.p):
        needed = f"{FEWEST_MODELS} base models and {FEWEST_SETS} training sets"
        notes.append(f"No ranking: this needs gains of at least {needed}; there are {skill.models} and {skill.sets}.")
    else:
        notes.append(
            f"No ranking: with {skill.held_out} held out, the adviser is no better than chance. Candidates: {', '.join(candidates)}."
        )
    if not np.isnan(skill.p):
        of_gains = "" if training.base_free else f", {100 * skill.rmse_gain:.1f} points for gains"
        notes.append(
            f"Error with {skill.held_out} held out (RMSE): {100 * skill.rmse:.1f} points for gains relative to the base model's mean "
            f"({100 * skill.spread:.1f} if every set is predicted the same gain){of_gains}."
        )
        notes.append(f"The order: {order_in_words(skill.own)}. By shuffling, {p_value(skill.p)}; a ranking needs p < {SIGNIFICANT}.")
        notes.append(baseline_in_words(skill, training))
    unseen = [name for name in candidates if name not in training.sets]
    properties = ", ".join(name.replace("_", " ") for name in training.properties)
    basis = f"Learned from {skill.models} base models x {skill.sets} training sets of {training.source}"
    basis += (f", with {properties}" if properties else "") + ("" if unseen else ", including the gains of these candidates") + "."
    if training.source == PUBLISHED:
        basis += " These are the scores after the audit's repairs. Gains themselves are not predicted, because the scores of many base models are unusable."
    notes.append(basis)
    if unseen:
        notes.append(f"Without known gains: {', '.join(unseen)}. All candidates are therefore ranked by their properties alone.")
    return "\n".join([*lines, *bullets(notes)]) + "\n"


def order_in_words(one: Order) -> str:
    """The quality of an order."""
    return (
        f"rank correlation within base models {one.rank:.3f}; the set in first place gains {100 * one.regret:.2f} points less than the best one "
        f"on average (regret), and is the best one for {one.top} of {one.models} base models"
    )


def baseline_in_words(skill: Skill, training: Training) -> str:
    """What the mean over the other base models achieves, and whether the adviser is better than that."""
    if skill.baseline is None:
        return "There is no baseline: a training set without known gains has no mean over other base models."
    text = f"Baseline, the mean over the other base models: {order_in_words(skill.baseline)}."
    if not training.properties:
        return f"{text} Without properties of training sets the adviser is this mean, but for the weight of sets that a base model lacks."
    better = skill.own.rank > skill.baseline.rank and skill.own.regret < skill.baseline.regret
    return f"{text} The adviser {'is better' if better else 'is not better by both measures, so a simple mean serves as well'}."


def main(args: argparse.Namespace) -> None:
    study = read_json(args.study)
    if args.learn_from.is_dir():
        training, features = from_study(gathered(args), study, args.model, args.dataset)
    else:
        training, features = from_published(read_table(args.learn_from), args.model, args.dataset)
    advice, skill = advise(training, args.dataset, features, study["seed"])
    rows = [{"model": args.model, "rank": rank, **vars(one)} for rank, one in enumerate(advice, 1)]
    schema = {
        "model": TEXT,
        "rank": WHOLE,
        "dataset": TEXT,
        **columns("gain low high relative relative_low relative_high", REAL),
        "known": pl.Boolean,
    }
    write_table(args.output_table, pl.DataFrame(rows, schema).fill_nan(None))
    write_text(args.output_page, page(args.model, args.dataset, training, advice, skill))


def gathered(args: argparse.Namespace) -> dict:
    """The study's tables, with perplexity and properties of the candidates in place of its own, and similarity measured for both."""
    tables = {name: read_table(args.learn_from / f"{name}.parquet") for name in ("gains", "perplexity", "properties")}
    tables["similarity"] = read_table(args.similarity)
    perplexity, properties = (pl.concat(map(read_table, paths)) for paths in (args.perplexity, args.properties))
    for name, more, keys in (
        ("perplexity", perplexity_summary(perplexity), ["model", "dataset", "scope"]),
        ("properties", properties, ["dataset"]),
    ):
        both = pl.concat([more.select(tables[name].columns), tables[name]], how="vertical_relaxed")
        tables[name] = both.unique(keys, keep="first", maintain_order=True)
    return tables


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    p.add_argument("--model", required=True, help="name of the base model")
    p.add_argument("--dataset", action="append", required=True, help="name of a candidate, repeatable")
    p.add_argument("--learn-from", type=Path, required=True, help="folder of the study's tables, or the table of published gains")
    p.add_argument("--learned-at", help="time stamp of that; not read, but a change of it renews the advice")
    p.add_argument("--perplexity", type=Path, action="append", default=[], help="perplexity of a candidate under the model, repeatable")
    p.add_argument("--properties", type=Path, action="append", default=[], help="properties of a candidate, repeatable")
    p.add_argument("--similarity", type=Path, help="similarity of the study's training sets and the candidates to its benchmarks")
    p.add_argument("--output-page", type=Path, required=True, help="Markdown")
    p.add_argument("--output-table", type=Path, required=True, help="Parquet, one row per candidate; none without a ranking")
