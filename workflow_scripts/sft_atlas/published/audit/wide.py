"""Scores as a matrix of checkpoints x tasks, and the findings that detectors report about it."""

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from sft_atlas.published import columns
from sft_atlas.published.tidy_published import RUN

SEVERITIES = ("high", "medium", "low", "note")
REPAIRS = {"row": pl.Int64, "task": pl.String, "value": pl.Float64, "finding": pl.String}


@dataclass(frozen=True)
class AuditFinding:
    """Something about the data that a reader of results must know.

    ``proven``: what follows from the numbers alone; ``likely``: what a test supports; ``unknown``: what the CSV leaves open. Under the
    policy ``repaired``, ``cells`` (row, task) are set to null and ``replaced`` (row, task, value) are recomputed, on proven or likely
    grounds only.
    """

    key: str
    title: str
    severity: str
    rows: list[int]
    tasks: list[str]
    proven: str = ""
    likely: str = ""
    unknown: str = ""
    action: str = "kept"
    cells: list[tuple[int, str]] = field(default_factory=list)
    replaced: list[tuple[int, str, float]] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.cells or self.replaced) and not (self.proven or self.likely):
            raise ValueError(f"{self.key} changes scores on no grounds")

    @property
    def evidence(self) -> dict[str, str]:
        """What is known, by how well."""
        return {name: text for name in ("proven", "likely", "unknown") if (text := getattr(self, name))}


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
    tasks = columns.in_order(set(scores["task"]), columns.TASKS)
    keys = ["row", *RUN, "epoch"]
    frame = scores.pivot("task", index=keys, values="score").sort("row")
    return Wide(frame.select(keys), tasks, frame.select(tasks).to_numpy())


def of_cells(
    wide: Wide, key: str, title: str, severity: str, cells: list, action: str, details=(), null: bool = False, **evidence: str
) -> AuditFinding:
    """A finding about single ``cells`` (row, task); ``null``: they are set to null. ``evidence``: proven, likely, unknown."""
    rows, known = sorted({row for row, _ in cells}), {task for _, task in cells}
    tasks = [task for task in wide.tasks if task in known]
    nulled = list(cells) if null else []
    return AuditFinding(key, title, severity, rows, tasks, action=action, cells=nulled, details=list(details), **evidence)


def repairs(findings: list[AuditFinding]) -> pl.DataFrame:
    """One row per score that the policy ``repaired`` changes: row, task, value (null: set to null), finding. Null wins over a value."""
    cells = [(row, task, None, f.key) for f in findings for row, task in f.cells]
    cells += [(row, task, value, f.key) for f in findings for row, task, value in f.replaced]
    frame = pl.DataFrame(cells, schema=REPAIRS, orient="row")
    first_null = frame.sort(pl.col("value").is_not_null(), maintain_order=True)
    return first_null.unique(["row", "task"], keep="first", maintain_order=True).sort("row", "task")


def repaired(wide: Wide, findings: list[AuditFinding]) -> Wide:
    """The matrix after the repairs of ``findings``."""
    values, places = wide.values.copy(), {int(row): i for i, row in enumerate(wide.row)}
    for row, task, value in repairs(findings).select("row", "task", "value").iter_rows():
        values[places[row], wide.tasks.index(task)] = np.nan if value is None else value
    return replace(wide, values=values)


def name(keys: dict[str, object], dataset: bool = True) -> str:
    """A checkpoint in words: model, training set (unless ``dataset`` is false), method, rows, schedule, epoch."""
    if keys["method"] == "base":
        return f"base model {keys['model']}"
    model = f"{keys['model']}, {keys['dataset']}" if dataset else keys["model"]
    return f"{model}, {keys['method']}, {keys['rows']:,} rows, {keys['schedule']}, epoch {keys['epoch']}"


def kind(keys: dict[str, object]) -> tuple[str, int, str, int]:
    """What runs on different training sets share: method, rows, schedule, epoch."""
    return keys["method"], keys["rows"], keys["schedule"] or "", keys["epoch"]


def neighbours(wide: Wide) -> tuple[np.ndarray, np.ndarray]:
    """Index of each checkpoint's previous and next epoch in the same run, -1 if there is none (as for base models)."""
    checkpoints = [(*[keys[key] for key in RUN], keys["epoch"]) for keys in wide.keys.iter_rows(named=True)]
    index = {checkpoint: i for i, checkpoint in enumerate(checkpoints)}
    return tuple(np.array([index.get((*run, epoch + step), -1) if epoch else -1 for *run, epoch in checkpoints], int) for step in (-1, 1))
