"""Which files of a study's result tree make up each of its tables, and which keys must stand inside each file.

Standard library only: a workflow may import this while it is being parsed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.runs import Checkpoint

TABLES = ("runs", "history", "scores", "gains", "perplexity", "properties", "layers", "dimension", "likelihood")  # by collect.py
PREDICTED = ("predictors",)  # by analyse_predictors.py
LAYERED = ("layer_curves", "layer_peaks")  # by analyse_layers.py
MAPPED = ("map_shares", "map_effects", "map_spread")  # by analyse_map.py
ANALYSED = (*PREDICTED, *LAYERED, *MAPPED)

# what the findings are made of
SUMMARISED = ("runs", "scores", "gains", "perplexity", "layers", "dimension", "likelihood", *ANALYSED)


@dataclass(frozen=True)
class Source:
    """A file and the keys that its content must carry, such as ``{"model": "qwen2.5-7b", "epoch": 3}``."""

    path: Path
    keys: dict[str, str | int]


def checkpoints(study: dict) -> list[Checkpoint]:
    """Every checkpoint of the study: base models first, which are always represented."""
    bases = [Checkpoint.of_base(model) for model in study["models"]]
    tuned = [
        Checkpoint(run["model"], run["dataset"], run["recipe"], epoch, run.get("represented", False))
        for run in study["runs"]
        for epoch in run["keep"]
    ]
    return bases + tuned


def sources(study: dict, table: str, root: Path) -> list[Source]:
    """The files that ``table`` is made of; ``root`` is the study's result folder.

    ``gains`` reads samples, ``scores`` reads scores, each per checkpoint and suite; ``perplexity`` has a file for every base
    model and unmerged training set. Raises KeyError on an unknown table.
    """
    return list(_SOURCES[table](study, Path(root)))


def _per_run(name: str):
    def find(study: dict, root: Path) -> Iterator[Source]:
        for run in study["runs"]:
            keys = {key: run[key] for key in ("model", "dataset", "recipe")}
            yield Source(root / "runs/{model}/{dataset}/{recipe}".format(**keys) / name, keys)

    return find


def _per_suite(kind: str):
    def find(study: dict, root: Path) -> Iterator[Source]:
        for checkpoint in checkpoints(study):
            for suite in study["suites"]:
                yield Source(checkpoint.file(root, f"{kind}/{suite}.parquet"), checkpoint.keys(suite=suite))

    return find


def _per_checkpoint(name: str, tuned: bool, represented: bool):
    def find(study: dict, root: Path) -> Iterator[Source]:
        for checkpoint in checkpoints(study):
            if (tuned and checkpoint.epoch == 0) or (represented and not checkpoint.represented):
                continue
            yield Source(checkpoint.file(root, name), checkpoint.keys())

    return find


def _perplexity(study: dict, root: Path) -> Iterator[Source]:
    unmerged = [name for name, entry in study["datasets"].items() if not entry["merged"]]
    for model in study["models"]:
        for dataset in unmerged:
            yield Source(root / "perplexity" / model / f"{dataset}.parquet", {"model": model, "dataset": dataset})


def _properties(study: dict, root: Path) -> Iterator[Source]:
    for name, entry in study["datasets"].items():
        if not entry["merged"]:
            rows = entry["smallest_rows"]
            yield Source(root / "data" / name / str(rows) / "properties.parquet", {"dataset": name, "rows": rows})


_SOURCES = {
    "runs": _per_run("train.json"),
    "history": _per_run("history.parquet"),
    "scores": _per_suite("scores"),
    "gains": _per_suite("samples"),
    "perplexity": _perplexity,
    "properties": _properties,
    "layers": _per_checkpoint("layers.parquet", tuned=True, represented=False),
    "dimension": _per_checkpoint("dimension.parquet", tuned=False, represented=True),
    "likelihood": _per_checkpoint("likelihood.parquet", tuned=False, represented=True),
}
