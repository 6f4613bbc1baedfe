"""What gains are due to, noise among it; and the noise of training once more beside that of items, per benchmark and recipe."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_noise import ALL, TERMS
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import count_span

# Main effects, interactions and the rest as in the figure `variance`; noise has a colour of its own.
COLOURS = dict(zip(TERMS, (*style.TERM_COLOURS[:6], "#54478C", style.TERM_COLOURS[6], "#B33A3A", "#E3A5A5"), strict=True))
NAMES = {
    "model": "base model",
    "dataset": "training set",
    "seed": "training once more",
    "items": "items (other answers with another seed)",
    "rest": "rest, noise included",
}


def term_label(term: str) -> str:
    """A term as the legend names it."""
    return NAMES.get(term) or " × ".join(NAMES.get(part, part) for part in term.split(" x "))


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Shares of the variance of gains; where a recipe has several seeds, the standard deviation between them and the error by items."""
    frame = style.known(tables["noise"], "variance")
    split, training = style.known(frame.filter(design="split"), "share"), frame.filter(design="training")
    if split.is_empty() and training.is_empty():
        return style.absent("Noise of training and of items", "two or more single-set runs")
    benchmarks = [ALL, *style.present(study, "benchmarks", frame["benchmark"])]
    names = ["mean gain", *style.labels(study, "benchmarks", benchmarks[1:])]
    panels = [(panel, part) for panel, part in ((split_panel, split), (training_panel, training)) if part.height]
    canvas = style.figure(style.PAGE * (1 if len(panels) > 1 else 0.75), 1.7 + style.rows_height(len(benchmarks), 0.2))
    for axis, (panel, part) in zip(canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        panel(axis, part, benchmarks)
        axis.axhline(0.5, color=style.GREY, linewidth=0.5)
    canvas.axes[0].set_yticks(range(len(benchmarks)), names)
    canvas.axes[0].set_ylim(len(benchmarks) - 0.5, -0.5)
    handles = [style.handle(term_label(term), COLOURS[term], "s") for term in COLOURS if term in set(split["term"])]
    style.legend_below(canvas, handles + recipe_handles(training, study))
    return canvas


def recipe_handles(training: pl.DataFrame, study: dict) -> list:
    """Entries of the legend for the recipes with several seeds."""
    handles = []
    for recipe, colour in palette(training).items():
        cells = training.filter(recipe=recipe, term="run")
        label = f"{study['recipes'][recipe]['label']}: between seeds (n = {cells['cells'].max()}, {cells['df'].max():.0f} df)"
        handles.append(style.handle(label, colour, line="-"))
    return handles + ([style.handle("standard error by items", style.GREY, "s", markerfacecolor="none")] if handles else [])


def palette(training: pl.DataFrame) -> dict[str, str]:
    """A colour per recipe."""
    return style.colours(training["recipe"].unique(maintain_order=True).to_list(), style.SERIES_COLOURS)


def split_panel(axis: Axes, split: pl.DataFrame, benchmarks: list[str]) -> None:
    """Stacked shares of the terms, per benchmark."""
    left = np.zeros(len(benchmarks))
    for term, width in zip(COLOURS, 100 * select.array(split, "share", {"term": list(COLOURS), "benchmark": benchmarks}), strict=True):
        width = np.nan_to_num(width)
        axis.barh(range(len(benchmarks)), width, left=left, color=COLOURS[term], height=0.8, edgecolor="white", linewidth=0.3)
        for row in np.flatnonzero(width >= 7):
            shade = "white" if style.is_dark(COLOURS[term]) else "black"
            axis.text(left[row] + width[row] / 2, row, f"{width[row]:.0f}", ha="center", va="center", fontsize=style.SMALL, color=shade)
        left = left + width
    sizes = [
        count_span(split[key], things) for key, things in (("models", "base models"), ("datasets", "training sets"), ("methods", "methods"))
    ]
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of the variance of gains, %")
    unknown = "" if "seed" in set(split["term"]) else "\n(one seed: the noise of training is unknown)"
    axis.set_title(f"variance of gains\nn = {', '.join(sizes)}{unknown}")


def training_panel(axis: Axes, training: pl.DataFrame, benchmarks: list[str]) -> None:
    """Per recipe a row of standard deviations: between seeds (dot with 95 % interval), and the standard error by items (open square)."""
    recipes = palette(training)
    for i, (recipe, colour) in enumerate(recipes.items()):
        own = training.filter(recipe=recipe)
        offset = (i - (len(recipes) - 1) / 2) * 0.6 / max(len(recipes), 2)
        y = np.arange(len(benchmarks)) + offset
        root = {
            (term, key): np.sqrt(select.array(own, key, {"term": [term], "benchmark": benchmarks})[0])
            for term, key in (("run", "variance"), ("run", "low"), ("run", "high"), ("score", "variance"))
        }
        axis.hlines(y, root["run", "low"], root["run", "high"], color=colour, linewidth=0.9)
        axis.plot(root["run", "variance"], y, "o", color=colour, markersize=3)
        axis.plot(root["score", "variance"], y, "s", color=colour, markersize=3.5, markerfacecolor="none", markeredgewidth=0.7)
    axis.set_xlim(0, None)
    axis.set_xlabel("standard deviation of a gain, points")
    axis.set_title("training once more with another seed\n(dots, 95 % intervals) and other items (squares)")
