"""Perplexity of a training set under the base model and its mean gain, within base models."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_predictors import within_models
from sft_atlas.report.figures import style
from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import count, p_value


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """One panel per text scope: a point per base model and training set, a line of the pooled within-model slope per base model."""
    points = style.known(select.perplexity_points(tables, study), "gain", "log_perplexity")
    if points.is_empty():
        return style.absent("Perplexity and gain", "runs on single training sets and the perplexity of these sets under their base models")
    canvas = style.figure(style.PAGE, 2.9)
    axes = canvas.subplots(1, 2, sharey=True)
    for axis, scope in zip(axes, select.SCOPES, strict=True):
        part = points.filter(pl.col("scope") == scope)
        result = within_models(part, "log_perplexity", study["seed"])
        panel(axis, part, result, study)
        axis.set_title(f"{select.SCOPES[scope]}\n{_correlation(result, part)}")
    axes[0].set_ylabel("mean gain over benchmarks, points")
    style.models_legend(canvas, study, points["model"])
    return canvas


def panel(axis: Axes, points: pl.DataFrame, result: Estimate, study: dict) -> None:
    """Scatter of perplexity (log axis) and mean gain; ``points`` has model, perplexity, log_perplexity and gain."""
    palette = style.colours(list(study["models"]))
    slope = within_slope(points)
    for (model,), part in points.group_by("model", maintain_order=True):
        axis.scatter(part["perplexity"], 100 * part["gain"], s=14, color=palette[model], linewidths=0, alpha=0.85)
        if np.isfinite(slope):
            x = np.array([part["log_perplexity"].min(), part["log_perplexity"].max()])
            y = 100 * (part["gain"].mean() + slope * (x - part["log_perplexity"].mean()))
            axis.plot(np.exp(x), y, color=palette[model], linewidth=0.8, alpha=0.6)
    axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    wide = points["perplexity"].max() / points["perplexity"].min() > 8
    if wide:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_formatter("" if wide else "{x:g}")
    axis.set_xlabel("perplexity under the base model (log axis)")


def within_slope(points: pl.DataFrame) -> float:
    """Least-squares slope of gain on log-perplexity with one intercept per base model; NaN without variation."""
    centred = points.select((pl.col(name) - pl.col(name).mean().over("model")) for name in ("log_perplexity", "gain"))
    x, y = (centred[name].to_numpy() for name in ("log_perplexity", "gain"))
    return float(x @ y / (x @ x)) if x @ x > 1e-12 else np.nan


def _correlation(result: Estimate, points: pl.DataFrame) -> str:
    """The correlation, for the title."""
    size = f"n = {count(points.height, 'points')}, {count(points['model'].n_unique(), 'base models')}"
    if np.isnan(result.effect):
        return f"too few points for a correlation, {size}"
    interval = f"{style.number(result.low)} to {style.number(result.high)}"
    return f"within-model r = {style.number(result.effect)} [{interval}],\n{p_value(result.p)}, {size}"
