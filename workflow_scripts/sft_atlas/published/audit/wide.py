"""A tidy table of scores as a matrix of checkpoints x tasks, and what the detectors report about it."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from sft_atlas.published import columns
from sft_atlas.published.tidy_published import RUN

SEVERITIES = ("high", "medium", "low", "note")
REPAIRS = {"row": pl.Int64, "task": pl.String, "value": pl.Float64, "finding": pl.String}


@dataclass(frozen=True)
class Finding:
    """Something about the data that a reader of results must know.

    ``cells`` are (row, task) pairs that are set to null under the policy ``repaired``; ``replaced`` are (row, task, value) triples.
    """

    key: str
    title: str
    severity: str
    rows: list[int]
    tasks: list[str]
    evidence: str
    action: str = "kept"
    cells: list[tuple[int, str]] = field(default_factory=list)
    replaced: list[tuple[int, str, float]] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wide:
    """``values[i, j]`` is the score of checkpoint ``keys[i]`` on ``tasks[j]`` in the file's unit, NaN where there is none."""

    keys: pl.DataFrame
    tasks: list[str]
    values: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """The file's row numbers."""
        return self.keys["row"].to_numpy()

    def of(self, task: str) -> np.ndarray:
        """The column of a task."""
        return self.values[:, self.tasks.index(task)]

    def at(self, index: int) -> dict[str, object]:
        """The keys of a checkpoint."""
        return self.keys.row(index, named=True)


def widen(scores: pl.DataFrame) -> Wide:
    """The matrix of a tidy frame: rows in the order of the file's first column, tasks in the order of the catalogue."""
    known = list(columns.TASKS)
    tasks = sorted(set(scores["task"]), key=lambda task: (known.index(task) if task in known else len(known), task))
    keys = ["row", *RUN, "epoch"]
    frame = scores.pivot("task", index=keys, values="score").sort("row")
    return Wide(frame.select(keys), tasks, frame.select(tasks).to_numpy())


def name(keys: dict[str, object]) -> str:
    """A checkpoint in words: model, training set, method, rows, schedule, epoch."""
    if keys["method"] == "base":
        return f"{keys['model']} (base)"
    return f"{keys['model']}, {keys['dataset']}, {keys['method']}, {keys['rows']:,} rows, {keys['schedule']}, epoch {keys['epoch']}"


def kind(keys: dict[str, object]) -> tuple[str, int, str, int]:
    """What checkpoints of different training sets have in common: method, rows, schedule, epoch."""
    return keys["method"], keys["rows"], keys["schedule"] or "", keys["epoch"]


def neighbours(wide: Wide) -> tuple[np.ndarray, np.ndarray]:
    """Index of each checkpoint's previous and next epoch in the same run, -1 where there is none."""
    place = {(*[row[key] for key in RUN], row["epoch"]): i for i, row in enumerate(wide.keys.iter_rows(named=True))}
    found = [
        [place.get((*[row[key] for key in RUN], row["epoch"] + step), -1) if row["epoch"] else -1 for step in (-1, 1)]
        for row in wide.keys.iter_rows(named=True)
    ]
    before, after = np.array(found, dtype=int).reshape(-1, 2).T
    # epoch 0 is the base model, whose keys differ, so it is never a neighbour
    return before, after
