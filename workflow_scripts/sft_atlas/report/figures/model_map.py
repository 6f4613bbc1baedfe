"""Map of checkpoints by their log-likelihoods of the same texts, and their divergence from the base model by epoch."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import analyse_map, select
from sft_atlas.report.figures import style
from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import p_value


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Left: the map. Right: the divergence from the base model by epoch."""
    vectors = analyse_map.vectors(tables["likelihood"])
    if len(vectors.values) < 3 or not vectors.values.shape[1]:
        return style.absent("Map of checkpoints", "three or more checkpoints of blocks with `measure_representation: true`")
    place, how = analyse_map.embed(vectors.values, study["seed"])
    keys = vectors.keys.with_columns(pl.Series("x", place[:, 0]), pl.Series("y", place[:, 1]))
    canvas = style.figure(style.PAGE, 3.4)
    axes = canvas.subplots(1, 2, width_ratios=[1.3, 1])
    map_panel(axes[0], keys, study)
    result = analyse_map.base_share(vectors, study)[0]
    axes[0].set_title(f"{how}; n = {keys.height} checkpoints, {vectors.values.shape[1]:,} texts\n{_base_share(result)}")
    distance_panel(axes[1], analyse_map.distances(vectors), study)
    style.models_legend(canvas, study, keys["model"], keys["method"])
    return canvas


def map_panel(axis: Axes, keys: pl.DataFrame, study: dict) -> None:
    """Checkpoints at x, y: colour by base model, marker by method, size by epoch."""
    palette = style.colours(list(study["models"]))
    last = max(keys["epoch"].max(), 1)
    for (model, method), part in keys.sort("epoch").group_by("model", "method", maintain_order=True):
        base = method == "base"
        size = 110 if base else 5 + 20 * part["epoch"].to_numpy() / last
        edge = {"edgecolors": "white", "linewidths": 0.8, "zorder": 5} if base else {"linewidths": 0, "alpha": 0.6}
        axis.scatter(part["x"], part["y"], s=size, marker=style.MARKERS[method], color=palette[model], **edge)
    axis.set_xticks([])
    axis.set_yticks([])
    scale = "; distances not to scale" if keys.height >= analyse_map.FEWEST_FOR_NEIGHBOURS else ""
    axis.set_xlabel(f"larger marker: later epoch{scale}")
    axis.spines[:].set_visible(True)


def distance_panel(axis: Axes, moved: pl.DataFrame, study: dict) -> None:
    """Mean distance to the base model by epoch, a line per method, schedule, size and kind of training set."""
    kind = pl.when(pl.col("dataset").is_in(select.kinds(study, "single"))).then(pl.lit("single sets")).otherwise(pl.lit("merged set"))
    elsewhere = [name for name, recipe in study["recipes"].items() if recipe.get("outside")]  # their epoch is no number of epochs
    moved = moved.filter(~pl.col("recipe").is_in(elsewhere))
    tuned = moved.filter(pl.col("epoch") > 0, ~pl.col("dataset").is_in(select.kinds(study, "without"))).with_columns(kind=kind)
    groups = ["kind", "method", "schedule", "rows"]
    ordered = tuned.sort(groups, descending=[True, False, False, False])
    for index, ((which, method, schedule, rows), part) in enumerate(ordered.group_by(groups, maintain_order=True)):
        line = part.group_by("epoch").agg(pl.col("distance").mean()).sort("epoch")
        size = f" {rows:,} rows," if which == "single sets" else ""
        label = f"{which}, {style.METHODS[method]},{size} {schedule}, n = {part.select(select.RUN).unique().height}"
        shape = {"color": style.SERIES_COLOURS[index % len(style.SERIES_COLOURS)], "marker": style.MARKERS[method], "markersize": 3}
        axis.plot(line["epoch"], line["distance"], style.LINES[method], label=label, **shape)
    if not axis.lines:
        axis.text(0.5, 0.5, "needs runs of this study", transform=axis.transAxes, ha="center", va="center")
        axis.set_axis_off()
        return
    axis.set_ylim(0, axis.get_ylim()[1] * (1 + 0.085 * len(axis.lines)))  # room for the legend above the lines
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel("divergence, bits per byte")
    axis.set_title("divergence from the base model,\nmean over runs")
    axis.legend(loc="upper left", borderaxespad=0.2, labelspacing=0.3)


def _base_share(result: Estimate) -> str:
    """The share of squared distance between base models, for the title."""
    if np.isnan(result.effect):
        return "squared distance between base models: needs 2 base models"
    tested = "" if np.isnan(result.p) else f", {p_value(result.p)}"
    interval = "" if np.isnan(result.low) else f" [{100 * result.low:.0f} to {100 * result.high:.0f}]"
    return f"between base models: {100 * result.effect:.0f} %{interval} of squared distance{tested}, n = {result.n}"
