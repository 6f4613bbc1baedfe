"""Variance of scores by base model, training set, method and their interactions, per benchmark."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.report.figures import style

COLOURS = dict(zip(variance.TERMS, style.TERM_COLOURS, strict=True))
LABELS = {term: term.replace("model", "base model").replace("dataset", "training set").replace(" x ", " × ") for term in variance.TERMS}


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
    axis.set_title(f"mean over benchmarks, %: {in_words(mean)}")
    canvas.legend(loc="outside lower center", ncols=4)
    return canvas


def in_words(mean: pl.DataFrame) -> str:
    """The mean shares of base model and training set with their intervals, or why they have none."""
    rows = [row for term in variance.TERMS[:2] for row in mean.filter(pl.col("term") == term).iter_rows(named=True)]
    if any(np.isnan(row["low"]) for row in rows):
        shares = ", ".join(f"{LABELS[row['term']]} {100 * row['effect']:.0f}" for row in rows)
        return f"{shares}\n(no interval: {rows[0]['n']} base models are too few to resample)"
    return ", ".join(f"{LABELS[r['term']]} {100 * r['effect']:.0f} [{100 * r['low']:.0f} to {100 * r['high']:.0f}]" for r in rows)


def panel(axis: Axes, table: pl.DataFrame, benchmarks: list[str], labels: list[str]) -> None:
    """Stacked shares from a table of variance: benchmark, term, effect (a fraction), n."""
    left = np.zeros(len(benchmarks))
    widths = 100 * select.array(table, "effect", {"term": list(COLOURS), "benchmark": benchmarks})
    for (term, colour), width in zip(COLOURS.items(), widths, strict=True):
        axis.barh(range(len(benchmarks)), width, left=left, color=colour, label=LABELS[term], height=0.8, edgecolor="white", linewidth=0.3)
        shade = "white" if style.is_dark(colour) else "black"
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
