"""Columns that hold more than one quantity: means over different files, shares of different numbers of items.

A mean over k files of percentages with two decimals is a multiple of 0.01 / k, so the decimals of a mean say how many files it is over.
A share of n items is k / n rounded to two decimals, so a column of shares shows its n.
"""

from itertools import combinations

import numpy as np

from sft_atlas.published import columns
from sft_atlas.published.audit.wide import Finding, Wide, name
from sft_atlas.stats.estimates import benjamini_hochberg

TOLERANCE = 1e-5  # hundredths of a percent; sums of doubles are off by less than 1e-9
PERMUTATIONS = 999
LACKING = 8  # judgements that a judged set may lack and still count as complete
SIGNIFICANT = 0.01


def is_mean_over(values: np.ndarray, files: int) -> np.ndarray:
    """Whether each value is a mean over ``files`` percentages of two decimals."""
    with np.errstate(invalid="ignore"):
        hundredths = values * files * 100
        return np.abs(hundredths - np.round(hundredths)) < TOLERANCE


def pooled_files(wide: Wide, task: str) -> dict[tuple[str, ...], np.ndarray]:
    """Which checkpoints' mean is over which columns' files: from the tasks of the pool to a mask over checkpoints.

    A mean over k files is also one over 2 k, so a pool that is a multiple of a fitting one is left out. Values that still fit several
    go to the pool of most checkpoints of the same run, then of the same model and recipe, then of the model, then of the whole column.
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
    """The column's own mean taken out of a mean over the pool: (F v - sum of f_j c_j) / f, with f files of each column."""
    sizes = [columns.task(member).files for member in pool]
    rest = sum(size * wide.of(member) for size, member in zip(sizes[1:], pool[1:], strict=True))
    return (sum(sizes) * wide.of(task) - rest) / sizes[0]


def bounds_test(wide: Wide, task: str, pool: tuple[str, ...], mask: np.ndarray, seed: int = 0) -> tuple[int, float, float]:
    """Derived values outside 0..100: their number, the mean number when the other columns are shuffled among the checkpoints of each
    model, and the share of shuffles with no more. Only if the other columns really are in the pool must all lie inside."""
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
    """Checkpoints whose mean is pure, against the nearest pooled checkpoint of the same model, training set and rows: their number,
    the median distance to the nearest derived and to the nearest published value, and the one-sided Wilcoxon p that derived are nearer."""
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
    return (
        len(derived),
        float(np.median(derived)),
        float(np.median(published)),
        float(wilcoxon(derived, published, alternative="less").pvalue),
    )


def detect_pools(wide: Wide) -> list[Finding]:
    """Columns whose values are means over different sets of files; the own mean is derived where the pool is proven."""
    found = []
    for task in (key for key in wide.tasks if key in columns.POOLS):
        pools = pooled_files(wide, task)
        wider = {pool: mask for pool, mask in pools.items() if len(pool) > 1}
        pure = pools.get((task,), np.zeros(len(wide.keys), bool))
        for pool, mask in wider.items():
            own = derive(wide, task, pool)
            outside, shuffled, p_bounds = bounds_test(wide, task, pool, mask)
            pairs, near, far, p_agree = agreement_test(wide, task, own, pure, mask)
            proven = outside == 0 and p_bounds < SIGNIFICANT and p_agree < SIGNIFICANT
            files = [columns.task(member).files for member in pool]
            evidence = (
                f"{mask.sum()} values are means over {sum(files)} files ({' + '.join(map(str, files))}: {', '.join(pool)}), "
                f"{pure.sum()} over {files[0]}: 100 k v is whole for exactly one of the two k. "
                f"Derived own means outside 0 to 100: {outside}; {shuffled:.0f} when the other columns are shuffled within models (p = {p_bounds:.3f}). "
            )
            if pairs and np.isfinite(p_agree):
                evidence += (
                    f"{pairs} checkpoints with the pure mean lie {near:.2f} points (median) from the nearest derived value of the same model, "
                    f"training set and rows, {far:.2f} from the nearest published one (Wilcoxon p = {p_agree:.2g})."
                )
            index = np.flatnonzero(mask)
            formula = f"({sum(files)} v - " + " - ".join(f"{f} {m}" for f, m in zip(files[1:], pool[1:], strict=True)) + f") / {files[0]}"
            usable = [i for i in index if proven and np.isfinite(own[i])]
            found.append(
                Finding(
                    key=f"pool-{task}",
                    title="One column, two quantities: a mean that swept in the files of other benchmarks",
                    severity="high",
                    rows=[int(wide.row[i]) for i in index],
                    tasks=[task],
                    evidence=evidence,
                    action=f"repaired exactly: {formula}"
                    if proven
                    else "nulled: the pool is not proven, so the own mean cannot be derived",
                    cells=[(int(wide.row[i]), task) for i in index if i not in set(usable)],
                    replaced=[(int(wide.row[i]), task, float(own[i])) for i in usable],
                    details=[f"{wide.row[i]}: {name(wide.at(int(i)))}: {wide.of(task)[i]:.3f} -> {own[i]:.3f}" for i in index[:10]],
                )
            )
    return found


