"""Columns that mix quantities: means over different files, shares of different numbers of items.

A mean over k percentages with two decimals is a multiple of 0.01 / k, so its decimals show the number of files. A share of n items is
k / n rounded to two decimals, so its decimals show n.
"""

from itertools import combinations

import numpy as np

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import AuditFinding, Wide, name, of_cells
from sft_atlas.published.tidy_published import is_share
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.stats.wording import p_value

TOLERANCE = 1e-5  # hundredths of a percent; sums of doubles are off by less than 1e-9
PERMUTATIONS = 999
LACKING = 8  # missing judgements up to which a judged share counts as complete
SIGNIFICANT = 0.01
MOST = 0.2  # of a column's values that may be wrong; where more are, the benchmark had another number of items


def is_mean_over(values: np.ndarray, files: int) -> np.ndarray:
    """Whether each value can be a mean over ``files`` percentages with two decimals."""
    with np.errstate(invalid="ignore"):
        hundredths = values * files * 100
        return np.abs(hundredths - np.round(hundredths)) < TOLERANCE


def pooled_files(wide: Wide, task: str) -> dict[tuple[str, ...], np.ndarray]:
    """Whose files each checkpoint's mean covers: a mask over checkpoints for each pool of tasks.

    A mean over k files is also one over 2 k files, so a pool whose size is a multiple of a fitting size is ignored. A value that still
    fits several pools gets the most frequent pool of its run, then of its model and recipe, then of its model, then of the column.
    """
    own, others = columns.task(task), [name for name in columns.POOLS.get(task, ()) if name in wide.tasks]
    pools = [(task, *part) for size in range(len(others) + 1) for part in combinations(others, size)]
    sizes: dict[int, tuple[str, ...]] = {}
    for pool in pools:
        sizes.setdefault(sum(columns.task(member).files for member in pool), pool)
    values = wide.of(task)
    fits = {pool: is_mean_over(values, size) & np.isfinite(values) for size, pool in sizes.items() if own.files}
    for size, pool in sizes.items():
        for smaller, part in sizes.items():
            if pool in fits and size > smaller and size % smaller == 0:
                fits[pool] &= ~fits[part]
    number = sum(mask.astype(int) for mask in fits.values())
    recipes = np.array([f"{k['model']}/{k['method']}/{k['rows']}/{k['schedule']}" for k in wide.keys.iter_rows(named=True)])
    models = wide.keys["model"].to_numpy()
    runs = np.char.add(recipes, wide.keys["dataset"].to_numpy().astype(str))
    sure = {pool: mask & (number == 1) for pool, mask in fits.items()}
    result = {pool: mask.copy() for pool, mask in sure.items()}
    for i in np.flatnonzero(number > 1):
        near = (runs == runs[i], recipes == recipes[i], models == models[i], np.ones(len(runs), bool))
        best = max((pool for pool in fits if fits[pool][i]), key=lambda pool: tuple(sure[pool][mask].sum() for mask in near))
        result[best][i] = True
    return {pool: mask for pool, mask in result.items() if mask.any()}


def derive(wide: Wide, task: str, pool: tuple[str, ...]) -> np.ndarray:
    """The task's own mean, recovered from the mean v over the pool: (F v - sum of f_j c_j) / f.

    F counts the pool's files, f those of the task, f_j and c_j are the number of files and the mean of every other task.
    """
    sizes = [columns.task(member).files for member in pool]
    rest = sum(size * wide.of(member) for size, member in zip(sizes[1:], pool[1:], strict=True))
    return (sum(sizes) * wide.of(task) - rest) / sizes[0]


def bounds_test(wide: Wide, task: str, pool: tuple[str, ...], mask: np.ndarray, seed: int = 0) -> tuple[int, float, float]:
    """Recovered means outside 0 to 100: their number, the mean number after shuffling the other columns among the checkpoints of each
    model, and p, the share of shuffles with no more of them. If the pool is right, all recovered means lie inside."""
    sizes = np.array([columns.task(member).files for member in pool], float)
    values, rest = wide.of(task)[mask], np.stack([wide.of(member)[mask] for member in pool[1:]], axis=1)
    known = np.isfinite(rest).all(axis=1)
    values, rest, models = values[known], rest[known], wide.keys["model"].to_numpy()[mask][known]

    def outside(other: np.ndarray) -> int:
        own = (sizes.sum() * values - other @ sizes[1:]) / sizes[0]
        return int(((own < -1e-6) | (own > 100 + 1e-6)).sum())

    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(models == model) for model in dict.fromkeys(models.tolist())]
    drawn = []
    for _ in range(PERMUTATIONS):
        order = np.arange(len(values))
        for place in places:
            order[place] = rng.permutation(place)
        drawn.append(outside(rest[order]))
    hits = outside(rest)
    return hits, float(np.mean(drawn)), (1 + sum(count <= hits for count in drawn)) / (1 + PERMUTATIONS)


