"""Blocks of columns with identical scores in two checkpoints, and which of the two the scores belong to.

Evidence is measured in decades: a column on which two rows agree adds -log10 of the probability of an equal value, estimated from the
rows with nearby values.
"""

from dataclasses import dataclass
from itertools import combinations

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
FEWEST_TUNED, FEWEST_BENCHMARKS, FEWEST_CASES = 10, 3, 10  # for the owner of scores that two base models share
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


@dataclass(frozen=True)
class Owner:
    """Which side the shared columns belong to (``first``, ``second``, ``unknown``), and the test behind it in words."""

    side: str
    test: str = ""


def owners(wide: Wide, groups: list[Group]) -> list[Owner]:
    """The owner of each group's shared columns.

    Groups of the same kinds of checkpoints in several base models have a common cause and are tested together: a sign-flip test over the
    ratios of their pairs (:func:`ratios`). Base models have no other epochs: see :func:`base_owner`.
    """
    single = [ratios(wide, group) for group in groups]
    kinds = [(kind(wide.at(group.first[0])), kind(wide.at(group.second[0]))) for group in groups]
    cases, answers = known_cases(wide, groups), []
    for i, (group, own) in enumerate(zip(groups, single, strict=True)):
        if _are_bases(wide, group):
            answers.append(base_owner(wide, group, cases))
            continue
        if own is None:
            answers.append(Owner("unknown"))
            continue
        which = own[0]
        alike = [other for k, other in enumerate(single) if other and kinds[k] == kinds[i] and other[0] == which]
        ratio = np.concatenate([other[1] for other in alike])
        p = paired_difference(ratio, np.arange(len(ratio)), 0).p
        side = "unknown" if p >= SIGNIFICANT else which if ratio.sum() > 0 else _other(which)
        size = f"log likelihood ratio {abs(ratio.sum()):.1f}, {p_value(p)}, n = {len(ratio)} pairs of these kinds"
        answers.append(Owner(side, f"nearest-epoch test: {size}" if side != "unknown" else f"nearest-epoch test: {p_value(p)}"))
    return answers


def _other(side: str) -> str:
    return "second" if side == "first" else "first"


def _are_bases(wide: Wide, group: Group) -> bool:
    return wide.at(group.first[0])["method"] == wide.at(group.second[0])["method"] == "base"


def out_of_reach(wide: Wide, index: int, model: str, tasks: list[str]) -> list[str]:
    """The tasks on which the base model in row ``index`` scores higher than every tuned checkpoint of ``model`` (at least ten)."""
    tuned = (wide.keys["model"] == model).to_numpy() & (wide.keys["epoch"] > 0).to_numpy()
    found = []
    for task in tasks:
        scores = wide.of(task)[tuned]
        scores = scores[np.isfinite(scores)]
        if len(scores) >= FEWEST_TUNED and wide.of(task)[index] > scores.max():
            found.append(task)
    return found


def _benchmarks(tasks: list[str]) -> int:
    return len({columns.task(task).benchmark for task in tasks})


def _comparable(wide: Wide) -> list[str]:
    return [task for task in wide.tasks if columns.task(task).analysed and task not in columns.POOLS]


def _decide(first: list[str], second: list[str]) -> str:
    """The owner, from the tasks on which the scores are out of the first's and out of the second's reach."""
    counts = _benchmarks(first), _benchmarks(second)
    if min(counts) or max(counts) < FEWEST_BENCHMARKS:
        return "unknown"
    return "second" if counts[0] else "first"


def known_cases(wide: Wide, groups: list[Group]) -> tuple[int, int, int]:
    """How :func:`_decide` does where the owner is known: base models with scores of their own, each against every other model.

    Returns the number of cases, of decisions, and of wrong decisions.
    """
    shared = {index for group in groups for index in group.first + group.second}
    bases = [i for i in np.flatnonzero(wide.keys["method"].to_numpy() == "base").tolist() if i not in shared]
    models, tasks = wide.keys["model"].unique().sort().to_list(), _comparable(wide)
    reach = {(i, model): out_of_reach(wide, i, model, tasks) for i in bases for model in models}
    own = {i: wide.keys["model"][i] for i in bases}
    answers = [_decide(reach[i, own[i]], reach[i, model]) for i in bases for model in models if model != own[i]]
    return len(answers), sum(side != "unknown" for side in answers), sum(side == "second" for side in answers)


def base_owner(wide: Wide, group: Group, cases: tuple[int, int, int]) -> Owner:
    """The base model that a row of scores shared by two belongs to.

    Tuning on some set nearly always reaches the base model's score. So the scores are not those of a model of which they exceed every
    tuned checkpoint on several benchmarks, if they exceed the other's on none, and if this rule is right in the known cases.
    """
    index = group.first[0]
    tasks = [task for task in _comparable(wide) if wide.tasks.index(task) in group.tasks]
    models = [wide.at(side[0])["model"] for side in (group.first, group.second)]
    reach = [out_of_reach(wide, index, model, tasks) for model in models]
    number, decided, wrong = cases
    side = _decide(*reach)
    words = " and ".join(f"those of {model} on {', '.join(tasks) or 'none'}" for model, tasks in zip(models, reach, strict=True))
    test = f"columns on which the scores exceed every tuned checkpoint: {words}"
    if side == "unknown" or decided < FEWEST_CASES or wrong:
        return Owner("unknown", test)
    return Owner(side, f"{test}. Of {number} pairings of another base model with a wrong one, this rule decides {decided}, none wrongly")


