"""Rank training sets for a base model: from the published scores, from a study of one's own, or from both, by source; or refuse.

From a study the predictor is a ridge regression on properties of base model and training set and, for training sets whose gains are known,
on the training set itself. Everything is relative to the base model's mean over training sets. Its error is that of predictions for base
models held out and, where a candidate is a training set without known gains, for base models and training sets held out together. Where
properties are not shown to be better than the mean over the other base models, that mean is the ranking. The published scores have no
properties (:mod:`sft_atlas.analyse.published_advice`).
"""

import argparse
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import published_advice, select
from sft_atlas.analyse.analyse_predictors import known_before
from sft_atlas.analyse.ranking import (
    FEWEST_MODELS,
    FEWEST_SETS,
    SHUFFLES,
    Order,
    errors,
    mean_of_others,
    order,
    rank_agreement,
    relative,
)
from sft_atlas.core.files import read_json, read_table, write_table, write_text
from sft_atlas.core.markdown import bullets, table
from sft_atlas.stats.estimates import Estimate, paired_difference
from sft_atlas.stats.two_way import shuffle_p
from sft_atlas.stats.wording import SIGNIFICANT, describe, p_value
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
from sft_atlas.tables import origins, seeds
from sft_atlas.tables.perplexity import perplexity_summary

PRIOR = 3.0  # ridge penalty of a property, in training sets


@dataclass(frozen=True)
class Training:
    """``gain``: base models x training sets (fractions, NaN where missing); ``features``: the same x properties; names of all three."""

    gain: np.ndarray
    features: np.ndarray
    models: list[str]
    sets: list[str]
    properties: list[str]
    source: str

    def without_properties(self) -> "Training":
        """The same, so that only the training sets themselves predict: by the mean over base models."""
        return replace(self, features=self.features[:, :, :0], properties=[])


@dataclass(frozen=True)
class Skill:
    """Held-out error of the adviser. ``rmse`` of relative gains and ``rmse_gain`` of gains (fractions); ``spread``: RMSE of predicting the
    same gain for every set; ``own``: how good its order is, ``p`` of the rank correlation; ``baseline``: how good the order of the mean
    over the other base models is, which knows no properties (None where sets are held out, which then have no such mean); ``better``: the
    baseline's error minus its own (RMSE, fractions), by base model."""

    rmse: float
    rmse_gain: float
    spread: float
    own: Order
    p: float
    models: int
    sets: int
    held_out: str
    baseline: Order | None = None
    better: Estimate | None = None

    @property
    def useful(self) -> bool:
        """Whether the ranking is significantly better than chance and the error below ``spread``."""
        return bool(self.p < SIGNIFICANT and self.own.rank > 0 and self.rmse < self.spread)

    @property
    def beats_baseline(self) -> bool:
        """Whether its error is shown to be below that of the mean over the other base models, with no larger regret."""
        shown = self.better is not None and self.better.effect > 0 and self.better.decidable and self.better.p < SIGNIFICANT
        return bool(shown and self.own.regret <= self.baseline.regret)


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
    own, baseline, better = order(predicted, gain), None, None
    if not new_sets:
        mean = mean_of_others(gain)
        difference = errors(mean, gain) - errors(predicted, gain)
        baseline, better = order(mean, gain), paired_difference(difference, training.models, seed, unit="base models")
    rng, null = np.random.default_rng(seed), []
    for _ in range(shuffles):
        orders = np.tile(rng.permutation(sets), (models, 1)) if new_sets else rng.permuted(np.tile(np.arange(sets), (models, 1)), axis=1)
        shuffled = np.take_along_axis(gain, orders, axis=1)
        null.append(rank_agreement(held_out_predictions(features, shuffled, new_sets), shuffled))
    error = (predicted - y)[both]
    absolute = (predicted + guess[:, None] - gain)[both]
    rmse, spread = float(np.sqrt((error**2).mean())), float(np.sqrt((y[both] ** 2).mean()))
    rmse_gain, p = float(np.sqrt((absolute**2).mean())), shuffle_p(np.array(null), own.rank, exact=False)
    return Skill(rmse, rmse_gain, spread, own, p, models, sets, held_out, baseline, better)