def agreement_test(wide: Wide, task: str, own: np.ndarray, pure: np.ndarray, pooled: np.ndarray) -> tuple[int, float, float, float]:
    """Checkpoints whose mean is not pooled, compared with pooled checkpoints of the same model, training set and rows: their number, the
    median distance (points) to the nearest recovered and the nearest published mean, and one-sided Wilcoxon p that recovered are nearer."""
    from scipy.stats import wilcoxon

    derived, published = [], []
    identity = np.array([f"{k['model']}/{k['dataset']}/{k['rows']}" for k in wide.keys.iter_rows(named=True)])
    for i in np.flatnonzero(pure & (wide.keys["epoch"].to_numpy() > 0)):
        same = pooled & np.isfinite(own) & (identity == identity[i])
        if same.any():
            derived.append(np.abs(own[same] - wide.of(task)[i]).min())
            published.append(np.abs(wide.of(task)[same] - wide.of(task)[i]).min())
    if len(derived) < 6:
        return len(derived), np.nan, np.nan, np.nan
    p = float(wilcoxon(derived, published, alternative="less").pvalue)
    return len(derived), float(np.median(derived)), float(np.median(published)), p


def detect_pools(wide: Wide) -> list[AuditFinding]:
    """Columns with means over different sets of files; the task's own mean is recovered if tests confirm the pool."""
    findings = []
    for task in (key for key in wide.tasks if key in columns.POOLS):
        pools = pooled_files(wide, task)
        pure = pools.get((task,), np.zeros(len(wide.keys), bool))
        for pool, mask in ((pool, mask) for pool, mask in pools.items() if len(pool) > 1):
            own = derive(wide, task, pool)
            outside, shuffled, p_bounds = bounds_test(wide, task, pool, mask)
            pairs, near, far, p_agree = agreement_test(wide, task, own, pure, mask)
            confirmed = outside == 0 and p_bounds < SIGNIFICANT and p_agree < SIGNIFICANT
            files = [columns.task(member).files for member in pool]
            proven = (
                f"{mask.sum()} values are means over {sum(files)} files and {pure.sum()} are means over {files[0]}, as their decimals show."
            )
            likely = (
                f"The {sum(files)} files are {' + '.join(map(str, files))}: those of {', '.join(pool)}. {outside} means of {task} that are recovered "
                f"so lie outside 0 to 100; after shuffling the other columns within models, {shuffled:.0f} would ({p_value(p_bounds)})."
            )
            if pairs and np.isfinite(p_agree):
                likely += (
                    f" {pairs} checkpoints with a mean over {files[0]} files lie {near:.2f} points (median) from the nearest recovered mean of the "
                    f"same model, training set and rows, and {far:.2f} from the nearest published one (Wilcoxon test: {p_value(p_agree)})."
                )
            formula = f"({sum(files)} v - " + " - ".join(f"{f} {m}" for f, m in zip(files[1:], pool[1:], strict=True)) + f") / {files[0]}"
            action, unknown = f"recomputed exactly from the published mean v: {formula}", ""
            if not confirmed:
                likely, unknown = "", f"The tests do not confirm which files the {sum(files)} are: {likely}"
                action = f"set to null: these are no means of {task} alone, and its own cannot be recovered"
            index = np.flatnonzero(mask)
            usable = [int(i) for i in index if confirmed and np.isfinite(own[i])]
            cells = [(int(wide.row[i]), task) for i in index if i not in set(usable)]
            replaced = [(int(wide.row[i]), task, float(own[i])) for i in usable]
            details = [
                f"row {wide.row[i]}, {name(wide.at(int(i)))}: {wide.of(task)[i]:.3f} -> {f'{own[i]:.3f}' if np.isfinite(own[i]) else 'null'}"
                for i in index[:10]
            ]
            title = "One column, two quantities: some means include the files of other benchmarks"
            rows = [int(wide.row[i]) for i in index]
            findings.append(
                AuditFinding(f"pool-{task}", title, "high", rows, [task], proven, likely, unknown, action, cells, replaced, details)
            )
    return findings


# ---------------------------------------------------------------- shares of items


def decimals_of(values: np.ndarray) -> int:
    """The number of decimals, up to six, to which percentages are given."""
    known = values[np.isfinite(values)]
    return next((places for places in range(6) if (np.abs(np.round(known, places) - known) < 1e-9).all()), 6)


