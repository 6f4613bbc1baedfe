"""Scores that say little or nothing: missing, at a floor, below chance, coarsely rounded, or in the wrong unit."""

from collections import Counter

import numpy as np
import polars as pl

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import AuditFinding, Wide, neighbours, of_cells
from sft_atlas.stats.wording import count
from sft_atlas.study import paper
from sft_atlas.study.runs import WITHOUT

FLOOR_SHARE = 0.02  # of a column's checkpoints at its lowest value
BELOW = 3.0  # standard errors below chance
LEFT_MISSING = "left missing"
PATTERNS = 12  # sets of missing columns with a finding of their own


def detect_gaps(wide: Wide) -> list[AuditFinding]:
    """Gaps in the grids of models, training sets and epochs that share a recipe."""
    keys = wide.keys.filter(pl.col("epoch") > 0).with_columns(
        pl.col("dataset").str.starts_with(WITHOUT).alias("without"), (pl.col("dataset") == "all").alias("all")
    )
    gaps = []
    for (method, rows, schedule, *_), part in keys.group_by("method", "rows", "schedule", "without", "all", maintain_order=True):
        models, sets, epochs = (sorted(part[key].unique()) for key in ("model", "dataset", "epoch"))
        present = set(part.select("model", "dataset", "epoch").iter_rows())
        recipe = f"{method}, {rows:,} rows, {schedule}"
        gaps += [(recipe, cell) for cell in ((m, d, e) for m in models for d in sets for e in epochs) if cell not in present]
    if not gaps:
        return []
    lines = [f"{recipe}: {model}, {dataset}, epoch {epoch}" for recipe, (model, dataset, epoch) in sorted(gaps)]
    text = f"{count(len(gaps), 'checkpoints')} {'are' if len(gaps) > 1 else 'is'} missing from otherwise complete grids of models, training sets and epochs."
    return [AuditFinding("grid", "Gaps in the grid", "medium", [], [], text, action=f"{LEFT_MISSING}, not imputed", details=lines)]


def detect_unreleased(wide: Wide) -> list[AuditFinding]:
    """Models and checkpoints of the paper that the table lacks; empty unless it holds at least six of the paper's models."""
    known, present = set(paper.KEYS), set(wide.keys["model"])
    if len(present & known) < 6:
        return []
    tuned = wide.keys.filter(pl.col("epoch") > 0)
    absent, without = sorted(known - present), tuned.filter(pl.col("dataset").str.starts_with(WITHOUT))["model"].n_unique()
    lines = [f"{model}: no row, not even for the base model" for model in absent]
    lines += [f"{model}: {number} checkpoints" for model, number in sorted(Counter(tuned["model"].to_list()).items())]
    text = (
        f"The paper trained 1,070 checkpoints of 12 base models and reports 1,059. The table has {tuned.height:,} of {len(present)} base models "
        f"and no row of {', '.join(absent) or 'none'}. It has leave-one-out runs of {count(without, 'base models')}; the paper's appendix D says "
        "three."
    )
    title = "Fewer models and checkpoints than the paper reports"
    return [AuditFinding("paper-grid", title, "medium", [], [], text, action=LEFT_MISSING, details=lines)]


def detect_missing_columns(wide: Wide) -> list[AuditFinding]:
    """Sets of columns that the same rows lack."""
    analysed = [j for j, task in enumerate(wide.tasks) if columns.task(task).analysed]
    patterns: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(~np.isfinite(wide.values[:, analysed])):
        if row.any():
            patterns.setdefault(tuple(np.flatnonzero(row).tolist()), []).append(i)
    findings = []
    for number, (pattern, members) in enumerate(sorted(patterns.items(), key=lambda item: -len(item[1])), 1):
        tasks, rows = [wide.tasks[analysed[j]] for j in pattern], [int(wide.row[i]) for i in members]
        groups = Counter(f"{keys['model']}, {keys['method']}" for keys in map(wide.at, members))
        text = f"{count(len(rows), 'rows')} {'lack' if len(rows) > 1 else 'lacks'} {count(len(tasks), 'columns')}: {'; '.join(f'{g} ({n})' for g, n in groups.most_common(3))}."
        likely = "Columns that are missing together were measured in one batch." if len(tasks) > 3 else ""
        severity, key = "medium" if len(rows) > 9 else "low", f"missing-{number}"
        findings.append(AuditFinding(key, "Columns missing together", severity, rows, tasks, text, likely, action=LEFT_MISSING))
    if len(findings) <= PATTERNS:
        return findings
    rest = findings[PATTERNS:]
    rows, missing = sorted({row for f in rest for row in f.rows}), sum(len(f.rows) * len(f.tasks) for f in rest)
    tasks = [task for task in wide.tasks if any(task in f.tasks for f in rest)]
    text = (
        f"{count(missing, 'other scores')} of {count(len(rows), 'rows')} are missing, in {count(len(rest), 'different sets')} of columns."
    )
    title = "Scores missing here and there"
    return [*findings[:PATTERNS], AuditFinding("missing-rest", title, "low", rows, tasks, text, action=LEFT_MISSING)]


