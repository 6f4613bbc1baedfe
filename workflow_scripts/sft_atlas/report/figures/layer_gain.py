"""Weight change and gain by depth: their correlation with its max-T limit, the size of the change, agreement of base models."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, count

PANELS = {
    "gain": ("correlation of change with gain,\nwithin base models", "Pearson r"),
    "magnitude": ("relative change per layer,\nmedian and quartiles of runs", "relative change, %"),
    "agreement": ("agreement of base models on\nwhich sets change a layer most", "mean r over pairs of base models"),
}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Three panels over depth; a line per method."""
    curves, peaks = style.known(tables["layer_curves"], "value"), style.known(tables["layer_peaks"], "value")
    if curves.is_empty():
        return style.absent("Weight change and gain", "runs on single training sets")
    canvas = style.figure(style.PAGE, 2.75)
    for axis, (measure, (title, label)) in zip(canvas.subplots(1, 3), PANELS.items(), strict=True):
        part = curves.filter(pl.col("measure") == measure)
        if part.is_empty():
            needed = {"gain": "four\nor more training sets", "agreement": "four or\nmore training sets on two base models"}
            style.explain(axis, title.replace("\n", " "), needed.get(measure, "runs"))
            continue
        panel(axis, part, peaks.filter(pl.col("measure") == measure), 100 if measure == "magnitude" else 1)
        axis.set_xlabel(style.DEPTH)
        axis.set_ylabel(label)
        axis.set_title(title)
    runs = curves.filter(pl.col("measure") != "agreement").group_by("method").agg(pl.col("n").first()).sort("method")
    handles = [
        style.handle(f"{style.METHODS[name]}, n = {count(n, 'runs')}", style.METHOD_COLOURS[name], "", style.LINES[name])
        for name, n in runs.iter_rows()
    ]
    handles.append(style.handle("95 % limit under shuffling, all depths at once", style.GREY, "", ":", linewidth=0.7))
    handles.append(style.handle("largest value, if p < 0.05 over all depths", style.GREY, "*", size=6))
    handles.append(Patch(color=style.GREY, alpha=0.2, linewidth=0, label="95 % bootstrap interval at each depth"))
    style.legend_below(canvas, handles)
    return canvas


def panel(axis: Axes, curves: pl.DataFrame, peaks: pl.DataFrame, scale: float) -> None:
    """Lines with intervals; dotted limits where there is a band; a mark at the largest value where its p is below 0.05."""
    for (method,), part in curves.sort("depth").group_by("method", maintain_order=True):
        colour, (value, low, high) = style.METHOD_COLOURS[method], (scale * part[key] for key in ("value", "low", "high"))
        style.band(axis, part["depth"], value, low, high, colour, 0.15, style.LINES[method])
        band = part["band"][0]
        if band is not None:
            for limit in (band, -band) if curves["measure"][0] == "gain" else (band,):
                axis.axhline(limit, color=colour, linewidth=0.7, linestyle=":")
        for row in peaks.filter(pl.col("method") == method, pl.col("p") < SIGNIFICANT).iter_rows(named=True):
            shape = {"marker": "*", "markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.4}
            axis.plot(row["depth"], scale * row["value"], color=colour, **shape)
    if curves["band"].null_count() == 0:
        axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
        axis.set_ylim(-1.05 if curves["measure"][0] == "gain" else min(-0.5, curves["low"].min()), 1.05)
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlim(0, 1)
