"""Relative weight change by depth: one panel per base model, a line per method, a band over training sets."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import count


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Median over training sets with the full range as a band; whole layers of the last kept checkpoints."""
    profile = style.known(select.layer_profile(tables["layers"], study), "relative_change")
    if profile.is_empty():
        return style.absent("Weight change by depth", "runs on single training sets")
    models = style.present(study, "models", profile["model"])
    across = style.panels_across(len(models), 4)
    height = 0.55 + 1.65 * -(-len(models) // across)
    canvas, axes, panels = style.grid(style.PAGE if across > 1 else style.COLUMN, height, models, across)
    positive = profile.filter(pl.col("relative_change") > 0)["relative_change"]
    logarithmic = len(positive) > 0 and positive.max() / positive.min() > 20
    for axis, model in panels:
        part = profile.filter(pl.col("model") == model)
        panel(axis, part)
        if logarithmic:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        axis.set_xlim(0, 1)
        runs = count(part.select("dataset", "method").unique().height, "runs")
        axis.set_title(f"{style.labels(study, 'models', [model])[0]}, n = {runs}")
    for axis, _ in panels[-across:]:
        axis.set_xlabel(style.DEPTH)
    if not logarithmic:
        axes[0, 0].set_ylim(bottom=0)  # after all panels have set the shared top
    for axis in axes[:, 0]:
        axis.set_ylabel("relative change, %" + (" (log)" if logarithmic else ""))
    handles, names = axes[0, 0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=2)
    return canvas


def panel(axis: Axes, profile: pl.DataFrame) -> None:
    """Change in percent over depth; ``profile`` has method, dataset, depth and relative_change (a fraction)."""
    for (method,), part in profile.sort("method", "depth").group_by("method", maintain_order=True):
        change = 100 * pl.col("relative_change")
        line = part.group_by("depth", maintain_order=True).agg(change.median().alias("median"), low=change.min(), high=change.max())
        label = f"{style.METHODS[method]}: median of {count(part['dataset'].n_unique(), 'training sets')}, band: range"
        colour, shape = style.METHOD_COLOURS[method], style.LINES[method]
        style.band(axis, line["depth"], line["median"], line["low"], line["high"], colour, 0.18, shape, label=label)