# ---------------------------------------------------------------- shares of items


def is_share(values: np.ndarray, items: int, decimals: int = 2) -> np.ndarray:
    """Whether each percentage is k / items, rounded."""
    k = np.round(values * items / 100)
    with np.errstate(invalid="ignore"):
        return np.abs(np.round(100 * k / items, decimals) - values) < 0.51 * 10.0**-decimals


def detect_shares(wide: Wide) -> list[Finding]:
    """Columns of shares that are not k / n. Judged columns may lack judgements; there, groups of checkpoints that fit no n near the full
    one where the rest of the column does are nulled, since their number is a share of something else."""
    from scipy.stats import binom

    found, fitting = [], []
    for task in wide.tasks:
        entry, values = columns.task(task), wide.of(task)
        known = np.isfinite(values)
        if entry.scale != columns.PERCENT or not entry.items or entry.files or not known.any():
            continue
        if not entry.judged:
            wrong = np.flatnonzero(known & ~is_share(values, entry.items))
            if not len(wrong):
                fitting.append(f"{task} (n = {entry.items:,})")
                continue
            shown = ", ".join(f"row {wide.row[i]}: {values[i]:g}" for i in wrong[:5])
            text = f"{len(wrong)} of {known.sum()} values are no k / {entry.items:,}, such as {shown}."
            cells = [(int(wide.row[i]), task) for i in wrong]
            found.append(
                Finding(
                    f"share-{task}", "Not a share of the benchmark's items", "medium", [c[0] for c in cells], [task], text, "nulled", cells
                )
            )
            continue
        fits = np.any([is_share(values, n) for n in range(entry.items - LACKING, entry.items + 1)], axis=0) & known
        label = np.array(
            [
                "base" if k["method"] == "base" else f"{k['model']}, {k['method']}, {k['rows']:,} rows, {k['schedule']}"
                for k in wide.keys.iter_rows(named=True)
            ]
        )
        groups = list(dict.fromkeys(label[known].tolist()))
        rest = {group: fits[known & (label != group)].mean() if (known & (label != group)).any() else np.nan for group in groups}
        p = np.array([binom.cdf(fits[known & (label == g)].sum(), (known & (label == g)).sum(), rest[g]) for g in groups])
        for group, q in zip(groups, benjamini_hochberg(p), strict=True):
            inside = known & (label == group)
            if q < SIGNIFICANT / 10 and fits[inside].mean() < 0.5:
                text = (
                    f"{fits[inside].sum()} of {inside.sum()} values are k / n for some n from {entry.items - LACKING} to {entry.items}; of the other "
                    f"checkpoints {100 * rest[group]:.0f} % are (q = {q:.1g}). The share is over fewer judged answers, or of another kind."
                )
                cells = [(int(wide.row[i]), task) for i in np.flatnonzero(inside)]
                high = "high" if group == "base" else "medium"
                found.append(
                    Finding(
                        f"share-{task}-{group}",
                        f"{entry.label}: another quantity for {group}",
                        high,
                        [c[0] for c in cells],
                        [task],
                        text,
                        "nulled",
                        cells,
                    )
                )
    if fitting:
        found.append(Finding("share-verified", "Shares verified", "note", [], [], f"Every value is k / n: {', '.join(fitting)}.", "kept"))
    return found


def detect_judgements(wide: Wide) -> list[Finding]:
    """How many judgements a judge's mean is over, by its decimals, against what the benchmark has."""
    parts = [task for task in wide.tasks if task.startswith("mtbench-") and task != "mtbench-0"]
    if not parts:
        return []
    values = np.stack([wide.of(task) for task in parts], axis=1)
    known = np.isfinite(values)
    tenths = np.abs(values * 10 - np.round(values * 10)) < 1e-6
    total = wide.of("mtbench-0") if "mtbench-0" in wide.tasks else np.full(len(values), np.nan)
    gap = np.abs(total - np.where(known.all(axis=1), values.mean(axis=1), np.nan))
    text = (
        f"{100 * tenths[known].mean():.1f} % of {known.sum():,} category means are multiples of 0.1, so they are over 10 judgements; two turns of "
        f"10 questions would give 20 and multiples of 0.05. The total is the mean of the categories to within {np.nanmax(gap):.2f}."
    )
    if tenths[known].mean() < 0.8:
        return []
    return [
        Finding("judgements", "MT-Bench: one turn, not two", "low", [], ["mtbench-0", *parts], text, "kept; n = 80 judgements, not 160")
    ]
