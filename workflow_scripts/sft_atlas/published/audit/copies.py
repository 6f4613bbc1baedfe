"""Blocks of columns with identical scores in two checkpoints, and which of the two the scores belong to.

Evidence is measured in decades: a column on which two rows agree adds -log10 of the probability of an equal value, estimated from the
rows with nearby values.
"""

from dataclasses import dataclass

import numpy as np

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import AuditFinding, Wide, kind, name
from sft_atlas.published.tidy_published import RUN
from sft_atlas.stats.estimates import paired_difference
from sft_atlas.stats.wording import count, p_value

RUN_DECADES, RUN_LENGTH = 8.0, 4  # neighbouring equal columns that are not chance, among half a million pairs of checkpoints
SHARED_DECADES = 6.0  # a single column that is equal in every pair of a group
NEAR = 0.105  # points: ten steps of the second decimal on either side
FEWEST_PAIRS = 3
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Group:
    """Pairs of checkpoints of the same two kinds with the same columns in common; ``first`` and ``second`` index the matrix."""

    first: list[int]
    second: list[int]
    tasks: list[int]
    decades: float  # evidence of the weakest pair


def surprise(values: np.ndarray) -> np.ndarray:
    """-log10 of the probability that another checkpoint has the same value, per cell; 0 for missing values."""
    result = np.zeros(values.shape)
    for j, column in enumerate(values.T):
        known = np.isfinite(column)
        if known.sum() < 3:
            continue
        _, inverse, counts = np.unique(column[known], return_inverse=True, return_counts=True)
        ordered = np.sort(column[known])
        near = np.searchsorted(ordered, column[known] + NEAR) - np.searchsorted(ordered, column[known] - NEAR) - 1
        chance = np.maximum(np.maximum(counts[inverse] - 1, 1), near / 21) / (known.sum() - 1)
        result[known, j] = -np.log10(np.minimum(chance, 1))
    return result


def _runs(equal: np.ndarray) -> list[np.ndarray]:
    """Indices of each run of neighbouring equal columns."""
    if not equal.any():
        return []
    indices = np.flatnonzero(equal)
    return np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)


def shared_blocks(wide: Wide) -> list[Group]:
    """Groups of pairs of checkpoints that share a block of columns.

    Columns that one of the rows lacks are skipped, and so are parts of other columns, which are no independent evidence (all categories
    of MT-Bench can be 1 together).
    """
    values = np.where([columns.task(task).analysed for task in wide.tasks], wide.values, np.nan)
    weight = surprise(values)
    total = np.zeros((len(values), len(values)))
    for j in range(values.shape[1]):
        total += np.where(values[:, None, j] == values[None, :, j], weight[:, j, None], 0)
    pairs: dict[tuple, list[tuple[int, int, list[np.ndarray], float]]] = {}
    for i, k in zip(*np.nonzero(np.triu(total, 1) >= RUN_DECADES), strict=True):
        both = np.flatnonzero(np.isfinite(values[i]) & np.isfinite(values[k]))
        runs = [both[run] for run in _runs(values[i, both] == values[k, both]) if len(run) >= RUN_LENGTH]
        runs = [run for run in runs if weight[i, run].sum() >= RUN_DECADES]
        if runs:
            a, b = wide.at(int(i)), wide.at(int(k))
            if (a["model"], kind(a)) > (b["model"], kind(b)):
                i, k, a, b = k, i, b, a
            strongest = max(weight[i, run].sum() for run in runs)
            pairs.setdefault((a["model"], kind(a), b["model"], kind(b)), []).append((int(i), int(k), runs, float(strongest)))
    return [_group(wide, part, weight) for _, part in sorted(pairs.items())]


def _group(wide: Wide, pairs: list, weight: np.ndarray) -> Group:
    """Of few pairs, the columns of their runs; of more pairs, every column that all of them share beyond chance."""
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    a, b = wide.values[first], wide.values[second]
    missing = ~np.isfinite(a) | ~np.isfinite(b)
    always = ((a == b) | missing).all(axis=0) & ~missing.all(axis=0)
    if len(pairs) < FEWEST_PAIRS:
        tasks = {int(j) for pair in pairs for run in pair[2] for j in run}
    else:
        tasks = set(np.flatnonzero(always & (np.where(missing, 0, weight[first]).sum(axis=0) >= SHARED_DECADES)).tolist())
    totals = {wide.tasks[j] for j in tasks}
    parts = {j for j in np.flatnonzero(always) if wide.tasks[j].startswith("mtbench-") and "mtbench-0" in totals}
    return Group(first, second, sorted(tasks | {int(j) for j in parts}), min(pair[3] for pair in pairs))


# ---------------------------------------------------------------- which checkpoint the scores belong to


def _trajectory(wide: Wide, index: int) -> tuple[np.ndarray, int]:
    """The other epochs of a checkpoint's run (indices, in order) and the checkpoint's epoch."""
    keys = wide.at(index)
    same = np.ones(len(wide.keys), bool)
    for key in RUN:
        same &= wide.keys[key].eq_missing(keys[key]).to_numpy()
    same[index] = False
    others = np.flatnonzero(same & (wide.keys["epoch"].to_numpy() > 0))
    return others[np.argsort(wide.keys["epoch"].to_numpy()[others])], keys["epoch"]


