"""Gain of LoRA compared with full fine-tuning, for the same base model, training set and benchmark."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import count


def draw(tables: dict[str, pl.DataFrame], study: dict, what: str = "gain of") -> Figure:
    """Left: every pair. Right: the mean difference per benchmark with its interval over base models, or over training sets where base models are few."""
    pairs = style.known(select.method_pairs(tables["gains"], study), "full", "lora")
    if pairs.is_empty():
        return style.absent("LoRA and full fine-tuning", "runs with both methods, full and lora, on the same base models and training sets")
    benchmarks = style.present(study, "benchmarks", pairs["benchmark"])
    canvas = style.figure(style.PAGE, max(3.0, 1.0 + 0.17 * len(benchmarks)))
    axes = canvas.subplots(1, 2, width_ratios=[1, 1.1])
    scatter_panel(axes[0], pairs, study, what)
    runs = pairs.select("model", "dataset").unique().height
    axes[0].set_title(f"n = {pairs.height} pairs ({runs} pairs of runs × benchmarks)")
    parts = [pairs.filter(pl.col("benchmark") == name) for name in benchmarks] + [pairs]
    estimates = [select.overall_difference(part, study["seed"]) for part in parts]
    names = [*style.labels(study, "benchmarks", benchmarks), "mean over benchmarks"]
    forest_panel(axes[1], estimates, names)
    axes[1].set_title(f"mean difference, 95 % interval, n = {count(estimates[-1].n, estimates[-1].unit)}")
    style.models_legend(canvas, study, pairs["model"])
    return canvas


def scatter_panel(axis: Axes, pairs: pl.DataFrame, study: dict, what: str = "gain of") -> None:
    """LoRA over full gain in points, with the line of equality; ``pairs`` has model, full and lora."""
    palette = style.colours(list(study["models"]))
    size = 12 if pairs.height < 400 else 5
    for (model,), part in pairs.group_by("model", maintain_order=True):
        axis.scatter(100 * part["full"], 100 * part["lora"], s=size, color=palette[model], linewidths=0, alpha=0.65)
    both = 100 * pairs.select("full", "lora").to_numpy()
    ends = np.array([np.nanmin(both), np.nanmax(both)])
    axis.plot(ends, ends, color=style.GREY, linewidth=0.7, linestyle=":", zorder=0)
    axis.annotate("equal", (ends[1], ends[1]), textcoords="offset points", xytext=(-2, 2), ha="right", fontsize=6, color=style.GREY)
    for line in (axis.axhline, axis.axvline):
        line(0, color=style.GREY, linewidth=0.4, zorder=0)
    axis.set_xlabel(f"{what} full fine-tuning, points")
    axis.set_ylabel(f"{what} LoRA, points")
    axis.set_aspect("equal", adjustable="datalim")


def forest_panel(axis: Axes, estimates: list[Estimate], names: list[str], what: str = "LoRA minus full") -> None:
    """Differences (fractions, shown in points) with intervals, one row each, the last one apart."""
    for row, estimate in enumerate(estimates):
        colour = "black" if estimate.excludes_zero else style.GREY
        mark = "D" if row == len(estimates) - 1 else "o"
        low, effect, high = (100 * value for value in (estimate.low, estimate.effect, estimate.high))
        style.interval(axis, row, low, effect, high, colour, estimate.excludes_zero, mark, 1)
    axis.axvline(0, color=style.GREY, linewidth=0.5, zorder=0)
    axis.axhline(len(estimates) - 1.5, color=style.GREY, linewidth=0.4, linestyle=":")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"{what}, points (black: interval excludes 0)")
