"""Relative weight change by depth: one panel per base model, a line per method, a band over training sets."""

import math

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import count

METHOD_COLOURS = {"full": style.PALETTE[0], "lora": style.PALETTE[1]}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Median over training sets with the full range as a band; whole layers of the last kept checkpoints."""
    profile = select.layer_profile(tables["layers"], study)
    if profile.is_empty():
        return style.absent("Weight change by depth", "runs on single training sets")
    models = [name for name in study["models"] if name in set(profile["model"])]
    across = style.panels_across(len(models), 4)
    down = math.ceil(len(models) / across)
    width = style.PAGE if across > 1 else style.COLUMN
    canvas = style.figure(width, 0.55 + 1.65 * down)
    axes = canvas.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    positive = profile.filter(pl.col("relative_change") > 0)["relative_change"]
    logarithmic = len(positive) > 0 and positive.max() / positive.min() > 20
    for index, axis in enumerate(axes.flat):
        if index >= len(models):
            axis.set_visible(False)
            continue
        part = profile.filter(pl.col("model") == models[index])
        panel(axis, part)
        if logarithmic:
            axis.set_yscale("log")
        axis.set_xlim(0, 1)
        runs = count(part.select("dataset", "method").unique().height, "runs")
        axis.set_title(f"{style.labels(study, 'models', [models[index]])[0]}, n = {runs}")
        if index + across >= len(models):
            axis.set_xlabel("depth (0 first layer, 1 last)")
    if not logarithmic:
        axes[0, 0].set_ylim(bottom=0)  # after all panels have set the shared top
    style.label_lowest(axes)
    for axis in axes[:, 0]:
        axis.set_ylabel("relative change, %" + (" (log)" if logarithmic else ""))
    handles, names = axes[0, 0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=2)
    return canvas


def panel(axis: Axes, profile: pl.DataFrame) -> None:
    """Change in percent over depth; ``profile`` has method, dataset, depth and relative_change (a fraction)."""
    for (method,), part in profile.sort("method", "depth").group_by("method", maintain_order=True):
        change = 100 * pl.col("relative_change")
        line = part.group_by("depth", maintain_order=True).agg(
            change.median().alias("median"), change.min().alias("low"), change.max().alias("high")
        )
        colour = METHOD_COLOURS[method]
        axis.fill_between(line["depth"], line["low"], line["high"], color=colour, alpha=0.18, linewidth=0)
        sets = part["dataset"].n_unique()
        label = f"{style.METHODS[method]}: median of {count(sets, 'training sets')}, band: range"
        axis.plot(line["depth"], line["median"], style.LINES[method], color=colour, label=label)