@dataclass(frozen=True)
class Advice:
    """Per candidate, best first: gain and its 95 % prediction interval, and the same of the gain relative to the candidates' mean
    (fractions)."""

    dataset: str
    gain: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    known: bool


def advise(training: Training, candidates: list[str], features: np.ndarray, seed: int) -> tuple[list[Advice], Skill, Skill | None]:
    """Predicted gains of the candidates for a new base model; ``features``: candidates x properties, NaN where unknown.

    The list is empty where the adviser's error is no better than chance. The second skill is that of properties which were refused because
    they are not shown to be better than the mean over the other base models; list and first skill are then those of that mean. The interval is t-based, with one degree of freedom fewer than
    base models, on the held-out error of gains.
    """
    from scipy.special import stdtrit

    known = [name in training.sets for name in candidates]
    measured, refused = skill(training, not all(known), seed), None
    if training.properties and measured.baseline is not None and not measured.beats_baseline:
        training, features = training.without_properties(), features[:, :0]
        measured, refused = skill(training, False, seed), measured
    if not measured.useful:
        return [], measured, refused
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
    made = [
        Advice(name, level + value, level + value - half, level + value + half, value, value - apart, value + apart, is_known)
        for name, value, is_known in zip(candidates, values.tolist(), known, strict=True)
    ]
    return sorted(made, key=lambda one: -one.relative), measured, refused


FEATURES = (
    "perplexity_response", "tokens_response", "words", "lexical_diversity", "near_duplicates", "lexical_centroid", "semantic_centroid",
)  # fmt: skip


def by_source(tables: dict[str, pl.DataFrame], study: dict) -> list[tuple[str, dict, dict[str, pl.DataFrame]]]:
    """Sources of gains in a study, each with its name, the study as it is for this source, and its tables: what the study scored itself, and what
    was imported. They are never mixed, so that no imported score counts as a training of the study. One without gains is left out, but not
    the last one.
    """
    name, gains = study["study"], tables["gains"]
    own, theirs = (gains.filter(part) for part in (pl.col("source") == origins.OURS, pl.col("source") != origins.OURS))
    found = [(f"the study {name}", study, own)] if own.height or not theirs.height else []
    if theirs.height:
        widened, kept = origins.analysed(study, {"gains": theirs})
        found.append((f"scores imported into the study {name}", widened, kept["gains"]))
    return [(source, known, tables | {"gains": seeds.averaged("gains", part)}) for source, known, part in found]


