"""Intrinsic dimension of hidden states by depth: base models, and the change after fine-tuning."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import count


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Left the base models, then tuned minus base per method: mean over training sets, band from lowest to highest."""
    base, change = select.dimension_profile(style.known(tables["dimension"], "dimension"), study)
    change = style.known(change, "difference")
    if base.is_empty():
        return style.absent("Intrinsic dimension", "runs of a block with `measure_representation: true`")
    methods = sorted(change["method"].unique().to_list())
    canvas = style.figure(style.PAGE, 2.7)
    axes = canvas.subplots(1, 1 + max(1, len(methods)), squeeze=False)[0]
    base_panel(axes[0], base, study)
    estimator = {"twonn": "TwoNN", "mle": "MLE", "gride": "Gride"}.get(base["estimator"][0], base["estimator"][0])
    how = f"{estimator}, {'last token' if base['pooling'][0] == 'last' else 'mean over tokens'}"
    counts = base.filter(pl.col("dimension").is_not_null())["n"].unique().sort().to_list()
    axes[0].set_title(f"base models ({how}),\nn = {' to '.join(map(str, counts[:: max(1, len(counts) - 1)]))} texts")
    axes[0].set_ylabel("intrinsic dimension")
    if not methods:
        style.explain(axes[1], "fine-tuned minus base", "runs with\n`measure_representation: true` on single training sets")
    for axis, method in zip(axes[1:], methods, strict=False):
        part = change.filter(pl.col("method") == method)
        change_panel(axis, part, study)
        axis.set_title(f"{style.METHODS[method]} minus base,\nn = {count(part.select('model', 'dataset').unique().height, 'runs')}")
        axis.set_ylabel("change of intrinsic dimension" if axis is axes[1] else "")
        axis.sharey(axes[1])
        axis.set_ylim(change["difference"].min() - 0.1, change["difference"].max() + 0.1)
        axis.tick_params(labelleft=axis is axes[1])
    for axis in axes:
        if axis.axison:
            axis.set_xlabel(style.DEPTH)
    style.models_legend(canvas, study, base["model"], line=True)
    return canvas


def base_panel(axis: Axes, base: pl.DataFrame, study: dict) -> None:
    """A line per base model with twice its standard error; ``base`` has model, depth, dimension and stderr."""
    palette = style.colours(list(study["models"]))
    for (model,), part in base.sort("depth").group_by("model", maintain_order=True):
        value, half = part["dimension"], 2 * part["stderr"]
        style.band(axis, part["depth"], value, value - half, value + half, palette[model], 0.15)
    axis.set_ylim(bottom=0)


def change_panel(axis: Axes, change: pl.DataFrame, study: dict) -> None:
    """Mean difference to the base model by depth; ``change`` has model, dataset, depth and difference."""
    palette = style.colours(list(study["models"]))
    value = pl.col("difference")
    for (model,), part in change.sort("depth").group_by("model", maintain_order=True):
        line = part.group_by("depth", maintain_order=True).agg(mean=value.mean(), low=value.min(), high=value.max())
        style.band(axis, line["depth"], line["mean"], line["low"], line["high"], palette[model], 0.1)
    axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
