"""Weight change and gain by depth: their correlation with its max-T limit, the size of the change, agreement of base models."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, count

COLOURS = {"full": style.PALETTE[0], "lora": style.PALETTE[1]}
PANELS = {
    "gain": ("correlation of change with gain,\nwithin base models", "Pearson r"),
    "magnitude": ("relative change per layer,\nmedian and quartiles of runs", "relative change, %"),
    "agreement": ("agreement of base models on\nwhich sets change a layer most", "mean r over pairs of base models"),
}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Three panels over depth; a line per method."""
    curves, peaks = tables["layer_curves"], tables["layer_peaks"]
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
        axis.set_xlabel("depth (0 first layer, 1 last)")
        axis.set_ylabel(label)
        axis.set_title(title)
    methods = sorted(set(curves["method"]))
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=COLOURS[name], linestyle=style.LINES[name], label=f"{style.METHODS[name]}{size(curves, name)}")
        for name in methods
    ]
    handles.append(Line2D([], [], color=style.GREY, linewidth=0.7, linestyle=":", label="95 % limit under shuffling, all depths at once"))
    star = {"marker": "*", "linestyle": "", "markersize": 6}
    handles.append(Line2D([], [], color=style.GREY, label="largest value, if p < 0.05 over all depths", **star))
    handles.append(Patch(color=style.GREY, alpha=0.2, linewidth=0, label="95 % bootstrap interval at each depth"))
    style.legend_below(canvas, handles)
    return canvas


def size(curves: pl.DataFrame, method: str) -> str:
    """How many runs, base models and training sets the lines of a method are made from."""
    row = curves.filter(pl.col("method") == method, pl.col("measure") != "agreement").row(0, named=True)
    return f", n = {count(row['n'], 'runs')}"


def panel(axis: Axes, curves: pl.DataFrame, peaks: pl.DataFrame, scale: float) -> None:
    """Lines with intervals; dotted limits where there is a band; a mark at the largest value where its p is below 0.05."""
    for (method,), part in curves.sort("depth").group_by("method", maintain_order=True):
        colour = COLOURS[method]
        axis.fill_between(part["depth"], scale * part["low"], scale * part["high"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(part["depth"], scale * part["value"], style.LINES[method], color=colour)
        band = part["band"][0]
        if band is not None:
            for limit in (band, -band) if curves["measure"][0] == "gain" else (band,):
                axis.axhline(limit, color=colour, linewidth=0.7, linestyle=":")
        for row in peaks.filter(pl.col("method") == method, pl.col("p") < SIGNIFICANT).iter_rows(named=True):
            axis.plot(
                row["depth"], scale * row["value"], marker="*", markersize=7, color=colour, markeredgecolor="white", markeredgewidth=0.4
            )
    if curves["band"].null_count() == 0:
        axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
        axis.set_ylim(-1.05 if curves["measure"][0] == "gain" else min(-0.5, curves["low"].min()), 1.05)
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlim(0, 1)
