"""Scores that stand in two rows: blocks of columns copied between checkpoints that cannot agree so far, and whose they are.

Evidence is counted in decades: a column on which two rows agree adds -log10 of the share of rows near enough to have that very value.
"""

from dataclasses import dataclass

import numpy as np

from sft_atlas.published import columns as catalogue
from sft_atlas.published.audit.wide import Finding, Wide, kind, name
from sft_atlas.stats.estimates import paired_difference

RUN_DECADES, RUN_LENGTH = 8.0, 4  # a run of neighbouring equal columns that chance does not make, among half a million pairs
SHARED_DECADES = 6.0  # a single column that is equal in every pair of a group
NEAR = 0.105  # points: ten steps of the second decimal on either side
FEWEST_PAIRS = 3
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Group:
    """Pairs of checkpoints of the same kinds that share the same columns; ``first`` and ``second`` are indices into the matrix."""

    first: list[int]
    second: list[int]
    tasks: list[int]
    decades: float  # evidence of the weakest pair


def surprise(values: np.ndarray) -> np.ndarray:
    """-log10 of the chance that another checkpoint has the same value, per cell; 0 where there is no value."""
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
    """Runs of neighbouring equal columns, as lists of columns."""
    if not equal.any():
        return []
    places = np.flatnonzero(equal)
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)


def shared_blocks(wide: Wide) -> list[Group]:
    """Groups of pairs of checkpoints that share a block of columns. Columns that one of the rows lacks are passed over, and so are
    parts of other columns, which are no evidence of their own (all of MT-Bench's categories stand at 1 together)."""
    values = np.where([catalogue.task(task).analysed for task in wide.tasks], wide.values, np.nan)
    weight = surprise(values)
    total = np.zeros((len(values), len(values)))
    for j in range(values.shape[1]):
        total += np.where(values[:, None, j] == values[None, :, j], weight[:, j, None], 0)
    found: dict[tuple, list[tuple[int, int, list[np.ndarray], float]]] = {}
    for i, k in zip(*np.nonzero(np.triu(total, 1) >= RUN_DECADES), strict=True):
        both = np.flatnonzero(np.isfinite(values[i]) & np.isfinite(values[k]))
        runs = [both[run] for run in _runs(values[i, both] == values[k, both]) if len(run) >= RUN_LENGTH]
        runs = [run for run in runs if weight[i, run].sum() >= RUN_DECADES]
        if runs:
            a, b = wide.at(int(i)), wide.at(int(k))
            if (a["model"], kind(a)) > (b["model"], kind(b)):
                i, k, a, b = k, i, b, a
            strongest = max(weight[i, run].sum() for run in runs)
            found.setdefault((a["model"], kind(a), b["model"], kind(b)), []).append((int(i), int(k), runs, float(strongest)))
    return [_group(wide, pairs, weight) for _, pairs in sorted(found.items())]


def _group(wide: Wide, pairs: list, weight: np.ndarray) -> Group:
    """Few pairs: the columns of their runs. More: every column that all share and that chance would not let all share."""
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


# ---------------------------------------------------------------- whose scores they are


def _trajectory(wide: Wide, index: int) -> tuple[np.ndarray, int]:
    """The other epochs of a checkpoint's run (indices, in order) and the checkpoint's epoch."""
    keys = wide.at(index)
    same = np.ones(len(wide.keys), bool)
    for key in ("model", "dataset", "method", "rows", "schedule"):
        same &= (
            wide.keys[key].eq_missing(keys[key]).to_numpy()
            if keys[key] is None
            else (wide.keys[key] == keys[key]).fill_null(False).to_numpy()
        )
    same[index] = False
    others = np.flatnonzero(same & (wide.keys["epoch"].to_numpy() > 0))
    return others[np.argsort(wide.keys["epoch"].to_numpy()[others])], keys["epoch"]


