"""Implausible single scores, compared with neighbouring epochs, the other method, and the model's other checkpoints."""

import numpy as np
import polars as pl

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import AuditFinding, Wide, name, neighbours, of_cells
from sft_atlas.published.tidy_published import RUN
from sft_atlas.stats.wording import count

SPIKE = 10.0  # robust standard deviations
FEWEST, BEYOND = 20, 4.0  # checkpoints of a model; ranges of its other checkpoints


def detect_spikes(wide: Wide) -> list[AuditFinding]:
    """Scores far from both neighbouring epochs while these agree, in robust standard deviations of the column's steps."""
    before, after = neighbours(wide)
    inner = (before >= 0) & (after >= 0)
    spikes = []
    for j, task in enumerate(wide.tasks):
        if not columns.task(task).analysed:
            continue
        column = wide.values[:, j]
        a, b = np.where(inner, column[before], np.nan), np.where(inner, column[after], np.nan)
        residual, gap = column - (a + b) / 2, np.abs(a - b)
        scale = 1.4826 * np.nanmedian(np.abs(residual)) if np.isfinite(residual).any() else 0
        if not scale > 0:
            continue
        for i in np.flatnonzero((np.abs(residual) > SPIKE * scale) & (gap < np.abs(residual) / 5)):
            line = f"row {wide.row[i]}, {task}: {a[i]:g}, **{column[i]:g}**, {b[i]:g} ({name(wide.at(int(i)))})"
            spikes.append((-abs(residual[i]) / scale, line, (int(wide.row[i]), task)))
    if not spikes:
        return []
    lines = [line for _, line, _ in sorted(spikes)]
    text = (
        f"{len(spikes)} scores lie more than {SPIKE:g} robust standard deviations from the mean of the epochs before and after, although "
        f"these two agree. Largest: {'; '.join(lines[:3])}."
    )
    action = "kept; the noise floor uses medians"
    unknown = "Whether these scores are wrong: a single epoch may really fail on format."
    cells = [cell for *_, cell in spikes]
    return [of_cells(wide, "spikes", "Scores unlike both neighbouring epochs", "low", cells, action, lines, proven=text, unknown=unknown)]


def detect_pair_outliers(wide: Wide) -> list[AuditFinding]:
    """Pairs of full and LoRA runs whose difference is far beyond the column's other differences."""
    tuned = wide.keys.with_row_index("i").filter(pl.col("epoch") > 0)
    keys = [key for key in (*RUN, "epoch") if key != "method"]
    full, lora = (tuned.filter(pl.col("method") == method).select(*keys, pl.col("i").alias(method)) for method in ("full", "lora"))
    pairs = full.join(lora, on=keys)
    outliers = []
    for j, task in enumerate(wide.tasks):
        if not columns.task(task).analysed or pairs.is_empty():
            continue
        difference = wide.values[pairs["lora"].to_numpy(), j] - wide.values[pairs["full"].to_numpy(), j]
        if not np.isfinite(difference).any():
            continue
        centre = np.nanmedian(difference)
        scale = 1.4826 * np.nanmedian(np.abs(difference - centre))
        if scale > 0:
            far = np.flatnonzero(np.abs(difference - centre) > SPIKE * scale)
            outliers += [(-abs(difference[k] - centre) / scale, task, pairs["full"][int(k)], pairs["lora"][int(k)]) for k in far]
    if not outliers:
        return []
    lines = [
        f"rows {wide.row[one]} and {wide.row[two]}, {task}: full {wide.of(task)[one]:g}, LoRA {wide.of(task)[two]:g} ({name(wide.at(one))})"
        for _, task, one, two in sorted(outliers)
    ]
    text = (
        f"{count(len(outliers), 'pairs')} of a full and a LoRA run differ by more than {SPIKE:g} robust standard deviations of the column's "
        f"differences. Largest: {'; '.join(lines[:3])}."
    )
    cells = [(int(wide.row[side]), task) for _, task, *sides in outliers for side in sides]
    unknown = "Which of the two is wrong, or whether either is."
    return [of_cells(wide, "pairs", "Full and LoRA runs that differ widely", "low", cells, "kept", lines, proven=text, unknown=unknown)]


def detect_isolated(wide: Wide) -> list[AuditFinding]:
    """Scores further from the model's other checkpoints than several times the range of these."""
    model, tuned = wide.keys["model"].to_numpy(), wide.keys["epoch"].to_numpy() > 0
    cells, lines = [], []
    for j, task in enumerate(wide.tasks):
        for one in dict.fromkeys(model.tolist()) if columns.task(task).analysed else ():
            index = np.flatnonzero((model == one) & tuned & np.isfinite(wide.values[:, j]))
            if len(index) < FEWEST:
                continue
            order = index[np.argsort(wide.values[index, j])]
            column = wide.values[order, j]
            for end, others, gap in ((-1, column[:-1], column[-1] - column[-2]), (0, column[1:], column[1] - column[0])):
                extent = others[-1] - others[0]
                if extent > 0 and gap > BEYOND * extent:
                    i = int(order[end])
                    cells.append((int(wide.row[i]), task))
                    lines.append(
                        f"row {wide.row[i]}, {task}: {column[end]:g} ({name(wide.at(i))}); the {len(others)} other checkpoints of the model "
                        f"range from {others[0]:g} to {others[-1]:g}"
                    )
    if not cells:
        return []
    text = (
        f"{count(len(cells), 'scores')} further from the model's other checkpoints than {BEYOND:g} times their range: "
        f"{'; '.join(lines[:3])}."
    )
    likely = "No training set or epoch moves a score so far, so this is an error, such as a misplaced decimal point."
    title, grounds = "Score outside its model's range", {"proven": text, "likely": likely, "unknown": "The right score."}
    return [of_cells(wide, "isolated", title, "medium", cells, "set to null", lines, null=True, **grounds)]