def ratios(wide: Wide, group: Group) -> tuple[str, np.ndarray] | None:
    """The nearest-epoch test: the side that belongs to a run with other epochs, and per pair the log likelihood ratio that the shared
    columns belong to that side. None with fewer than three pairs, or unless exactly one side belongs to such a run.

    Each column has an epoch of that run with the nearest score. The columns that are not shared give the distribution of nearest epochs
    for either side; the ratio compares the two for the shared columns.
    """
    sides = []
    for which in ("first", "second"):
        epochs = [_trajectory(wide, index)[0] for index in getattr(group, which)]
        if all(len(indices) >= 3 for indices in epochs):
            sides.append((which, epochs))
    if len(group.first) < FEWEST_PAIRS or len(sides) != 1:
        return None
    which, epochs = sides[0]
    inside, outside = (group.first, group.second) if which == "first" else (group.second, group.first)
    analysed = np.array([columns.task(task).analysed for task in wide.tasks])
    unshared = np.flatnonzero(analysed & ~np.isin(np.arange(len(wide.tasks)), group.tasks))
    epoch_of = wide.keys["epoch"].to_numpy()
    bins = int(epoch_of.max()) + 1

    def nearest(indices: list[int], tasks: np.ndarray) -> list[np.ndarray]:
        counts = []
        for index, others in zip(indices, epochs, strict=True):
            distance = np.abs(wide.values[np.ix_(others, tasks)] - wide.values[index, tasks])
            usable = np.isfinite(distance).all(axis=0) & (distance.max(axis=0, initial=0) > 0)
            epoch = epoch_of[others][distance[:, usable].argmin(axis=0)] if usable.any() else np.array([], int)
            counts.append(np.bincount(epoch, minlength=bins))
        return counts

    totals = [sum(nearest(side, unshared)) for side in (inside, outside)]
    log = [np.log((total + 0.5) / (total.sum() + 0.5 * bins)) for total in totals]
    return which, np.array([float(counts @ (log[0] - log[1])) for counts in nearest(inside, np.array(group.tasks))])


def owners(wide: Wide, groups: list[Group]) -> list[tuple[str, float, np.ndarray]]:
    """Which side the shared columns of each group belong to (``first``, ``second`` or ``unknown``), with p and the ratios behind it.

    Groups of the same kinds of checkpoints in several base models have a common cause and are tested together: a sign-flip test over the
    ratios of their pairs (:func:`ratios`).
    """
    single = [ratios(wide, group) for group in groups]
    kinds = [(kind(wide.at(group.first[0])), kind(wide.at(group.second[0]))) for group in groups]
    answers = []
    for i, own in enumerate(single):
        if own is None:
            answers.append(("unknown", np.nan, np.array([])))
            continue
        which = own[0]
        alike = [other for k, other in enumerate(single) if other and kinds[k] == kinds[i] and other[0] == which]
        ratio = np.concatenate([other[1] for other in alike])
        p = paired_difference(ratio, np.arange(len(ratio)), 0).p
        other = "second" if which == "first" else "first"
        answers.append((("unknown" if p >= SIGNIFICANT else which if ratio.sum() > 0 else other), p, ratio))
    return answers


def detect(wide: Wide) -> list[AuditFinding]:
    """One finding per group of pairs; scores are set to null on the side they do not belong to, on both sides if that is unknown."""
    findings, groups = [], shared_blocks(wide)
    for number, (group, (owner, p, ratio)) in enumerate(zip(groups, owners(wide, groups), strict=True), 1):
        tasks = [wide.tasks[j] for j in group.tasks]
        wrong = {"first": group.second, "second": group.first}.get(owner, group.first + group.second)
        one, two = wide.at(group.first[0]), wide.at(group.second[0])
        bases = one["method"] == two["method"] == "base"
        size = len(group.first)
        weakest = " for the weakest pair" if size > 1 else ""
        evidence = (
            f"{count(size, 'pairs')} of checkpoints {'share' if size > 1 else 'shares'} {len(tasks)} columns of scores to the last decimal, for "
            f"example row {wide.row[group.first[0]]} ({name(one)}) and row {wide.row[group.second[0]]} ({name(two)}). The probability of this by "
            f"chance is about 10^-{group.decades:.0f}{weakest}."
        )
        if owner == "unknown":
            test = f" (nearest-epoch test: {p_value(p)})" if np.isfinite(p) else ""
            action = f"set to null on both sides: the CSV does not show which one the scores belong to{test}"
        else:
            right = group.first if owner == "first" else group.second
            action = f"set to null where the scores do not belong: {name(wide.at(wrong[0]), dataset=False)}"
            evidence += (
                f" The scores belong to {name(wide.at(right[0]), dataset=False)} (nearest-epoch test: log likelihood ratio {abs(ratio.sum()):.1f}, "
                f"{p_value(p)}, n = {len(ratio)} pairs of these kinds)."
            )
        cells = [(int(wide.row[i]), wide.tasks[j]) for i in wrong for j in group.tasks if np.isfinite(wide.values[i, j])]
        rows = sorted(int(wide.row[i]) for i in group.first + group.second)
        pairs = zip(group.first, group.second, strict=True)
        details = [f"{wide.row[i]} = {wide.row[k]}: {name(wide.at(i))} = {name(wide.at(k))}" for i, k in pairs]
        title = "Two base models with the same scores" if bases else "Block of columns copied between checkpoints"
        severity = "high" if bases or size >= FEWEST_PAIRS else "medium"
        findings.append(AuditFinding(f"copy-{number}", title, severity, rows, tasks, evidence, action, cells, details=details))
    return findings
