"""Predictors of gain: correlations within base models, and error removed on held-out gains."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_atlas.analyse.analyse_predictors import ALL, PREDICTORS
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, count

HELD_OUT = {
    "new base model, dataset known": ("new base model: dataset mean plus predictor", "o"),
    "new dataset": ("new training set: model mean plus predictor", "s"),
}
OWN, OTHER, TICK = style.SERIES_COLOURS[0], style.GREY, "|"
FLOOR = -1.0  # of the right panel: predictions that double the squared error or worse stand at the edge


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """A row per predictor; left: correlation and interval, for all training sets and without each group left out; right held-out error."""
    frame = tables["predictors"]
    known = frame.filter(pl.col("statistic") == "correlation", pl.col("effect").is_finite())
    if known.is_empty():
        return style.absent("Predictors of gain", "runs on four or more single training sets")
    names = [name for name in PREDICTORS if name in set(known["predictor"])]
    canvas = style.figure(style.PAGE, 1.15 + 0.27 * len(names))
    axes = canvas.subplots(1, 2, sharey=True, width_ratios=[1, 1])
    handles = correlation_panel(axes[0], known, names)
    handles += held_out_panel(axes[1], frame.filter(pl.col("subset") == ALL), names)
    axes[0].set_yticks(range(len(names)), [PREDICTORS[name][0] for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    style.legend_below(canvas, handles)
    return canvas


def correlation_panel(axis: Axes, known: pl.DataFrame, names: list[str]) -> list[Line2D]:
    """All training sets: points with intervals, filled where q < 0.05. Without one group of them: the correlation alone, as a tick."""
    subsets = known["subset"].unique(maintain_order=True).to_list()
    rows(axis, known.filter(pl.col("subset") == ALL).with_columns(sure=pl.col("q") < SIGNIFICANT), names, 0, OWN)
    for row in known.filter(pl.col("subset") != ALL).iter_rows(named=True):
        axis.plot(row["effect"], names.index(row["predictor"]) + 0.3, TICK, color=OTHER, markersize=5, markeredgewidth=0.8)
    axis.axvline(0, color=style.GREY, linewidth=0.5, zorder=0)
    axis.set_xlim(-1.02, 1.02)
    axis.set_xlabel("correlation with gain, within base models")
    sizes = known.filter(pl.col("subset") == subsets[0])
    axis.set_title(f"95 % interval; filled: q < 0.05\nn = {sizes['n'].min()} to {sizes['n'].max()} gains, {sizes['sets'][0]} training sets")
    others = [name for name in subsets if name != ALL]
    label = others[0] if len(others) == 1 else f"without one group of sets ({len(others)})"
    handles = [style.handle("all training sets", OWN, line="-")]
    return handles + ([style.handle(label, OTHER, TICK, size=5)] if others else [])


def rows(axis: Axes, part: pl.DataFrame, names: list[str], shift: float, colour: str, mark: str = "o") -> None:
    """An effect with its interval in the row of each predictor, shifted down; filled where it is ``sure``."""
    for row in part.iter_rows(named=True):
        low, effect, high = (np.clip(row[key], FLOOR, 1.0) for key in ("low", "effect", "high"))
        style.interval(axis, names.index(row["predictor"]) + shift, low, effect, high, colour, bool(row["sure"]), mark)


def held_out_panel(axis: Axes, frame: pl.DataFrame, names: list[str]) -> list[Line2D]:
    """Share of the baseline's squared error that a predictor removes; filled where its interval excludes 0 and q < 0.05."""
    handles, sizes = [], []
    for shift, (statistic, (label, mark)) in enumerate(HELD_OUT.items()):
        colour = style.SERIES_COLOURS[shift + 1]
        part = frame.filter(pl.col("statistic") == statistic, pl.col("effect").is_finite(), pl.col("predictor").is_in(names))
        excludes_zero = (pl.col("low") > 0) | (pl.col("high") < 0)
        rows(axis, part.with_columns(sure=excludes_zero & (pl.col("q") < SIGNIFICANT)), names, (shift - 0.5) * 0.3, colour, mark)
        sizes += [count(n, unit) for n, unit in part.select("n", "unit").iter_rows()]
        handles.append(style.handle(label, colour, mark, "-"))
    axis.axvline(0, color=style.GREY, linewidth=0.5, zorder=0)
    axis.set_xlim(FLOOR - 0.02, 1.02)
    axis.set_xlabel("share of the baseline's squared error removed")
    counts = f"\nn = {', '.join(sorted(set(sizes)))}" if sizes else ""
    axis.set_title(f"held-out gains, 95 % interval; filled: q < 0.05{counts}")
    axis.tick_params(labelleft=False)
    return handles
