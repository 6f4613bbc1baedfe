"""Factors behind distances between checkpoints: shares of the squared distance, and the spread of checkpoints by epoch."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, p_value

TERMS = {"model": "base model", "dataset": "training set", "method": "method", "run": "run", "epoch": "epoch", "residual": "residual"}
DESIGNS = {"last": "last checkpoints, single sets", "epochs": "runs that keep every epoch"}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Left: the shares. Right: the divergence of a base model's checkpoints from their common centre, by epoch."""
    shares, spread = tables["map_shares"], style.known(tables["map_spread"], "spread")
    if style.known(shares, "share").is_empty():
        return style.absent(
            "Factors behind distances", "runs of two or more base models or training sets with `measure_representation: true`"
        )
    canvas = style.figure(style.PAGE, 2.6)
    axes = canvas.subplots(1, 2, width_ratios=[1.25, 1])
    share_panel(axes[0], shares)
    if spread.is_empty():
        style.explain(axes[1], "spread of checkpoints by epoch", "runs on\nsingle training sets that keep two or more epochs")
    else:
        spread_panel(axes[1], spread, study)
    return canvas


def share_panel(axis: Axes, shares: pl.DataFrame) -> None:
    """Horizontal bars of PERMANOVA shares in percent; ``shares`` has design, term, share, p and n."""
    place, ticks, names = 0.0, [], []
    for (design,), part in shares.group_by("design", maintain_order=True):
        axis.text(1, place, f"{DESIGNS[design]}, n = {part['n'].max()}", fontsize=style.SMALL, va="center", color=style.GREY)
        for row in part.iter_rows(named=True):
            place -= 1
            ticks.append(place)
            names.append(TERMS[row["term"]])
            share = row["share"]
            if share is None or np.isnan(share):
                axis.text(1, place, "confounded with the other terms", fontsize=style.SMALL, va="center", color=style.GREY)
                continue
            tested = row["p"] is not None and not np.isnan(row["p"])
            sure = tested and row["p"] < SIGNIFICANT
            axis.barh(place, 100 * share, height=0.7, color=style.PALETTE[0] if sure else style.PALE, edgecolor=style.GREY, linewidth=0.4)
            text = f"{100 * share:.1f} %" + (f", {p_value(row['p'])}" if tested else "")
            axis.text(100 * share + 1, place, text, fontsize=style.SMALL, va="center")
        place -= 1.4
    axis.set_yticks(ticks, names)
    axis.set_ylim(place + 0.6, 0.7)
    axis.set_xlim(0, 118)
    axis.set_xticks(range(0, 101, 25))
    axis.set_xlabel("share of the squared distance, %")
    axis.set_title("PERMANOVA, each term given the others;\nblue: p < 0.05")


def spread_panel(axis: Axes, spread: pl.DataFrame, study: dict) -> None:
    """A line per base model and recipe; ``spread`` has model, recipe, epoch, spread (bits per byte) and runs."""
    palette = style.colours(list(study["models"]))
    marks = dict(zip(spread["recipe"].unique(maintain_order=True), "os^Dv<>P*X", strict=False))
    for (model, recipe), part in spread.sort("epoch").group_by("model", "recipe", maintain_order=True):
        label = f"{style.labels(study, 'models', [model])[0]}, {study['recipes'][recipe]['label']}, n = {part['runs'].max()}"
        axis.plot(part["epoch"], part["spread"], "-" + marks.get(recipe, "."), color=palette[model], markersize=3, label=label)
    axis.set_ylim(0, axis.get_ylim()[1] * (1.1 + 0.08 * len(axis.lines)))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("epoch")
    axis.set_ylabel("divergence, bits per byte")
    axis.set_title("spread of a base model's checkpoints: divergence\nfrom their centre, mean over training sets")
    axis.legend(loc="upper left", borderaxespad=0.2, labelspacing=0.3)
