"""The paper's figures twice: from the published scores and from a study's own results, by the same functions, with the same axes and colours.

Figures of what was measured beside scores exist for a study only; the authors released scores alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from sft_atlas.analyse import analyse_layers, select
from sft_atlas.published import columns, figures
from sft_atlas.published.frames import Data
from sft_atlas.report.figures import FIGURES as OF_STUDY
from sft_atlas.report.figures import dimension, labels, layer_change, layer_gain, model_map, perplexity_gain, style
from sft_atlas.report.figures import predictors as predictors_figure
from sft_atlas.reproduce.own_results import Own, predictors
from sft_atlas.study import paper

OF_SCORES = {  # name -> caption; :func:`sft_atlas.published.figures.of_scores` draws them
    "gains": "Gain over the base model, per base model, training set and benchmark. Grey: not significant.",
    "similarity": "Correlation of gains between training sets, benchmarks and base models.",
    "similarity_base_free": "The same of base-free effects: scores minus the mean over training sets.",
    "components": "Principal components of training sets' effects.",
    "consistency": "Agreement of base models on each training set's effect on each benchmark.",
    "variance": "Variance of scores by base model, training set, method and their interactions.",
    "lora_full": "LoRA compared with full fine-tuning.",
    "epochs": "Change over the epochs.",
    "size": "Largest minus smallest number of rows, per benchmark.",
    "leave_one_out": "Effect of leaving one training set out of the merged set.",
    "cross_lingual": "The same examination in two languages.",
}
MEASURED = {
    "perplexity_gain": perplexity_gain,
    "predictors": predictors_figure,
    "layer_change": layer_change,
    "layer_gain": layer_gain,
    "dimension": dimension,
    "model_map": model_map,
}


@dataclass(frozen=True)
class Pair:
    """A figure of the page: file names beside it; ``published`` is empty where the published scores cannot show it."""

    name: str
    caption: str
    own: str
    published: str = ""


def draw(published: Data, tables: dict[str, pl.DataFrame], own: Own, own_tables: dict[str, pl.DataFrame], folder: Path) -> list[Pair]:
    """Draw every figure into ``folder`` as PDF and PNG. ``tables`` and ``own_tables`` are those of :func:`analyse_published.tables`."""
    folder.mkdir(parents=True, exist_ok=True)
    theirs, ours = together(published, own.data)
    pairs = []
    for name, caption in OF_SCORES.items():
        first = style.drawn(name, _maker(name, theirs, tables, "repaired published scores"))
        second = style.drawn(name, _maker(name, ours, own_tables, f"study {own.study['study']}"))
        style.share_axes(first, second)
        for side, figure in (("published", first), ("own", second)):
            style.save(figure, folder / f"{side}-{name}.pdf", folder / f"{side}-{name}.png")
        pairs.append(Pair(name, caption, f"own-{name}.png", f"published-{name}.png"))
    study = labels.drawable(own.study)
    of_study = own.tables | {"predictors": predictors(own)}
    of_study["layer_curves"], of_study["layer_peaks"] = analyse_layers.curves(own.tables, own.study)
    for name, module in MEASURED.items():
        style.draw_and_save(
            name, lambda module=module: module.draw(of_study, study), folder / f"own-{name}.pdf", folder / f"own-{name}.png"
        )
        pairs.append(Pair(name, OF_STUDY[name].caption, f"own-{name}.png"))
    return pairs


def _maker(name: str, data: Data, tables: dict[str, pl.DataFrame], note: str) -> Callable[[], Figure]:
    def make() -> Figure:
        figure = figures.of_scores(name, data, tables)
        style.footnote(figure, "; ".join([note, *figures.NOTES.get(name, ())]))
        return figure

    return make


def together(published: Data, own: Data) -> tuple[Data, Data]:
    """Both data with the base models, single training sets and benchmarks of both in one order, by which figures choose colours."""
    union = {}
    for kind, known in (("models", paper.KEYS), ("datasets", paper.DATASETS), ("benchmarks", columns.TASKS)):
        entries = dict(published.study[kind]) | dict(own.study[kind]) | dict(published.study[kind])
        if kind == "datasets":
            single = {*select.kinds(published.study, "single"), *select.kinds(own.study, "single")}
            entries = {name: entry for name, entry in entries.items() if name in single}
        union[kind] = {name: entries[name] for name in columns.in_order(entries, known)}
    sides = []
    for data in (published, own):
        merged = {name: entry for name, entry in data.study["datasets"].items() if name not in union["datasets"]}
        study = {**data.study, **union, "datasets": union["datasets"] | merged}
        sides.append(replace(data, study=labels.drawable(study)))
    return sides[0], sides[1]
