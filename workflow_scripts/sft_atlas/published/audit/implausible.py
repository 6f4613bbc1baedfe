"""Values that say little or nothing: missing checkpoints and columns, floors, zeros, scores below chance, coarse and mixed units."""

from collections import Counter

import numpy as np
import polars as pl

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import Finding, Wide, neighbours

FLOOR_SHARE = 0.02  # of the checkpoints at one value, in a column with many
BELOW = 3.0  # standard errors below chance


def detect_missing(wide: Wide) -> list[Finding]:
    """Checkpoints that the design holds and the table does not, and blocks of columns that whole recipes lack."""
    return [*_grid(wide), *_paper_grid(wide), *_blocks(wide)]


def _grid(wide: Wide) -> list[Finding]:
    """Holes in the cross products of models and training sets that share a recipe and an epoch."""
    keys = wide.keys.filter(pl.col("epoch") > 0).with_columns(
        pl.col("dataset").str.starts_with(columns.WITHOUT).alias("without"), (pl.col("dataset") == "all").alias("all")
    )
    recipe = ["method", "rows", "schedule", "without", "all"]
    parts = []
    for _, part in keys.group_by(recipe, maintain_order=True):
        models, sets, epochs = (sorted(part[key].unique()) for key in ("model", "dataset", "epoch"))
        have = set(part.select("model", "dataset", "epoch").iter_rows())
        first = part.row(0, named=True)
        holes = [cell for cell in ((m, d, e) for m in models for d in sets for e in epochs) if cell not in have]
        told = f"{first['method']}, {first['rows']:,} rows, {first['schedule']}"
        parts += [(told, hole) for hole in holes]
    if not parts:
        return []
    lines = [f"{told}: {model}, {dataset}, epoch {epoch}" for told, (model, dataset, epoch) in sorted(parts)]
    text = f"{len(parts)} checkpoints are absent from otherwise complete cross products of models, training sets and epochs."
    return [Finding("grid", "Holes in the grid", "medium", [], [], text, "stay missing; nothing is filled in", details=lines)]


def _paper_grid(wide: Wide) -> list[Finding]:
    """What the paper says was trained against what the table has; only for tables of the paper's models."""
    known = {key for key, *_ in columns.MODELS.values()}
    have = set(wide.keys["model"])
    if len(have & known) < 6:
        return []
    tuned = wide.keys.filter(pl.col("epoch") > 0).height
    absent = sorted(known - have)
    labels = ", ".join(absent)
    lines = [f"{model}: no row at all, not even the base model's" for model in absent]
    counts = Counter(wide.keys.filter(pl.col("epoch") > 0)["model"].to_list())
    lines += [f"{model}: {count} checkpoints" for model, count in sorted(counts.items())]
    text = (
        f"The paper trained 1,070 checkpoints of 12 base models and reports 1,059; the table has {tuned} of {len(have)}. Wholly absent: "
        f"{labels or 'none'}. Leave-one-out is there for one base model; the paper's appendix D says three."
    )
    return [
        Finding("paper-grid", "Fewer models and checkpoints than the paper reports", "medium", [], [], text, "stay missing", details=lines)
    ]


def _blocks(wide: Wide) -> list[Finding]:
    """Sets of columns that are missing together in many rows."""
    analysed = [j for j, task in enumerate(wide.tasks) if columns.task(task).analysed]
    patterns: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(~np.isfinite(wide.values[:, analysed])):
        if row.any():
            patterns.setdefault(tuple(np.flatnonzero(row).tolist()), []).append(i)
    found = []
    for pattern, members in sorted(patterns.items(), key=lambda item: -len(item[1])):
        tasks, rows = [wide.tasks[analysed[j]] for j in pattern], [int(wide.row[i]) for i in members]
        who = Counter(f"{k['model']}, {k['method']}" for k in (wide.at(i) for i in members))
        text = f"{len(rows)} rows lack {len(tasks)} columns ({', '.join(tasks)}): {', '.join(f'{w} ({n})' for w, n in who.most_common(3))}."
        if len(tasks) > 3:
            text += " Columns that are missing or copied together were measured in one batch, whatever their names say."
        found.append(
            Finding(
                f"missing-{len(found) + 1}",
                "Columns missing together",
                "medium" if len(rows) > 9 else "low",
                rows,
                tasks,
                text,
                "stay missing",
            )
        )
    return found


