"""Published scores in the form of a study: the same tables and the same description, so that its analyses and figures apply."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from sft_atlas.analyse import consistency
from sft_atlas.published import columns
from sft_atlas.published.tidy_published import points
from sft_atlas.study import paper
from sft_atlas.study.runs import WITHOUT

SEED = 0
MERGED = "all"


@dataclass(frozen=True)
class Data:
    """What the analyses read: the study, its tables (fractions) and ``cells`` (points, see :mod:`sft_atlas.analyse.consistency`)."""

    study: dict
    scores: pl.DataFrame
    gains: pl.DataFrame
    cells: pl.DataFrame


def of_scores(scores: pl.DataFrame) -> Data:
    """The data of tidy scores (see :func:`tidy_published.tidy`), under either policy."""
    described, gains = study(scores), gains_table(scores)
    return Data(described, scores_table(scores), gains, consistency.cells(gains, described))


def scores_table(scores: pl.DataFrame) -> pl.DataFrame:
    """Scores in the columns of a study's ``scores`` table, analysed tasks only.

    ``benchmark`` is the task, such as ``mmlu-5``; ``score`` a fraction of the benchmark's range; ``stderr`` the binomial standard error
    over n items (null for judged means); ``rows`` the rows per source set.
    """
    kept = scores.filter(pl.col("task").map_elements(lambda key: columns.task(key).analysed, return_dtype=pl.Boolean))
    items = {key: columns.task(key).items for key in kept["task"].unique()}
    judged = [key for key in items if columns.task(key).scale == columns.JUDGE]
    members = len(single_sets(scores))
    merged, left_out = pl.col("dataset") == MERGED, pl.col("dataset").str.starts_with(WITHOUT)
    sources = pl.when(merged).then(max(1, members)).when(left_out).then(max(1, members - 1)).otherwise(1)
    base = pl.col("method") == "base"
    score, n = pl.col("score"), pl.col("n")
    frame = kept.with_columns(
        pl.col("rows") // sources,
        (points(kept) / 100).alias("score"),
        pl.col("task").replace_strict(items, return_dtype=pl.Int64).alias("n"),
    )
    stderr = pl.when(~pl.col("task").is_in(judged)).then((score * (1 - score)).clip(0).sqrt() / n.sqrt())
    recipe = pl.when(base).then(pl.lit("base")).otherwise(pl.concat_str("method", "rows", "schedule", separator="-", ignore_nulls=True))
    frame = frame.with_columns(recipe.alias("recipe"), stderr.alias("stderr"))
    return frame.select(
        "model", "dataset", "recipe", "epoch", "method", "rows", "schedule", pl.col("task").alias("benchmark"), "score", "stderr", "n"
    )


def gains_table(scores: pl.DataFrame) -> pl.DataFrame:
    """Gains in the columns of a study's ``gains`` table; gain, stderr and z are null where the base score is missing.

    The CSV has no single items, so the two scores count as independent, which overstates the standard error. The standard error of a
    judged mean is the noise floor (see :func:`noise`).
    """
    table = scores_table(scores)
    base = table.filter(pl.col("epoch") == 0).select(
        "model", "benchmark", pl.col("score").alias("base_score"), pl.col("stderr").alias("base_stderr")
    )
    joined = table.filter(pl.col("epoch") > 0).join(base, on=["model", "benchmark"], how="left", maintain_order="left")
    floor = noise(joined).select("benchmark", (pl.col("sd") * np.sqrt(2) / 100).alias("floor"))
    joined = joined.join(floor, on="benchmark", how="left", maintain_order="left")
    paired = (pl.col("stderr") ** 2 + pl.col("base_stderr") ** 2).sqrt()
    stderr = pl.when(pl.col("gain").is_not_null()).then(pl.when(pl.col("stderr").is_null()).then(pl.col("floor")).otherwise(paired))
    frame = joined.with_columns((pl.col("score") - pl.col("base_score")).alias("gain")).with_columns(stderr.alias("stderr"))
    return frame.with_columns(pl.when(pl.col("stderr") > 0).then(pl.col("gain") / pl.col("stderr")).alias("z")).drop("base_stderr", "floor")


def single_sets(scores: pl.DataFrame) -> list[str]:
    """Training sets that are not merged: known ones in the order of ``paper.DATASETS``, then the others by name."""
    names = set(scores.filter(pl.col("epoch") > 0)["dataset"])
    return columns.in_order((name for name in names if name != MERGED and not name.startswith(WITHOUT)), paper.DATASETS)


def study(scores: pl.DataFrame) -> dict:
    """The study that analyses and figures read: models, datasets, benchmarks, recipes, runs, seed."""
    table = scores_table(scores)
    singles, present = single_sets(scores), set(scores["dataset"])
    models = {key: paper.KEYS.get(key, (key, "unknown", "unknown")) for key in columns.in_order(set(scores["model"]), paper.KEYS)}
    kinds = [(name, *paper.DATASETS.get(name, (name, "other")), False, [], None) for name in singles]
    kinds += [(MERGED, "all", "merged", True, singles, None)] if MERGED in present else []
    kinds += [
        (WITHOUT + name, f"without {label}", "leave-one-out", False, singles, name)
        for name, label, *_ in kinds[: len(singles)]
        if WITHOUT + name in present
    ]
    datasets = {name: dict(zip(("label", "group", "merged", "members", "without"), entry, strict=True)) for name, *entry in kinds}
    tasks = columns.in_order(set(table["benchmark"]), columns.TASKS)
    runs = table.filter(pl.col("epoch") > 0).select("model", "dataset", "recipe", "method", "rows", "schedule").unique(maintain_order=True)
    return {
        "study": "published",
        "seed": SEED,
        "models": {key: dict(zip(("label", "family", "language"), facts, strict=True)) for key, facts in models.items()},
        "datasets": datasets,
        "benchmarks": {key: {"label": columns.task(key).label, "group": columns.task(key).group} for key in tasks},
        "recipes": {row["recipe"]: {"label": row["recipe"], "method": row["method"]} for row in runs.iter_rows(named=True)},
        "runs": runs.to_dicts(),
    }


def noise(gains: pl.DataFrame) -> pl.DataFrame:
    """Noise floor per benchmark: benchmark, steps, sd (points), item_sd (points).

    ``sd`` is 1.4826 x median |step| / sqrt(2) over steps between neighbouring epochs, from the later half of each run (of the runs with
    a constant schedule, if any); ``item_sd`` is the binomial standard error.
    """
    steady = gains.filter(pl.col("schedule") == "constant") if (gains["schedule"] == "constant").any() else gains
    run = ["model", "dataset", "recipe", "benchmark"]
    steps = steady.sort(*run, "epoch").with_columns(
        (pl.col("score") - pl.col("score").shift(1).over(run)).alias("step"),
        (pl.col("epoch") - pl.col("epoch").shift(1).over(run)).alias("gap"),
        (pl.col("epoch") > pl.col("epoch").max().over(run) / 2).alias("late"),
    )
    score = pl.col("score")
    return (
        steps.filter(pl.col("gap") == 1, pl.col("late"))
        .group_by("benchmark", maintain_order=True)
        .agg(
            pl.col("step").count().alias("steps"),
            (100 * 1.4826 / np.sqrt(2) * pl.col("step").abs().median()).alias("sd"),
            (100 * (score * (1 - score) / pl.col("n")).sqrt().median()).alias("item_sd"),
        )
        .sort("benchmark")
    )


def apply_policy(scores: pl.DataFrame, repairs: pl.DataFrame, policy: str) -> pl.DataFrame:
    """Tidy scores as published (``raw``) or with the repairs applied; scores set to null are dropped, like missing ones."""
    if policy == "raw":
        return scores
    joined = scores.join(repairs.with_columns(pl.lit(True).alias("hit")), on=["row", "task"], how="left", maintain_order="left")
    score = pl.when(pl.col("hit")).then(pl.col("value")).otherwise(pl.col("score"))
    return joined.with_columns(score.alias("score")).drop("value", "finding", "hit").drop_nulls("score")
