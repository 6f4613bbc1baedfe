"""Mean gain over the kept epochs: single sets at the smallest and largest size, and the merged set."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import count


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Up to three panels: a line per training set at each of two sizes, and a line per method for the merged set."""
    known = style.known(tables["gains"], "gain")
    single, merged = select.trajectories(known, study), select.merged_trajectories(known, study)
    if single.is_empty() and merged.is_empty():
        return style.absent("Gain by epoch", "runs that keep two or more epochs")
    sizes = sorted({single["rows"].min(), single["rows"].max()}) if single.height else []
    canvas = style.figure(style.PAGE, 2.9)
    axes = canvas.subplots(1, max(1, len(sizes)) + 1, sharey=True)
    if not sizes:
        style.explain(axes[0], "single sets", "single-set\nruns that keep two or more epochs")
    datasets = style.present(study, "datasets", single["dataset"])
    palette, handles = style.dataset_colours(study, datasets)
    for axis, rows in zip(axes, sizes, strict=False):
        part = single.filter(pl.col("rows") == rows)
        lines_panel(axis, part, "dataset", palette)
        method, schedule = part["method"][0], part["schedule"][0]
        axis.set_title(f"{style.METHODS[method]}, {rows:,} rows, {schedule} LR\n{counts(part)}")
    if merged.is_empty():
        style.explain(axes[-1], "merged set", "merged-set\nruns that keep two or more epochs")
    else:
        lines_panel(axes[-1], merged, "method", style.METHOD_COLOURS)
        axes[-1].set_title(f"merged set, {', '.join(sorted(merged['schedule'].unique()))} LR\n{counts(merged)}")
        axes[-1].legend(loc="best")
    axes[0].set_ylabel("mean gain, points (band: ± 2 SE)")
    if handles and datasets:
        style.legend_below(canvas, handles)
    return canvas


def counts(frame: pl.DataFrame) -> str:
    """How many runs and base models a panel shows."""
    return f"n = {count(frame.select(select.RUN).unique().height, 'runs')}, {count(frame['model'].n_unique(), 'base models')}"


def lines_panel(axis: Axes, frame: pl.DataFrame, by: str, palette: dict[str, str]) -> None:
    """Gain in points over epochs, from 0 at epoch 0; the mean over runs of each value of ``by``, and twice its item-level error."""
    for (name,), part in frame.group_by(by, maintain_order=True):
        variance = (pl.col("stderr") ** 2).sum().sqrt() / pl.len()
        line = part.group_by("epoch").agg(pl.col("gain").mean(), variance.alias("stderr")).sort("epoch")
        x, y, half = (np.array([0, *values]) for values in (line["epoch"], 100 * line["gain"], 200 * line["stderr"]))
        shape = {"marker": style.MARKERS.get(name, "o"), "markersize": 2.5, "label": style.METHODS.get(name, name)}
        style.band(axis, x, y, y - half, y + half, palette[name], 0.12, **shape)
    axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch (0: base model)")