def detect_shares(wide: Wide) -> list[AuditFinding]:
    """Values that should be k / n and are not.

    A judged column may lack some judgements. There, a group of checkpoints is set to null if its values fit no n near the full one while
    the rest of the column does.
    """
    findings, verified = [], []
    for task in wide.tasks:
        entry, values = columns.task(task), wide.of(task)
        known = np.isfinite(values)
        if entry.scale != columns.PERCENT or not entry.items or entry.files or not known.any():
            continue
        if entry.judged:
            findings += _judged_shares(wide, task, values, known)
            continue
        wrong = np.flatnonzero(known & ~is_share(values, entry.items, decimals_of(values)))
        if not len(wrong):
            verified.append(f"{task} (n = {entry.items:,})")
            continue
        shown = ", ".join(f"row {wide.row[i]}: {values[i]:g}" for i in wrong[:5])
        text = f"{len(wrong)} of {known.sum():,} values are not k / {entry.items:,}, for example {shown}."
        cells = [(int(wide.row[i]), task) for i in wrong]
        if len(wrong) > MOST * known.sum():
            title, unknown = (
                "Shares of another number of items",
                "Of how many items these are shares, and whether of the same for all rows.",
            )
            findings.append(AuditFinding(f"share-{task}", title, "low", [], [task], text, unknown=unknown))
            continue
        title = "Not a share of the benchmark's items"
        findings.append(of_cells(wide, f"share-{task}", title, "medium", cells, "set to null", null=True, proven=text))
    if verified:
        text = f"Every value is k / n: {', '.join(verified)}."
        findings.append(AuditFinding("share-verified", "Shares verified", "note", [], [], text))
    return findings


def _judged_shares(wide: Wide, task: str, values: np.ndarray, known: np.ndarray) -> list[AuditFinding]:
    from scipy.stats import binom

    entry, findings = columns.task(task), []
    fewest = entry.items - LACKING
    fits = np.any([is_share(values, n) for n in range(fewest, entry.items + 1)], axis=0) & known
    recipes = (f"{k['model']}, {k['method']}, {k['rows']:,} rows, {k['schedule']}" for k in wide.keys.iter_rows(named=True))
    label = np.array(["base" if base else recipe for base, recipe in zip(wide.keys["method"] == "base", recipes, strict=True)])
    groups = list(dict.fromkeys(label[known].tolist()))
    rest = {group: fits[known & (label != group)].mean() if (known & (label != group)).any() else np.nan for group in groups}
    p = np.array([binom.cdf(fits[known & (label == g)].sum(), (known & (label == g)).sum(), rest[g]) for g in groups])
    for group, q in zip(groups, benjamini_hochberg(p), strict=True):
        inside = known & (label == group)
        if not (q < SIGNIFICANT / 10 and fits[inside].mean() < 0.5):
            continue
        text = (
            f"{fits[inside].sum()} of {inside.sum()} values of {'the base models' if group == 'base' else group} are k / n for some n from {fewest} "
            f"to {entry.items}, against {100 * rest[group]:.0f} % for the other checkpoints ({p_value(q, 'q')})."
        )
        unknown = "Whether these are shares of fewer judged answers or another quantity."
        title = f"{entry.label}: another quantity"
        cells = [(int(wide.row[i]), task) for i in np.flatnonzero(inside)]
        severity = "high" if group == "base" else "medium"
        text += " They do not measure what the others measure."
        key = f"share-{task}-{group}"
        findings.append(of_cells(wide, key, title, severity, cells, "set to null", null=True, likely=text, unknown=unknown))
    return findings


def detect_judgements(wide: Wide) -> list[AuditFinding]:
    """The number of judgements behind a judge's mean, from its decimals, compared with the benchmark's."""
    parts = [task for task in wide.tasks if task.startswith("mtbench-") and task != "mtbench-0"]
    if not parts:
        return []
    values = np.stack([wide.of(task) for task in parts], axis=1)
    known = np.isfinite(values)
    tenths = np.abs(values * 10 - np.round(values * 10)) < 1e-6
    if tenths[known].mean() < 0.8:
        return []
    total = wide.of("mtbench-0") if "mtbench-0" in wide.tasks else np.full(len(values), np.nan)
    gap = np.abs(total - np.where(known.all(axis=1), values.mean(axis=1), np.nan))
    odd = values[known & ~tenths]
    fewer = np.any([np.abs(np.round(np.round(odd * n) / n, 2) - odd) < 1e-6 for n in range(5, 10)], axis=0).mean() if len(odd) else 1.0
    proven = (
        f"{100 * tenths[known].mean():.1f} % of {known.sum():,} category means are multiples of 0.1, and {100 * fewer:.0f} % of the others are means "
        "over 5 to 9 numbers, to two decimals. So they are means over at most 10 judgements, one for each of 10 questions; 20 judgements would "
        "give multiples of 0.05."
    )
    if np.isfinite(gap).any():
        proven += f" The total is the mean of the categories to within {np.nanmax(gap):.2f}."
    unknown = "Whether one turn was judged, or both turns together."
    action = "kept, with n = 80 judgements instead of 160"
    title = "MT-Bench: one judgement per question"
    tasks = [task for task in ("mtbench-0", *parts) if task in wide.tasks]
    return [AuditFinding("judgements", title, "low", [], tasks, proven, unknown=unknown, action=action)]