def measured_twice(wide: Wide, groups: list[Group], number: int) -> tuple[Group, float, int] | None:
    """Pairs of the same kinds as in a group that has an owner, whose columns are not equal but nearer than any two other checkpoints.

    Returns the pairs, p of the least near (the share of pairs of checkpoints of one base model and training set that are as near, times
    the number of pairs that were looked at), and the number of pairs in the comparison. None without such pairs.
    """
    group, keys = groups[number], wide.keys
    if len(group.first) < FEWEST_PAIRS:
        return None
    shared = {frozenset(pair) for one in groups for pair in zip(one.first, one.second, strict=True)}
    values = wide.values[:, group.tasks]
    spread = np.nanstd(values, axis=0)
    values = values[:, spread > 0] / spread[spread > 0]
    names = [f"{one['model']}/{one['dataset']}" if one["epoch"] else f"{i}" for i, one in enumerate(keys.iter_rows(named=True))]
    members: dict[str, list[int]] = {}
    for i, one in enumerate(names):
        members.setdefault(one, []).append(i)
    pairs = [pair for part in members.values() for pair in combinations(part, 2) if frozenset(pair) not in shared]
    distance = np.array([np.abs(values[i] - values[k]).mean() for i, k in pairs])
    pairs, distance = [pair for pair, near in zip(pairs, distance, strict=True) if np.isfinite(near)], distance[np.isfinite(distance)]
    one, two = wide.at(group.first[0]), wide.at(group.second[0])

    def place(keys: dict) -> tuple:
        return keys["model"], kind(keys)

    alike = [n for n, (i, k) in enumerate(pairs) if {place(wide.at(i)), place(wide.at(k))} == {place(one), place(two)}]
    p = {n: len(alike) * (1 + int((np.delete(distance, n) <= distance[n]).sum())) / len(pairs) for n in alike}
    near = [n for n in alike if p[n] < SIGNIFICANT]
    if not near:
        return None
    ordered = [pairs[n] if place(wide.at(pairs[n][0])) == place(one) else pairs[n][::-1] for n in near]
    again = Group([i for i, _ in ordered], [k for _, k in ordered], group.tasks, np.nan)
    return again, max(p[n] for n in near), len(pairs)


def detect(wide: Wide) -> list[AuditFinding]:
    """One finding per group of pairs; scores are set to null on the side they do not belong to, on both sides if that is unknown."""
    findings, groups = [], shared_blocks(wide)
    for number, (group, owner) in enumerate(zip(groups, owners(wide, groups), strict=True), 1):
        key, size, bases = f"copy-{number}", len(group.first), _are_bases(wide, group)
        one, two = wide.at(group.first[0]), wide.at(group.second[0])
        weakest = " for the weakest pair" if size > 1 else ""
        proven = (
            f"{count(size, 'pairs')} of checkpoints {'share' if size > 1 else 'shares'} {len(group.tasks)} columns of scores to the last decimal, "
            f"for example row {wide.row[group.first[0]]} ({name(one)}) and row {wide.row[group.second[0]]} ({name(two)}). The probability of this "
            f"by chance is about 10^-{group.decades:.0f}{weakest}."
        )
        title = "Two base models with the same scores" if bases else "Block of columns copied between checkpoints"
        severity = "high" if bases or size >= FEWEST_PAIRS else "medium"
        findings.append(_finding(wide, group, owner, key, title, severity, proven))
        again = measured_twice(wide, groups, number - 1) if owner.side != "unknown" else None
        if again:
            pairs, p, others = again
            text = (
                f"{count(len(pairs.first), 'pairs')} of the same kinds {'are' if len(pairs.first) > 1 else 'is'} not equal in the {len(group.tasks)} "
                f"columns of `{key}`, but nearer than chance allows: {p_value(p)} among {others:,} pairs of checkpoints of one base model and "
                "training set. One checkpoint was measured twice."
            )
            title = "Block of columns measured again on the wrong checkpoint"
            findings.append(_finding(wide, pairs, owner, f"{key}-again", title, "medium", "", text))
    return findings


def _finding(wide: Wide, group: Group, owner: Owner, key: str, title: str, severity: str, proven: str, likely: str = "") -> AuditFinding:
    """The finding about a group whose owner is judged."""
    wrong = {"first": group.second, "second": group.first}.get(owner.side, group.first + group.second)
    whole = {"dataset": _are_bases(wide, group)}
    if owner.side == "unknown":
        test = f" ({owner.test})" if owner.test else ""
        unknown, action = f"Which of the two the scores belong to{test}.", "set to null on both sides"
    else:
        right = group.first if owner.side == "first" else group.second
        unknown, action = "", f"set to null where the scores do not belong: {name(wide.at(wrong[0]), **whole)}"
        likely = f"{likely} The scores belong to {name(wide.at(right[0]), **whole)} ({owner.test}).".strip()
    tasks = [wide.tasks[j] for j in group.tasks]
    cells = [(int(wide.row[i]), wide.tasks[j]) for i in wrong for j in group.tasks if np.isfinite(wide.values[i, j])]
    rows = sorted(int(wide.row[i]) for i in group.first + group.second)
    pairs = zip(group.first, group.second, strict=True)
    details = [f"{wide.row[i]} = {wide.row[k]}: {name(wide.at(i))} = {name(wide.at(k))}" for i, k in pairs]
    return AuditFinding(key, title, severity, rows, tasks, proven, likely, unknown, action, cells, details=details)