def from_study(tables: dict[str, pl.DataFrame], study: dict, model: str, candidates: list[str], source: str) -> tuple[Training, np.ndarray]:
    """Training data without the base model in question, and the candidates' properties under it [candidates, properties].

    ``tables``: gains of one source (:func:`by_source`), and perplexity, properties and similarity of the study together with those of the candidates.
    Properties that one side lacks are left out.
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
    return Training(gain, learned[:, :, use], models, sets, names, source), own[:, use]


def section(candidates: list[str], training: Training, advice: list[Advice], skill: Skill, refused: Skill | None = None) -> list[str]:
    """What a study says, as lines of Markdown: the ranked table, or why there is none, and what it rests on."""
    lines, notes = [f"## From {training.source}", ""], []
    if advice:
        rows = []
        for rank, one in enumerate(advice, 1):
            gain, low, high = (f"{100 * value:+.1f}" for value in (one.gain, one.low, one.high))
            apart, below, above = (f"{100 * value:+.1f}" for value in (one.relative, one.relative_low, one.relative_high))
            rows.append((rank, one.dataset, gain, f"{low} to {high}", apart, f"{below} to {above}", skill.models))
        head = [
            "rank",
            "training set",
            "predicted gain",
            "95 % interval",
            "relative to the candidates' mean",
            "95 % interval",
            "n base models",
        ]
        lines += [*table(head, rows), ""]
        notes.append("Means over benchmarks, percentage points. An interval is a prediction interval for this base model, not for a mean.")
    elif np.isnan(skill.p):
        needed = f"{FEWEST_MODELS} base models and {FEWEST_SETS} training sets"
        notes.append(f"No ranking: this needs gains of at least {needed}; there are {skill.models} and {skill.sets}.")
    else:
        notes.append(
            f"No ranking: with {skill.held_out} held out, the adviser is no better than chance. Candidates: {', '.join(candidates)}."
        )
    if not np.isnan(skill.p):
        notes.append(
            f"Error with {skill.held_out} held out (RMSE): {100 * skill.rmse:.1f} points for gains relative to the base model's mean "
            f"({100 * skill.spread:.1f} if every set is predicted the same gain), {100 * skill.rmse_gain:.1f} points for gains."
        )
        notes.append(f"The order: {order_in_words(skill.own)}. By shuffling, {p_value(skill.p)}; a ranking needs p < {SIGNIFICANT}.")
        notes.append(baseline_in_words(skill, refused))
    unseen = [name for name in candidates if name not in training.sets]
    used = [] if refused is not None else training.properties
    basis = f"Learned from {skill.models} base models x {skill.sets} training sets of {training.source}"
    basis += f", with {', '.join(name.replace('_', ' ') for name in used)}" if used else ""
    notes.append(basis + ("" if unseen else ", including the gains of these candidates") + ".")
    if unseen:
        notes.append(f"Without known gains: {', '.join(unseen)}. All candidates are therefore ranked by their properties alone.")
    return [*lines, *bullets(notes)]


def order_in_words(one: Order) -> str:
    """The quality of an order."""
    return (
        f"rank correlation within base models {one.rank:.3f}; the set in first place gains {100 * one.regret:.2f} points less than the best one "
        f"on average (regret), and is the best one for {one.top} of {one.models} base models"
    )


def baseline_in_words(skill: Skill, refused: Skill | None) -> str:
    """What the mean over the other base models achieves, and whether properties are better than that."""
    judged = refused or skill
    if judged.baseline is None:
        return "There is no baseline: a training set without known gains has no mean over other base models."
    text = f"Baseline, the mean over the other base models: {order_in_words(judged.baseline)}."
    if refused is not None:
        return (
            f"{text} Properties of training sets: refused, they are not shown to be better than this baseline (its error minus theirs "
            f"{difference_in_words(refused)}; regret {100 * refused.own.regret:.2f} points), so the mean is what ranks."
        )
    if skill.beats_baseline:
        return f"{text} The adviser is better: the baseline's error minus its own is {difference_in_words(skill)}."
    return f"{text} Without properties of training sets the adviser is this mean, but for the weight of sets that a base model lacks."


def difference_in_words(skill: Skill) -> str:
    """The baseline's error minus the adviser's."""
    return describe(skill.better, np.nan, scale=100, unit=" points", digits=2).replace(", q = nan", "")


def page(model: str, sections: list[list[str]]) -> str:
    """The advice as Markdown, one section for each source."""
    lines = [f"# Training sets for {model}", ""]
    if len(sections) > 1:
        apart = "The sources are ranked apart: their templates, numbers of shots and metrics differ, so no number of one enters the other."
        lines += [apart, ""]
    for part in sections:
        lines += [*part, ""]
    return "\n".join(lines)


ROW = {
    **columns("source basis model", TEXT),
    "rank": WHOLE,
    "dataset": TEXT,
    "n": WHOLE,
    "unit": TEXT,
    **columns("gain low high relative relative_low relative_high mean_low mean_high p q", REAL),
    "known": pl.Boolean,
}


def main(args: argparse.Namespace) -> None:
    study = read_json(args.study)
    sections, rows = [], []
    if args.published:
        traits = {name: value for name in ("family", "language") if (value := getattr(args, name))}
        name = args.published_model or args.model
        made = published_advice.advise(read_table(args.published), name, args.published_dataset, traits, study["seed"])
        facts = read_json(args.published_source)
        origin = f"{'the authors’ CSV' if facts['authors_file'] else facts['source']} (sha256 {facts['sha256'][:12]})"
        sections.append(published_advice.section(made, args.model, origin, traits))
        rows += published_advice.rows(made, args.model)
    if args.learn_from:
        for source, known, tables in by_source(gathered(args), study):
            training, features = from_study(tables, known, args.model, args.dataset, source)
            advice, skill, refused = advise(training, args.dataset, features, study["seed"])
            sections.append(section(args.dataset, training, advice, skill, refused))
            basis = "gains under other base models" if refused is not None or not training.properties else "properties and gains"
            basis = basis if all(name in training.sets for name in args.dataset) else "properties of training sets"
            facts = {"source": training.source, "basis": basis, "model": args.model, "n": skill.models, "unit": "base models"}
            rows += [{**facts, "rank": rank, **vars(one)} for rank, one in enumerate(advice, 1)]
        if not args.published:
            sections[-1] += bullets([f"The published scores say nothing here: {args.unpublished}."])
    table = pl.DataFrame([{name: row.get(name) for name in ROW} for row in rows], ROW)
    write_table(args.output_table, table.fill_nan(None))
    write_text(args.output_page, page(args.model, sections))


def gathered(args: argparse.Namespace) -> dict:
    """The study's tables, gains of each seed, with perplexity and properties of the candidates in place of its own, and similarity measured for
    both."""
    tables = {name: read_table(args.learn_from / f"{name}.parquet") for name in ("gains", "perplexity", "properties")}
    tables["similarity"] = read_table(args.similarity)
    perplexity, properties = ([read_table(path) for path in paths] for paths in (args.perplexity, args.properties))
    measured = (("perplexity", perplexity, ["model", "dataset", "scope"]), ("properties", properties, ["dataset"]))
    for name, frames, keys in (entry for entry in measured if entry[1]):
        more = perplexity_summary(pl.concat(frames)) if name == "perplexity" else pl.concat(frames)
        both = pl.concat([more.select(tables[name].columns), tables[name]], how="vertical_relaxed")
        tables[name] = both.unique(keys, keep="first", maintain_order=True)
    return tables


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    p.add_argument("--model", required=True, help="name of the base model")
    p.add_argument("--dataset", action="append", default=[], help="name of a candidate that the study can measure, repeatable")
    p.add_argument("--learn-from", type=Path, help="folder of the study's tables; without it, the study is not asked")
    p.add_argument("--published", type=Path, help="published scores of single training sets; without it, they are not asked")
    p.add_argument("--published-source", type=Path, help="JSON that says where they came from")
    p.add_argument("--published-model", help="the base model's name among them")
    p.add_argument("--published-dataset", action="append", default=[], help="name of a candidate among them, repeatable; default: all")
    p.add_argument("--unpublished", default="", help="why they are not asked")
    p.add_argument("--family", help="the base model's family")
    p.add_argument("--language", help="the base model's pre-training language")
    p.add_argument("--learned-at", help="time stamp of that; not read, but a change of it renews the advice")
    p.add_argument("--perplexity", type=Path, action="append", default=[], help="perplexity of a candidate under the model, repeatable")
    p.add_argument("--properties", type=Path, action="append", default=[], help="properties of a candidate, repeatable")
    p.add_argument("--similarity", type=Path, help="similarity of the study's training sets and the candidates to its benchmarks")
    p.add_argument("--output-page", type=Path, required=True, help="Markdown")
    p.add_argument("--output-table", type=Path, required=True, help="Parquet, one row per candidate; none without a ranking")