def detect_floors(wide: Wide) -> list[AuditFinding]:
    """Columns where many checkpoints share the lowest value or are coarsely rounded; such scores cannot be compared."""
    findings = []
    for j, task in enumerate(wide.tasks):
        entry, column = columns.task(task), wide.values[:, j]
        known = column[np.isfinite(column)]
        if not entry.analysed or len(known) < 30:
            continue
        values, counts = np.unique(known, return_counts=True)
        lowest = values[0]
        if counts[0] >= FLOOR_SHARE * len(known) and counts[0] >= 10 * max(1, np.median(counts)):
            rows = np.flatnonzero(column == lowest)
            models = Counter(wide.keys["model"][int(i)] for i in rows)
            base = {k["model"]: column[i] for i, k in enumerate(wide.keys.iter_rows(named=True)) if k["method"] == "base"}
            good = {m: base[m] for m, _ in models.most_common(3) if np.isfinite(base.get(m, np.nan)) and base[m] > 10 * max(lowest, 0.5)}
            text = (
                f"{len(rows):,} of {len(known):,} values are exactly {lowest:g}, the lowest value of the column: "
                f"{', '.join(f'{model} {number}' for model, number in models.most_common(4))}."
            )
            likely = unknown = ""
            if good:
                scores = ", ".join(f"{model} {score:g}" for model, score in good.items())
                likely = f"Those of these models lost what the base model can do under the same prompt: {scores}."
                unknown = "Whether no answer was found in the output, the same answer was given to every item, or the answers were wrong."
            severity = "medium" if good or len(rows) > 0.1 * len(known) else "low"
            rows, key = [int(wide.row[i]) for i in rows], f"floor-{task}"
            findings.append(AuditFinding(key, "Floor effect", severity, rows, [task], text, likely, unknown))
        if 1 < len(values) < 25:
            step = float(np.diff(values).min())
            if not step > 1.5 * _item(entry):
                continue
            text = f"{len(values)} distinct values in {len(known):,} rows: rounded to {step:g}, while one item is worth {_item(entry):.2g}."
            action = "kept; differences below the rounding step are noise"
            findings.append(AuditFinding(f"coarse-{task}", "Rounded more coarsely than one item", "low", [], [task], text, action=action))
    return findings


def detect_empty(wide: Wide) -> list[AuditFinding]:
    """Columns without scores in nine tenths of the rows."""
    findings = []
    for task in wide.tasks:
        known = wide.of(task)[np.isfinite(wide.of(task))]
        if len(known) < 0.1 * len(wide.keys):
            text = f"{len(known)} values in {len(wide.keys):,} rows, {int((known == 0).sum())} of them exactly 0."
            action = "kept" if columns.task(task).analysed else "not analysed"
            findings.append(AuditFinding(f"empty-{task}", "Nearly empty column", "low", [], [task], text, action=action))
    return findings


def detect_units(scores: pl.DataFrame) -> list[AuditFinding]:
    """Columns of the CSV in another unit than the benchmark's own, which were converted."""
    other = scores.filter(pl.col("unit") != pl.col("scale"))
    if other.is_empty():
        return []
    words = [f"{task}: {unit}" for task, unit in other.select("task", "unit").unique(maintain_order=True).iter_rows()]
    tasks = other["task"].unique(maintain_order=True).to_list()
    likely = f"{count(len(tasks), 'columns')} of the CSV are in another unit than their benchmark: {', '.join(words)}."
    if len(tasks) == 1:
        likely = likely.replace("column of the CSV are in another unit than their", "column of the CSV is in another unit than its")
    action = "converted before anything else, so that no policy has them as they were"
    return [AuditFinding("units", "Columns in another unit", "medium", [], tasks, likely=likely, action=action)]


def _item(entry: columns.Column) -> float:
    """What one item adds to the score, in the column's unit; NaN for an unknown number of items."""
    unit = 100.0 if entry.scale == columns.PERCENT else 1.0
    return unit / entry.items if entry.items else np.nan


