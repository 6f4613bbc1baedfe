"""The figures of published scores: the study's own plots where they apply, and those that only many checkpoints of one file allow."""

import polars as pl
from matplotlib.figure import Figure

from sft_atlas.published import POLICIES, columns, panels
from sft_atlas.published.frames import Data
from sft_atlas.report.figures import components, consistency, gains, leave_one_out, lora_full, similarity, style, variance

SAID = dict(zip(POLICIES, ("scores as published", "repaired scores"), strict=True))


def draw(name: str, found: Data, tables: dict[str, pl.DataFrame], published: pl.DataFrame, repairs: pl.DataFrame, policy: str) -> Figure:
    """The figure ``name`` under a policy, which it says in its corner. ``tables`` are the tables of :func:`analyses.tables`."""
    study = found.study
    own = {"gains": found.gains, "scores": found.scores}
    makers = {
        "gains": lambda: gains.draw({"gains": _shown(found.gains)}, study, "test for independent items"),
        "similarity": lambda: similarity.draw(own, study),
        "similarity_base_free": lambda: similarity.draw(
            {"gains": base_free(found.gains, ["model", "method", "benchmark"], True)}, study, "base-free effects"
        ),
        "components": lambda: components.draw(own, study),
        "consistency": lambda: consistency.draw(own, study),
        "lora_full": lambda: lora_full.draw(
            {"gains": base_free(found.gains, ["model", "benchmark"])}, study, "score minus the model's mean:"
        ),
        "epochs": lambda: panels.epochs(tables["trajectories"], study),
        "size": lambda: panels.size(tables["size"], study),
        "leave_one_out": lambda: leave_one_out.draw(own, study),
        "cross_lingual": lambda: panels.cross_lingual(found.cells, tables["transfer"], study),
        "variance": lambda: variance.draw(own, study),
        "quality": lambda: panels.quality(published, repairs, study, policy),
    }
    figure = makers[name]()
    figure.text(0.004, 0.003, SAID[policy], ha="left", va="bottom", fontsize=style.SMALL, color=style.GREY)
    return figure


def _shown(table: pl.DataFrame) -> pl.DataFrame:
    """What fits on a page: one method, one variant of each benchmark, models that have a gain at all."""
    shown = [task for task in columns.ZERO_SHOT if task in set(table["benchmark"])] or table["benchmark"].unique().to_list()
    part = table.filter(pl.col("method") == table["method"].min(), pl.col("benchmark").is_in(shown))
    return part.filter(pl.col("gain").is_not_null().any().over("model"), pl.col("gain").is_not_null().any().over("benchmark"))


def base_free(table: pl.DataFrame, keys: list[str], unit: bool = False) -> pl.DataFrame:
    """A table of gains with the score minus its mean over the single-set runs of the same ``keys`` in the place of the gain.

    ``unit``: divided by the benchmark's spread, so that all benchmarks weigh the same in a correlation over benchmarks.
    """
    single = ~pl.col("dataset").str.starts_with(columns.WITHOUT) & (pl.col("dataset") != "all")
    main = pl.col("schedule") == "cosine" if (table["schedule"] == "cosine").any() else pl.lit(True)
    part = table.filter(single, main)
    part = part.with_columns((pl.col("score") - pl.col("score").mean().over(keys)).alias("gain"))
    return part.with_columns(pl.col("gain") / pl.col("gain").std().over("benchmark")) if unit else part
