"""Rank training sets for a new base model by gains predicted from what is known before training, or refuse where that fails.

The predictor is a ridge regression on properties of base model and training set and, for training sets whose gains are known, on the
training set itself. Everything is relative to the base model's mean over training sets. Its error is that of predictions for base models
held out and, where a candidate is a training set without known gains, for base models and training sets held out together.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_predictors import known_before
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_table, write_text
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
        """Whether the ranking is significantly better than chance and the error below ``spread``."""
        return bool(self.p < SIGNIFICANT and self.rank > 0 and self.rmse < self.spread)


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
        return Skill(np.nan, np.nan, np.nan, np.nan, np.nan, models, sets, held_out)
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
        rank, shuffle_p(np.array(null), rank, exact=False), models, sets, held_out,
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
    half = float(stdtrit(measured.models - 1, 0.975)) * measured.rmse_gain
    level = float(np.nanmean(training.gain[:, [training.sets.index(n) for n in candidates]]) if all(known) else np.nanmean(training.gain))
    made = [
        Advice(name, level + value, level + value - half, level + value + half, value, is_known)
        for name, value, is_known in zip(candidates, values.tolist(), known, strict=True)
    ]
    return sorted(made, key=lambda one: -one.gain), measured


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


def from_published(scores: pl.DataFrame, model: str, candidates: list[str]) -> tuple[Training, np.ndarray]:
    """Mean gains of the published 1k runs of full fine-tuning at their last epoch, over the benchmarks on a scale of 0 to 1 or 0 to 100.

    Published scores come without properties of the training sets, so only the sets themselves are predictors.
    """
    units = {"fraction": 1.0, "percent": 100.0}
    scale = scores["scale"].cast(pl.String).replace_strict(units, default=None, return_dtype=pl.Float64)
    frame = scores.with_columns((pl.col("score") / scale).alias("score")).drop_nulls("score").filter(pl.col("model") != model)
    test = ["benchmark", "shots"]
    base = frame.filter(pl.col("epoch") == 0).select("model", *test, pl.col("score").alias("base"))
    tuned = frame.filter(pl.col("epoch") > 0, pl.col("method") == "full", pl.col("schedule") == "cosine", pl.col("rows") <= 1000)
    tuned = tuned.filter(pl.col("epoch") == pl.col("epoch").max().over("model", "dataset"))
    joined = tuned.join(base, on=["model", *test], nulls_equal=True).with_columns((pl.col("score") - pl.col("base")).alias("gain"))
    cells = joined.with_columns(pl.len().over("model", "dataset").alias("tests"))
    cells = cells.filter(pl.col("tests") >= pl.col("tests").max() / 2)
    # Sets are compared on the same tests: those that all sets of a base model have.
    common = pl.col("dataset").n_unique().over("model", *test) == pl.col("dataset").n_unique().over("model")
    whole = cells.filter(common).group_by("model", "dataset").agg(pl.col("gain").mean())
    models, sets = whole["model"].unique().sort().to_list(), whole["dataset"].unique().sort().to_list()
    gain = select.array(whole, "gain", {"model": models, "dataset": sets})
    unknown = [name for name in candidates if name not in sets]
    if unknown:
        raise AtlasError(
            f"there is no published gain of {', '.join(unknown)}; the published training sets are {', '.join(sets) or 'none'}. "
            "Run the study, so that the adviser can learn from the properties of training sets"
        )
    return Training(gain, np.zeros((*gain.shape, 0)), models, sets, [], PUBLISHED), np.zeros((len(candidates), 0))


def page(model: str, candidates: list[str], training: Training, advice: list[Advice], skill: Skill) -> str:
    """The advice as Markdown: the ranked table, or why there is none, and what it rests on."""
    lines, notes = [f"# Training sets for {model}", ""], []
    if advice:
        rows = []
        for rank, one in enumerate(advice, 1):
            gain, low, high, difference = (f"{100 * value:+.1f}" for value in (one.gain, one.low, one.high, one.relative))
            rows.append((rank, one.dataset, gain, f"{low} to {high}", difference))
        lines += [*table(["rank", "training set", "predicted gain", "95 % interval", "relative to the candidates' mean"], rows), ""]
        notes.append("Gain: mean over benchmarks, percentage points. The interval is a prediction interval for the gain, not for its mean.")
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
            f"({100 * skill.spread:.1f} if every set is predicted the same gain), {100 * skill.rmse_gain:.1f} points for gains. Rank correlation "
            f"within base models {skill.rank:.2f}, {p_value(skill.p)} by shuffling; a ranking needs p < {SIGNIFICANT}."
        )
    unseen = [name for name in candidates if name not in training.sets]
    properties = ", ".join(name.replace("_", " ") for name in training.properties)
    basis = f"Learned from {skill.models} base models x {skill.sets} training sets of {training.source}"
    basis += (f", with {properties}" if properties else "") + ("" if unseen else ", including the gains of these candidates") + "."
    if training.source == PUBLISHED:
        basis += " The order does not depend on the scores of base models; the gains do, and some published ones are unreliable."
    notes.append(basis)
    if unseen:
        notes.append(f"Without known gains: {', '.join(unseen)}. All candidates are therefore ranked by their properties alone.")
    return "\n".join([*lines, *bullets(notes)]) + "\n"


def main(args: argparse.Namespace) -> None:
    study = json.loads(args.study.read_text(encoding="utf-8"))
    if args.learn_from.is_dir():
        training, features = from_study(gathered(args), study, args.model, args.dataset)
    else:
        training, features = from_published(pl.read_parquet(args.learn_from), args.model, args.dataset)
    advice, skill = advise(training, args.dataset, features, study["seed"])
    rows = [{"model": args.model, "rank": rank, **vars(one)} for rank, one in enumerate(advice, 1)]
    schema = {"model": TEXT, "rank": WHOLE, "dataset": TEXT, **columns("gain low high relative", REAL), "known": pl.Boolean}
    write_table(args.output_table, pl.DataFrame(rows, schema))
    write_text(args.output_page, page(args.model, args.dataset, training, advice, skill))


def gathered(args: argparse.Namespace) -> dict:
    """The study's tables, with perplexity and properties of the candidates in place of its own, and similarity measured for both."""
    tables = {name: pl.read_parquet(args.learn_from / f"{name}.parquet") for name in ("gains", "perplexity", "properties")}
    tables["similarity"] = pl.read_parquet(args.similarity)
    perplexity, properties = (pl.concat(map(pl.read_parquet, paths)) for paths in (args.perplexity, args.properties))
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
    p.add_argument("--learn-from", type=Path, required=True, help="folder of the study's tables, or the table of published scores")
    p.add_argument("--learned-at", help="time stamp of that; not read, but a change of it renews the advice")
    p.add_argument("--perplexity", type=Path, action="append", default=[], help="perplexity of a candidate under the model, repeatable")
    p.add_argument("--properties", type=Path, action="append", default=[], help="properties of a candidate, repeatable")
    p.add_argument("--similarity", type=Path, help="similarity of the study's training sets and the candidates to its benchmarks")
    p.add_argument("--output-page", type=Path, required=True, help="Markdown")
    p.add_argument("--output-table", type=Path, required=True, help="Parquet, one row per candidate; none without a ranking")
