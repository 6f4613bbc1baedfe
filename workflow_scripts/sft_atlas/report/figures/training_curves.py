"""Loss by epoch: the mean over the steps of training, and on held-out samples."""

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sft_atlas.report.figures import style
from sft_atlas.stats.wording import count

RUN = ("model", "dataset", "recipe", "seed")


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """A panel per base model and method; a colour per training set (not those that leave one member out), averaged over recipes and seeds."""
    curves = by_epoch(style.known(tables["history"], "loss")).filter(
        ~pl.col("dataset").is_in([name for name, entry in study["datasets"].items() if entry["without"]])
    )
    if curves.is_empty():
        return style.absent("Training curves", "runs with a history")
    models, datasets = style.present(study, "models", curves["model"]), list(dict.fromkeys(curves["dataset"]))
    methods = [method for method in ("full", "lora") if method in set(curves["method"])]
    places = [(method, model) for method in methods for model in models if curves.filter(method=method, model=model).height]
    palette, by_set = style.dataset_colours(study, datasets)
    across = style.panels_across(len(places), 4)
    rows = -(-len(places) // across)
    canvas, axes, panels = style.grid(style.PAGE, 0.9 + 1.5 * rows, places, across)
    held_out = curves["validation_loss"].is_not_null().any()
    for axis, (method, model) in panels:
        part = curves.filter(method=method, model=model)
        for (dataset,), lines in part.group_by("dataset", maintain_order=True):
            line = lines.group_by("epoch").agg(pl.col("loss", "validation_loss").mean()).sort("epoch")
            axis.plot(line["epoch"], line["loss"], color=palette[dataset], marker="." if len(line) == 1 else "", linewidth=0.9)
            measured = line.drop_nulls("validation_loss")
            if measured.height:
                axis.plot(measured["epoch"], measured["validation_loss"], "--", color=palette[dataset], marker=".", markersize=3)
                lowest = measured.sort("validation_loss").row(0, named=True)
                axis.plot(lowest["epoch"], lowest["validation_loss"], "x", color=palette[dataset], markersize=4)
        label = style.labels(study, "models", [model])[0]
        axis.set_title(f"{label}, {style.METHODS[method]}\nn = {count(part.select(RUN).unique().height, 'runs')}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[:, 0]:
        axis.set_ylabel("loss, nats per token")
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    handles = [style.handle("training (mean over steps)", style.GREY, "", "-")]
    handles += [style.handle("held out (end of epoch)", style.GREY, ".", "--")] if held_out else []
    style.legend_below(canvas, [*handles, *by_set])
    return canvas


def by_epoch(history: pl.DataFrame) -> pl.DataFrame:
    """One row per run and epoch: keys, method, epoch from 1, loss (mean over the steps of the epoch), validation_loss (null where none)."""
    number = (pl.col("epoch") - 1e-6).floor().cast(pl.Int64) + 1
    measures = [pl.col("loss").mean(), pl.col("validation_loss").drop_nulls().last()]
    return history.group_by(*RUN, "method", number.alias("epoch"), maintain_order=True).agg(measures)