def detect_floors(wide: Wide) -> list[Finding]:
    """Values at which many checkpoints stand still, exact zeros among them; the scores are true but say nothing about differences."""
    found = []
    for j, task in enumerate(wide.tasks):
        entry, column = columns.task(task), wide.values[:, j]
        known = column[np.isfinite(column)]
        if not entry.analysed or len(known) < 30:
            continue
        values, counts = np.unique(known, return_counts=True)
        zeros = int((known == 0).sum())
        lowest = values[0]
        if counts[0] >= FLOOR_SHARE * len(known) and counts[0] >= 10 * max(1, np.median(counts)):
            rows = np.flatnonzero(column == lowest)
            who = Counter(wide.keys["model"][int(i)] for i in rows)
            base = {k["model"]: column[i] for i, k in enumerate(wide.keys.iter_rows(named=True)) if k["method"] == "base"}
            high = [
                f"{m} {base[m]:g} as base model"
                for m, _ in who.most_common(3)
                if np.isfinite(base.get(m, np.nan)) and base[m] > 10 * max(lowest, 0.5)
            ]
            text = (
                f"{len(rows)} of {len(known)} values are exactly {lowest:g}, the column's lowest{' (zero)' if zeros else ''}: "
                f"{', '.join(f'{model} {count}' for model, count in who.most_common(4))}."
            )
            if high:
                text += f" {', '.join(high)}: what fails is the format of the answer, not the ability."
            severity = "medium" if high or len(rows) > 0.1 * len(known) else "low"
            found.append(Finding(f"floor-{task}", "Scores at a floor", severity, [int(wide.row[i]) for i in rows], [task], text, "kept"))
        if 1 < len(values) < 25:
            text = f"{len(values)} distinct values in {len(known)} rows: rounded to {np.diff(values).min():g}, while one item is worth {_item(entry):g}."
            found.append(
                Finding(
                    f"coarse-{task}",
                    "Rounded more coarsely than its items",
                    "low",
                    [],
                    [task],
                    text,
                    "kept; differences below the step are noise",
                )
            )
    empty = [t for j, t in enumerate(wide.tasks) if np.isfinite(wide.values[:, j]).mean() < 0.1]
    for task in empty:
        known = wide.of(task)[np.isfinite(wide.of(task))]
        text = f"{len(known)} values in {len(wide.keys)} rows, {int((known == 0).sum())} of them exactly 0."
        found.append(Finding(f"empty-{task}", "A column with next to nothing in it", "low", [], [task], text, "not analysed"))
    return found


def _item(entry: columns.Column) -> float:
    unit = {columns.FRACTION: 1.0, columns.PERCENT: 100.0, columns.JUDGE: 1.0}[entry.scale]
    return unit / entry.items if entry.items else np.nan


def detect_below_chance(wide: Wide) -> list[Finding]:
    """Multiple-choice scores that no guesser would get: the answer was not found in the output. Nulled for base models only, because a
    gain over such a score measures that a format was learnt."""
    found, cells, lines = [], [], []
    is_base = wide.keys["method"].to_numpy() == "base"
    tuned_counts: Counter[str] = Counter()
    for task in wide.tasks:
        entry = columns.task(task)
        if entry.chance is None or not entry.items or not entry.analysed:
            continue
        column = wide.of(task)
        error = 100 * np.sqrt(entry.chance / 100 * (1 - entry.chance / 100) / entry.items)
        low = np.isfinite(column) & (column < entry.chance - BELOW * error)
        tuned_counts[task] = int((low & ~is_base).sum())
        for i in np.flatnonzero(low & is_base):
            cells.append((int(wide.row[i]), task))
            lines.append(f"{wide.row[i]} {wide.keys['model'][int(i)]} {task}: {column[i]:.2f} (chance {entry.chance:g})")
    if cells:
        worst = [line for line in lines if "boolq-5" in line] or lines
        text = (
            f"{len(cells)} scores of base models on multiple-choice benchmarks are more than {BELOW:g} standard errors below chance, such as "
            f"{'; '.join(worst[:4])}. A model that answers at random does better: the output was not parsed. Gains over these scores are gains in format."
        )
        tasks = [task for task in wide.tasks if task in {cell[1] for cell in cells}]
        found.append(
            Finding(
                "base-format",
                "Base models that fail on format",
                "high",
                sorted({r for r, _ in cells}),
                tasks,
                text,
                "nulled",
                cells,
                details=lines,
            )
        )
    many = {task: count for task, count in tuned_counts.items() if count}
    if many:
        text = f"Tuned checkpoints below chance: {', '.join(f'{task} {count}' for task, count in many.items())}."
        found.append(
            Finding("tuned-format", "Tuned models that fail on format", "medium", [], list(many), text, "kept: part of what tuning did")
        )
    return found


def detect_scales(wide: Wide) -> list[Finding]:
    """Units of the columns, and percentages that look like fractions (below 1 where the run's other epochs are about 100 times that)."""
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
        suspects += [
            (int(wide.row[i]), task) for i in np.flatnonzero((column < 1) & (column > 0) & (near > 20) & (ratio > 0.8) & (ratio < 1.25))
        ]
    text = "; ".join(f"{scale}: {len(tasks)} columns" for scale, tasks in sorted(units.items())) + "."
    found = []
    if len(units) > 1:
        small = [task for scale in units for task in units[scale] if scale != columns.PERCENT and columns.task(task).analysed]
        found.append(
            Finding(
                "scales",
                "Columns on different scales",
                "low",
                [],
                small,
                text,
                "made explicit in `scale`; analysed in points of each range",
            )
        )
    if suspects:
        text = f"{len(suspects)} percentages are below 1 where the neighbouring epochs are about 100 times as high: fractions by mistake?"
        found.append(
            Finding(
                "fractions",
                "Fractions among percentages",
                "high",
                [r for r, _ in suspects],
                sorted({t for _, t in suspects}),
                text,
                "nulled",
                suspects,
            )
        )
    return found
