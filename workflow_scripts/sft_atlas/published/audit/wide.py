"""Scores as a matrix of checkpoints x tasks, and the findings that detectors report about it."""

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

    Under the policy ``repaired``, ``cells`` (row, task) are set to null and ``replaced`` (row, task, value) are recomputed.
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
    """``values[i, j]`` is the score of checkpoint ``keys[i]`` on ``tasks[j]`` in the unit of the CSV, NaN if missing."""

    keys: pl.DataFrame
    tasks: list[str]
    values: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """Row numbers, from the first column of the CSV."""
        return self.keys["row"].to_numpy()

    def of(self, task: str) -> np.ndarray:
        """Scores of a task, one per checkpoint."""
        return self.values[:, self.tasks.index(task)]

    def at(self, index: int) -> dict[str, object]:
        """The keys of a checkpoint."""
        return self.keys.row(index, named=True)


def widen(scores: pl.DataFrame) -> Wide:
    """The matrix of tidy scores: checkpoints by row number, tasks in the order of ``columns.COLUMNS``."""
    known = list(columns.TASKS)
    tasks = sorted(set(scores["task"]), key=lambda task: (known.index(task) if task in known else len(known), task))
    keys = ["row", *RUN, "epoch"]
    frame = scores.pivot("task", index=keys, values="score").sort("row")
    return Wide(frame.select(keys), tasks, frame.select(tasks).to_numpy())


def of_cells(
    wide: Wide,
    key: str,
    title: str,
    severity: str,
    cells: list[tuple[int, str]],
    evidence: str,
    action: str,
    details=(),
    null: bool = False,
) -> Finding:
    """A finding about single (row, task) cells; ``null``: they are set to null."""
    tasks = {task for _, task in cells}
    rows = sorted({row for row, _ in cells})
    named = [task for task in wide.tasks if task in tasks]
    return Finding(key, title, severity, rows, named, evidence, action, cells if null else [], details=list(details))


def name(keys: dict[str, object]) -> str:
    """A checkpoint in words: model, training set, method, rows, schedule, epoch."""
    if keys["method"] == "base":
        return f"base model {keys['model']}"
    return f"{keys['model']}, {keys['dataset']}, {keys['method']}, {keys['rows']:,} rows, {keys['schedule']}, epoch {keys['epoch']}"


def kind(keys: dict[str, object]) -> tuple[str, int, str, int]:
    """What runs on different training sets share: method, rows, schedule, epoch."""
    return keys["method"], keys["rows"], keys["schedule"] or "", keys["epoch"]


def neighbours(wide: Wide) -> tuple[np.ndarray, np.ndarray]:
    """Index of each checkpoint's previous and next epoch in the same run, -1 if there is none (as for base models)."""
    place = {(*[row[key] for key in RUN], row["epoch"]): i for i, row in enumerate(wide.keys.iter_rows(named=True))}
    pairs = [
        [place.get((*[row[key] for key in RUN], row["epoch"] + step), -1) if row["epoch"] else -1 for step in (-1, 1)]
        for row in wide.keys.iter_rows(named=True)
    ]
    before, after = np.array(pairs, dtype=int).reshape(-1, 2).T
    return before, after
