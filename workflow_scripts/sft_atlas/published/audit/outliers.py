"""Scores unlike their neighbours: the epochs before and after, the other method, the model's other checkpoints."""

import numpy as np
import polars as pl

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import Finding, Wide, name, neighbours
from sft_atlas.published.tidy_published import RUN

SPIKE = 10.0  # robust standard deviations
FEWEST, BEYOND = 20, 4.0  # checkpoints of a model, and ranges of all but one of them


def detect_spikes(wide: Wide) -> list[Finding]:
    """Scores far from both neighbouring epochs, which agree with each other; in robust standard deviations of the column's steps."""
    before, after = neighbours(wide)
    inner = (before >= 0) & (after >= 0)
    cells, lines = [], []
    for j, task in enumerate(wide.tasks):
        if not columns.task(task).analysed:
            continue
        column = wide.values[:, j]
        a, b = np.where(inner, column[before], np.nan), np.where(inner, column[after], np.nan)
        residual, gap = column - (a + b) / 2, np.abs(a - b)
        scale = 1.4826 * np.nanmedian(np.abs(residual)) if np.isfinite(residual).any() else 0
        if not scale > 0:
            continue
        wild = np.flatnonzero((np.abs(residual) > SPIKE * scale) & (gap < np.abs(residual) / 5))
        for i in wild:
            cells.append((int(wide.row[i]), task))
            lines.append(
                (-abs(residual[i]) / scale, f"{wide.row[i]} {task}: {a[i]:g}, **{column[i]:g}**, {b[i]:g} ({name(wide.at(int(i)))})")
            )
    if not cells:
        return []
    text = (
        f"{len(cells)} scores lie more than {SPIKE:g} robust standard deviations from the mean of the epochs before and after, which agree with "
        f"each other. Largest: {'; '.join(line for _, line in sorted(lines)[:3])}."
    )
    rows, tasks = sorted({row for row, _ in cells}), [task for task in wide.tasks if task in {cell[1] for cell in cells}]
    action = "kept: one epoch may really fail on format; the noise floor uses medians"
    return [
        Finding(
            "spikes",
            "Scores unlike both neighbouring epochs",
            "low",
            rows,
            tasks,
            text,
            action,
            details=[line for _, line in sorted(lines)],
        )
    ]


def detect_pair_outliers(wide: Wide) -> list[Finding]:
    """Pairs of full and LoRA runs whose difference is far beyond the column's usual one."""
    base = wide.keys.with_row_index("i").filter(pl.col("epoch") > 0)
    keys = [key for key in (*RUN, "epoch") if key != "method"]
    full, lora = (base.filter(pl.col("method") == method).select(*keys, pl.col("i").alias(method)) for method in ("full", "lora"))
    pairs = full.join(lora, on=keys)
    lines = []
    for j, task in enumerate(wide.tasks):
        if not columns.task(task).analysed or pairs.is_empty():
            continue
        difference = wide.values[pairs["lora"].to_numpy(), j] - wide.values[pairs["full"].to_numpy(), j]
        if not np.isfinite(difference).any():
            continue
        centre = np.nanmedian(difference)
        scale = 1.4826 * np.nanmedian(np.abs(difference - centre))
        if scale > 0:
            lines += [
                (-abs(difference[k] - centre) / scale, pairs.row(int(k), named=True), task)
                for k in np.flatnonzero(np.abs(difference - centre) > SPIKE * scale)
            ]
    if not lines:
        return []
    lines.sort(key=lambda line: (line[0], line[2], line[1]["full"]))
    told = [
        f"{wide.row[p['full']]}/{wide.row[p['lora']]} {t}: full {wide.of(t)[p['full']]:g}, LoRA {wide.of(t)[p['lora']]:g} ({name(wide.at(p['full']))})"
        for _, p, t in lines
    ]
    text = f"{len(lines)} pairs differ by more than {SPIKE:g} robust standard deviations of the column's differences. Largest: {'; '.join(told[:3])}."
    rows = sorted({int(wide.row[p[side]]) for _, p, _ in lines for side in ("full", "lora")})
    return [
        Finding(
            "pairs",
            "Full and LoRA runs far apart",
            "low",
            rows,
            [t for t in wide.tasks if t in {line[2] for line in lines}],
            text,
            "kept",
            details=told,
        )
    ]


def detect_isolated(wide: Wide) -> list[Finding]:
    """A score that stands alone: further from the model's other checkpoints than several times their whole range."""
    model, tuned = wide.keys["model"].to_numpy(), wide.keys["epoch"].to_numpy() > 0
    cells, lines = [], []
    for j, task in enumerate(wide.tasks):
        for who in dict.fromkeys(model.tolist()) if columns.task(task).analysed else ():
            index = np.flatnonzero((model == who) & tuned & np.isfinite(wide.values[:, j]))
            if len(index) < FEWEST:
                continue
            order = index[np.argsort(wide.values[index, j])]
            column = wide.values[order, j]
            for end, gap, rest in (
                (-1, column[-1] - column[-2], column[-2] - column[0]),
                (0, column[1] - column[0], column[-1] - column[1]),
            ):
                if rest > 0 and gap > BEYOND * rest:
                    low, high = (column[0], column[-2]) if end else (column[1], column[-1])
                    cells.append((int(wide.row[order[end]]), task))
                    lines.append(
                        f"{wide.row[order[end]]} {task}: {column[end]:g}; the {len(index) - 1} other checkpoints of the model: {low:g} to {high:g} "
                        f"({name(wide.at(int(order[end])))})"
                    )
    if not cells:
        return []
    text = f"{len(cells)} score{'s' if len(cells) > 1 else ''} beyond {BEYOND:g} times the range of all other checkpoints of the model: {'; '.join(lines[:3])}."
    return [
        Finding(
            "isolated",
            "A score out of its model's reach",
            "medium",
            sorted({r for r, _ in cells}),
            sorted({t for _, t in cells}),
            text,
            "nulled: a slip of the decimal point, but of unknown size",
            cells,
            details=lines,
        )
    ]