def ratios(wide: Wide, group: Group) -> tuple[str, np.ndarray] | None:
    """The side that is a checkpoint of a run with other epochs, and per pair the log likelihood ratio that the shared columns are
    that side's; None with fewer than three pairs, or where both or neither side is such a checkpoint.

    For each column the epoch of that run with the nearest score is found. How often each epoch is the nearest is learnt, for either
    side, from the columns that are not shared; the shared columns are then more likely under one side or the other.
    """
    sides = []
    for which in ("first", "second"):
        epochs = [_trajectory(wide, index)[0] for index in getattr(group, which)]
        if all(len(found) >= 3 for found in epochs):
            sides.append((which, epochs))
    if len(group.first) < FEWEST_PAIRS or len(sides) != 1:
        return None
    which, epochs = sides[0]
    inside, outside = (group.first, group.second) if which == "first" else (group.second, group.first)
    analysed = np.array([catalogue.task(task).analysed for task in wide.tasks])
    honest = np.flatnonzero(analysed & ~np.isin(np.arange(len(wide.tasks)), group.tasks))
    epoch_of = wide.keys["epoch"].to_numpy()
    bins = int(epoch_of.max()) + 1

    def nearest(indices: list[int], columns: np.ndarray) -> list[np.ndarray]:
        counted = []
        for index, others in zip(indices, epochs, strict=True):
            distance = np.abs(wide.values[np.ix_(others, columns)] - wide.values[index, columns])
            usable = np.isfinite(distance).all(axis=0) & (distance.max(axis=0, initial=0) > 0)
            counted.append(
                np.bincount(epoch_of[others][distance[:, usable].argmin(axis=0)], minlength=bins) if usable.any() else np.zeros(bins)
            )
        return counted

    log = [
        np.log((sum(nearest(side, honest)) + 0.5) / (sum(map(np.sum, nearest(side, honest))) + 0.5 * bins)) for side in (inside, outside)
    ]
    return which, np.array([float(counts @ (log[0] - log[1])) for counts in nearest(inside, np.array(group.tasks))])


def owners(wide: Wide, groups: list[Group]) -> list[tuple[str, float, np.ndarray]]:
    """Whose the shared columns of each group are: ``first``, ``second`` or ``unknown``, with the p-value and the ratios behind it.

    Groups of the same kinds of checkpoints (as of several base models) are copies of one making and are judged together, by the
    sign-flip test over their pairs (:func:`ratios`).
    """
    single = [ratios(wide, group) for group in groups]
    making = [(kind(wide.at(group.first[0])), kind(wide.at(group.second[0]))) for group in groups]
    answers = []
    for i, own in enumerate(single):
        if own is None:
            answers.append(("unknown", np.nan, np.array([])))
            continue
        which = own[0]
        ratio = np.concatenate([found[1] for k, found in enumerate(single) if found and making[k] == making[i] and found[0] == which])
        p = paired_difference(ratio, np.arange(len(ratio)), 0).p
        other = "second" if which == "first" else "first"
        answers.append((("unknown" if p >= SIGNIFICANT else which if ratio.sum() > 0 else other), p, ratio))
    return answers


def detect(wide: Wide) -> list[Finding]:
    """One finding per group of pairs; cells of the side that the scores are not from are nulled, of both where that is unknown."""
    found, groups = [], shared_blocks(wide)
    for number, (group, (whose, p, ratio)) in enumerate(zip(groups, owners(wide, groups), strict=True), 1):
        tasks = [wide.tasks[j] for j in group.tasks]
        wrong = {"first": group.second, "second": group.first}.get(whose, group.first + group.second)
        cells = [
            (int(wide.row[i]), task) for i in wrong for j, task in zip(group.tasks, tasks, strict=True) if np.isfinite(wide.values[i, j])
        ]
        one, two = wide.at(group.first[0]), wide.at(group.second[0])
        bases = one["method"] == two["method"] == "base"
        evidence = (
            f"{len(group.first)} pair{'s' if len(group.first) > 1 else ''} of checkpoints agree to the last decimal on {len(tasks)} columns, "
            f"such as row {wide.row[group.first[0]]} ({name(one)}) and row {wide.row[group.second[0]]} ({name(two)}); "
            f"by chance 1 in 10^{group.decades:.0f} for the weakest pair."
        )
        if whose == "unknown":
            why = f" (nearest-epoch test p = {p:.2g})" if np.isfinite(p) else ""
            action = f"both sides nulled: the file does not say whose scores they are{why}"
        else:
            right = group.first if whose == "first" else group.second
            action = f"nulled where they do not belong: {_kind_words(wide, wrong[0])}"
            evidence += (
                f" They belong to {_kind_words(wide, right[0])}: nearest-epoch log likelihood ratio {abs(ratio.sum()):.1f}, "
                f"p = {p:.2g} over {len(ratio)} pairs of these kinds."
            )
        found.append(
            Finding(
                key=f"copy-{number}",
                title="Two base models with the same scores" if bases else "A block of columns copied between checkpoints",
                severity="high" if bases or len(group.first) >= FEWEST_PAIRS else "medium",
                rows=sorted(int(wide.row[i]) for i in group.first + group.second),
                tasks=tasks,
                evidence=evidence,
                action=action,
                cells=cells,
                details=[
                    f"{wide.row[i]} = {wide.row[k]}: {name(wide.at(i))} = {name(wide.at(k))}"
                    for i, k in zip(group.first, group.second, strict=True)
                ],
            )
        )
    return found


def _kind_words(wide: Wide, index: int) -> str:
    keys = wide.at(index)
    return f"{keys['model']}, {keys['method']}, {keys['rows']:,} rows, {keys['schedule']}, epoch {keys['epoch']}"