def detect_below_chance(wide: Wide) -> list[AuditFinding]:
    """Multiple-choice scores below random guessing.

    Those of base models are set to null where they are also below what one constant answer earns: then answers are missing, and a gain
    over such a score measures that a format was learned. A score in between may be that of a model that always gives the same answer.
    """
    missing, lines, between = [], [], []
    is_base = wide.keys["method"].to_numpy() == "base"
    tuned: dict[str, tuple[int, int]] = {}
    for task in wide.tasks:
        entry = columns.task(task)
        if entry.chance is None or entry.constant is None or not entry.items or not entry.analysed:
            continue
        column = wide.of(task)
        with np.errstate(invalid="ignore"):
            below, low = (
                column < level - BELOW * 100 * np.sqrt(level / 100 * (1 - level / 100) / entry.items)
                for level in (entry.chance, entry.constant)
            )
        tuned[task] = int((below & ~is_base).sum()), int((low & ~is_base).sum())
        for i in np.flatnonzero(below & is_base):
            line = f"row {wide.row[i]}, {wide.keys['model'][int(i)]}, {task}: {column[i]:.2f} (chance {entry.chance:g}, constant answer at least {entry.constant:g})"
            if low[i]:
                missing.append((int(wide.row[i]), task))
                lines.append(line)
            else:
                between.append(((int(wide.row[i]), task), line))
    findings = []
    errors = f"more than {BELOW:g} standard errors"
    if missing:
        worst = [line for line in lines if "boolq-5" in line] or lines
        proven = (
            f"{count(len(missing), 'scores')} of base models on multiple-choice benchmarks are {errors} below what giving the same answer to "
            f"every item earns, for example {'; '.join(worst[:3])}."
        )
        likely = "Answers are missing or were not found in the output, so gains over these scores are gains in format."
        unknown = "Whether the model gave no answer or the evaluation did not find it."
        title, grounds = "Base models that fail on format", {"proven": proven, "likely": likely, "unknown": unknown}
        findings.append(of_cells(wide, "base-format", title, "high", missing, "set to null", lines, null=True, **grounds))
    if between:
        proven = f"{count(len(between), 'scores')} of base models are {errors} below chance, but not below what giving the same answer to every item earns."
        unknown = "Whether answers are missing: a model that always gives the same answer scores so too."
        title, cells, shown = "Base models below chance", [cell for cell, _ in between], [line for _, line in between]
        findings.append(of_cells(wide, "base-chance", title, "medium", cells, "kept", shown, proven=proven, unknown=unknown))
    many = {task: numbers for task, numbers in tuned.items() if numbers[0]}
    if many:
        numbers = ", ".join(f"{task} {below} ({low})" for task, (below, low) in many.items())
        text = f"Tuned checkpoints {errors} below chance and, in brackets, below a constant answer: {numbers}."
        unknown = "Whether answers are missing, always the same, or wrong."
        action, title = "kept: what checkpoints earn under the same prompt is what is compared", "Tuned checkpoints below chance"
        findings.append(AuditFinding("tuned-format", title, "medium", [], list(many), text, unknown=unknown, action=action))
    return findings


def detect_scales(wide: Wide) -> list[AuditFinding]:
    """Units of the columns, and percentages below 1 where the neighbouring epochs are about 100 times as high."""
    units: dict[str, list[str]] = {}
    for task in wide.tasks:
        units.setdefault(columns.task(task).scale, []).append(task)
    before, after = neighbours(wide)
    suspects = []
    for task in units.get(columns.PERCENT, []):
        column = wide.of(task)
        sides = np.stack([np.where(n >= 0, column[n], np.nan) for n in (before, after)])
        near = np.nansum(sides, axis=0) / np.maximum(np.isfinite(sides).sum(axis=0), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = 100 * column / near
        odd = (column < 1) & (column > 0) & (near > 20) & (ratio > 0.8) & (ratio < 1.25)
        suspects += [(int(wide.row[i]), task) for i in np.flatnonzero(odd)]
    findings = []
    if len(units) > 1:
        text = "; ".join(f"{scale}: {count(len(tasks), 'columns')}" for scale, tasks in sorted(units.items())) + "."
        other = [task for scale in units for task in units[scale] if scale != columns.PERCENT and columns.task(task).analysed]
        action = "column `scale` names the unit; analyses use percentage points of each scale's range"
        findings.append(AuditFinding("scales", "Columns on different scales", "low", [], other, text, action=action))
    if suspects:
        text = f"{count(len(suspects), 'percentages')} below 1 while the neighbouring epochs are about 100 times as high."
        grounds = {"proven": text, "likely": "These are fractions."}
        findings.append(of_cells(wide, "fractions", "Fractions among percentages", "high", suspects, "set to null", null=True, **grounds))
    return findings
