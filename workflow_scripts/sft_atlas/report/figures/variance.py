"""Variance of scores by base model, training set, method and their interactions, per benchmark."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.report.figures import style

COLOURS = dict(zip(variance.TERMS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#BBBBBB"), strict=True))


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """A bar per benchmark and their mean."""
    table = variance.variance(consistency.cells(style.known(tables["gains"], "score"), study), "score", study["seed"])
    if table.is_empty():
        return style.absent("Variance of scores", "two or more base models with every training set under two methods")
    benchmarks = style.present(study, "benchmarks", table["benchmark"])
    canvas = style.figure(style.PAGE * 0.75, 1.0 + 0.17 * (len(benchmarks) + 1))
    axis = canvas.subplots()
    panel(axis, table, ["all", *benchmarks], ["mean", *style.labels(study, "benchmarks", benchmarks)])
    mean = table.filter(pl.col("benchmark") == "all")
    largest = ", ".join(
        f"{term} {100 * row['effect']:.0f} [{100 * row['low']:.0f} to {100 * row['high']:.0f}]"
        for term in variance.TERMS[:2]
        for row in mean.filter(pl.col("term") == term).iter_rows(named=True)
    )
    axis.set_title(f"mean over benchmarks, %: {largest}")
    canvas.legend(loc="outside lower center", ncols=4)
    return canvas


def panel(axis: Axes, table: pl.DataFrame, benchmarks: list[str], labels: list[str]) -> None:
    """Stacked shares from a table of variance: benchmark, term, effect (a fraction), n."""
    left = np.zeros(len(benchmarks))
    widths = 100 * select.array(table, "effect", {"term": list(COLOURS), "benchmark": benchmarks})
    for (term, colour), width in zip(COLOURS.items(), widths, strict=True):
        axis.barh(range(len(benchmarks)), width, left=left, color=colour, label=term, height=0.8, edgecolor="white", linewidth=0.3)
        shade = "black" if colour in ("#E69F00", "#BBBBBB", "#56B4E9") else "white"
        for row in np.flatnonzero(width >= 6):
            x = left[row] + width[row] / 2
            axis.text(x, row, f"{width[row]:.0f}", ha="center", va="center", fontsize=style.SMALL, color=shade)
        left = left + width
    n = dict(table.select("benchmark", "n").unique().iter_rows())
    axis.set_yticks(range(len(benchmarks)), [f"{label} (n = {n[name]})" for name, label in zip(benchmarks, labels, strict=True)])
    axis.set_ylim(len(benchmarks) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of variance, % (n: base models with every training set and method)")
    axis.axhline(0.5, color=style.GREY, linewidth=0.5)
