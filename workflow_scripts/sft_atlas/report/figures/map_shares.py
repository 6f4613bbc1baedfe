"""Factors behind distances between checkpoints: shares of the squared distance."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, p_value

TERMS = {"model": "base model", "dataset": "training set", "method": "method", "run": "run", "epoch": "epoch", "residual": "residual"}
DESIGNS = {"last": "last checkpoints, single sets", "epochs": "runs that keep every epoch"}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Bars of the shares; divergences by epoch are in the figure ``model_map``."""
    shares = tables["map_shares"]
    if style.known(shares, "share").is_empty():
        return style.absent(
            "Factors behind distances", "runs of two or more base models or training sets with `measure_representation: true`"
        )
    canvas = style.figure(style.PAGE * 0.65, 1.1 + 0.16 * (shares.height + 1.4 * shares["design"].n_unique()))
    share_panel(canvas.subplots(), shares)
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
            axis.barh(
                place, 100 * share, height=0.7, color=style.SERIES_COLOURS[0] if sure else style.PALE, edgecolor=style.GREY, linewidth=0.4
            )
            text = f"{100 * share:.1f} %" + (f", {p_value(row['p'])}" if tested else "")
            axis.text(100 * share + 1, place, text, fontsize=style.SMALL, va="center")
        place -= 1.4
    axis.set_yticks(ticks, names)
    axis.set_ylim(place + 0.6, 0.7)
    axis.set_xlim(0, 118)
    axis.set_xticks(range(0, 101, 25))
    axis.set_xlabel("share of the squared distance, %")
    axis.set_title("PERMANOVA, each term given the others;\ndark: p < 0.05")
