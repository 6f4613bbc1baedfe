"""What the adviser learns from: the gains of a study with its cheap properties, or the published scores; and the page it writes."""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.advising import CHANCE, Advice, Skill, Training
from sft_atlas.analyse.predictors import known_before, matrix
from sft_atlas.core.errors import AtlasError
from sft_atlas.report.findings import bullets

FEATURES = (
    "perplexity_response", "tokens_response", "words", "lexical_diversity", "near_duplicates", "lexical_centroid", "semantic_centroid",
)  # fmt: skip


def from_study(tables: dict[str, pl.DataFrame], study: dict, asked: str, candidates: list[str]) -> tuple[Training, np.ndarray]:
    """Training data without the base model that is asked about, and the candidates' properties under it [candidates, properties].

    ``tables``: gains, and perplexity, properties and similarity of the study together with those of the candidates. Properties that
    neither side has are left out.
    """
    means = select.mean_gains(select.of_leading_method(select.single(tables["gains"], study)))
    models = [name for name in study["models"] if name in set(means["model"]) and name != asked]
    sets = [name for name in select.kinds(study, "single") if name in set(means["dataset"])]
    known = known_before(tables).group_by("model", "dataset", "predictor").agg(pl.col("value").mean())

    def features(names: list[str], columns: list[str]) -> np.ndarray:
        layers = []
        for feature in FEATURES:
            part = known.filter(pl.col("predictor") == feature)
            each = pl.DataFrame({"model": names}, schema={"model": pl.String}).join(part.drop("model"), how="cross")
            part = part if part["model"].null_count() == 0 else each
            layers.append(matrix(part, [(name,) for name in names], columns, ["model"], "value"))
        return np.stack(layers, axis=-1)

    learnt, own = features(models, sets), features([asked], candidates)[0]
    use = np.isfinite(learnt).any(axis=(0, 1)) & np.isfinite(own).all(axis=0)
    gain = matrix(means, [(name,) for name in models], sets, ["model"], "gain")
    names = [name for name, kept in zip(FEATURES, use, strict=True) if kept]
    return Training(gain, learnt[:, :, use], models, sets, names, f"the study {study['study']}"), own[:, use]


PUBLISHED = "the published scores"


def from_published(scores: pl.DataFrame, asked: str, candidates: list[str]) -> tuple[Training, np.ndarray]:
    """Mean gains of the published 1k runs of full tuning at their last epoch, over the benchmarks on a scale of 0 to 1 or 0 to 100.

    Scores know no properties of the training sets, so the adviser has the training sets themselves to go by.
    """
    units = {"fraction": 1.0, "percent": 100.0}
    scale = scores["scale"].cast(pl.String).replace_strict(units, default=None, return_dtype=pl.Float64)
    frame = scores.with_columns((pl.col("score") / scale).alias("score")).drop_nulls("score").filter(pl.col("model") != asked)
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
    gain = matrix(whole, [(name,) for name in models], sets, ["model"], "gain")
    unknown = [name for name in candidates if name not in sets]
    if unknown:
        raise AtlasError(
            f"there is no published gain of {', '.join(unknown)}; the published training sets are {', '.join(sets) or 'none'}. "
            "Run the study, so that the adviser can learn from the properties of training sets"
        )
    return Training(gain, np.zeros((*gain.shape, 0)), models, sets, [], PUBLISHED), np.zeros((len(candidates), 0))


def page(asked: str, candidates: list[str], training: Training, advice: list[Advice], skill: Skill) -> str:
    """The advice as Markdown: the ranked table, or why there is none, and what it rests on."""
    learnt = f"{skill.models} base models x {skill.sets} training sets of {training.source}"
    by = ", ".join(name.replace("_", " ") for name in training.properties)
    unseen = [name for name in candidates if name not in training.sets]
    lines = [f"# Training sets for {asked}", ""]
    if advice:
        lines += ["| rank | training set | predicted gain | 95 % interval | against the others |", "|---|---|---|---|---|"]
        lines += [
            f"| {rank} | {one.dataset} | {100 * one.gain:+.1f} | {100 * one.low:+.1f} to {100 * one.high:+.1f} | {100 * one.relative:+.1f} |"
            for rank, one in enumerate(advice, 1)
        ]
        lines += ["", *bullets(["Gain: mean over benchmarks, percentage points; the interval is for the gain itself, not for its mean."])]
    elif np.isnan(skill.p):
        needed = "3 base models and 4 training sets"
        lines += bullets([f"No ranking: it would take gains of at least {needed}; there are {skill.models} and {skill.sets}."])
    else:
        lines += bullets(
            [f"No ranking: for {skill.held_out} left out, the adviser is no better than chance. Candidates: {', '.join(candidates)}."]
        )
    if not np.isnan(skill.p):
        error = (
            f"Error with {skill.held_out} left out: {100 * skill.rmse:.1f} points for gains relative to the base model's mean "
            f"({100 * skill.spread:.1f} when the same gain is predicted for every set), {100 * skill.rmse_gain:.1f} for gains; rank correlation "
            f"within base models {skill.rank:.2f}, p = {skill.p:.3f} by shuffling (a ranking is given below {CHANCE})."
        )
        lines += bullets([error])
    basis = f"Learnt from {learnt}" + (f", by {by}" if by else "") + ("" if unseen else "; the candidates' own gains in it count") + "."
    if training.source == PUBLISHED:
        basis += " The order does not depend on the scores of base models; the gains do, and some published ones are unreliable."
    lines += bullets(
        [basis, *([f"Not trained on there: {', '.join(unseen)}; only properties speak for the candidates."] if unseen else [])]
    )
    return "\n".join(lines) + "\n"
