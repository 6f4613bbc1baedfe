"""The findings that a study is asked for: each a pure function of its tables. Those about scores are here."""

from dataclasses import replace

import polars as pl

from sft_atlas.analyse import select
from sft_atlas.report.findings import METHODS, Finding, Statement, bullets, clear, evidence, needs, wording
from sft_atlas.report.sections.inside import base_share, dimension, weight_change
from sft_atlas.report.sections.why import layers_and_gain, perplexity, predictors, what_rules_the_map
from sft_atlas.stats.estimates import FEWEST_CLUSTERS, ITEM_NOISE, Estimate, combined, most_similar, paired_difference, wilson

POINTS = {"scale": 100, "unit": " points", "digits": 1}


def headlines(tables: dict[str, pl.DataFrame], study: dict) -> list[Finding]:
    """All findings, in the order of the page; a study without the runs for one gets a section that says which it would take."""
    return [
        moved(tables["gains"], study),
        extremes(tables["gains"], study),
        similar_sets(tables["gains"], study),
        perplexity(tables, study),
        predictors(tables["predictors"]),
        methods(tables["gains"], study),
        weight_change(tables["layers"], study),
        layers_and_gain(tables["layer_peaks"]),
        dimension(tables["dimension"], study),
        base_share(tables["likelihood"], study),
        what_rules_the_map(tables["map_shares"], tables["map_effects"]),
        epochs_and_size(tables["gains"], study),
        leave_one_out(tables["scores"], study),
    ]


def label(study: dict, kind: str, name: str) -> str:
    """The label of a model, dataset or benchmark."""
    return study[kind][name].get("label", name)


def moved(gains: pl.DataFrame, study: dict) -> Finding:
    """How many single-set runs moved any benchmark."""
    title = "How many runs moved a benchmark"
    cells = select.tested(select.single(gains, study))
    if cells.is_empty():
        return needs(title, "gains", "runs on single training sets")
    runs = cells.group_by(select.RUN).agg(pl.col("moved").any(), (pl.col("q") < select.SIGNIFICANT).any().alias("told"), pl.len())
    chance = 1 - (1 - 0.0455) ** float(runs["len"].mean())
    share = wilson(int(runs["moved"].sum()), runs.height, "share of runs with a benchmark beyond 2 SE", "single-set runs")
    distinct = cells.filter(pl.col("q") < select.SIGNIFICANT)
    rise = int((distinct["gain"] > 0).sum())
    text = "moved at least one benchmark by more than 2 standard errors"
    note = (
        f"By chance alone about {100 * chance:.0f} % of runs would, with {runs['len'].max()} benchmarks each; runs of a base model "
        f"share the error of its base score, so they do so together, and the interval, which counts them as independent, is too narrow."
    )
    corrected = (
        f"Corrected over all {cells.height} gains (false discovery rate 5 %): {distinct.height} gains differ from 0, {rise} up and "
        f"{distinct.height - rise} down, in {int(runs['told'].sum())} of {runs.height} runs."
    )

    def tell(estimate: Estimate, q: float) -> str:
        return f"{evidence(estimate, q, scale=100, unit=' %', digits=0)}: this share {text}."

    return Finding(title, "gains", [Statement(share, tell)], [note, corrected], also=("consistency",))


def extremes(gains: pl.DataFrame, study: dict) -> Finding:
    """The training set with the highest and the lowest mean gain on each benchmark."""
    title = "Highest and lowest training set per benchmark"
    cells = select.single(gains, study)
    method = select.leading_method(cells)
    cells = select.of_leading_method(cells)
    sets = cells["dataset"].n_unique()
    if sets < 2:
        return needs(title, "gains", "runs on two or more single training sets")
    statements, rows = [], []
    for benchmark in study["benchmarks"]:
        part = cells.filter(pl.col("benchmark") == benchmark)
        if part.is_empty():
            continue
        groups = part.group_by("dataset", maintain_order=True)
        effects = [mean_effect(group, "gain", name, "base models", study["seed"], sets) for (name,), group in groups]
        effects = sorted((effect for effect in effects if effect.n), key=lambda effect: -effect.effect)
        if len(effects) > 1:
            rows.append(label(study, "benchmarks", benchmark))
            statements += [Statement(effect, lambda e, q: e.what) for effect in (effects[0], effects[-1])]

    def table(q: list[float]) -> list[str]:
        cell = [_extreme(statement.estimate, value, study) for statement, value in zip(statements, q, strict=True)]
        return aligned(
            ["benchmark", "highest mean gain", "lowest mean gain"], [[row, *cell[2 * i : 2 * i + 2]] for i, row in enumerate(rows)]
        )

    note = (
        f"{METHODS[method]}, mean over {cells['model'].n_unique()} base models, points. "
        f"A star: differs from 0 (p Bonferroni-corrected for the choice among {sets} sets, q < 0.05). "
        f"The highest of {sets} sets is on average overstated, so is the lowest."
    )
    return Finding(title, "gains", statements, [note, *noise_note(statements)], table)


def mean_effect(part: pl.DataFrame, value: str, what: str, unit: str, seed: int, tests: int) -> Estimate:
    """Mean of ``value`` over checkpoints (rows with ``model`` and ``stderr``), p Bonferroni-adjusted for ``tests`` looks.

    Where there are five base models, interval and p are over these, so that the spread between runs is in them; else over items.
    """
    known = part.drop_nulls(value)
    if known["model"].n_unique() < FEWEST_CLUSTERS:
        return combined(part[value], part["stderr"], what, unit, tests)
    found = paired_difference(known[value], known["model"], seed, what, "base models")
    return replace(found, p=min(1.0, found.p * tests))


def noise_note(statements: list[Statement]) -> list[str]:
    """What intervals and p of :func:`mean_effect` leave out where base models are too few, in words."""
    if not any(statement.estimate.interval_method == ITEM_NOISE for statement in statements):
        return []
    return [
        f"With fewer than {FEWEST_CLUSTERS} base models intervals and p hold the noise of items only. They are about these very checkpoints: "
        f"how much training once more, or another base model, would differ is not in them."
    ]


def _extreme(estimate: Estimate, q: float, study: dict) -> str:
    star = "*" if clear(estimate, q) else ""
    low, effect, high = (f"{100 * value:+.1f}" for value in (estimate.low, estimate.effect, estimate.high))
    return f"{label(study, 'datasets', estimate.what)} {effect}{star} [{low} to {high}]"


def aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table whose columns line up in a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in [head, *rows]]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def similar_sets(gains: pl.DataFrame, study: dict) -> Finding:
    """The two training sets whose gains agree most."""
    title = "Most similar training sets"
    names, wide = select.gain_vectors(gains, study, "dataset")
    if len(names) < 2 or wide.width < 3:
        return needs(title, "similarity", "runs on two or more training sets with three gains in common")
    labels = [label(study, "datasets", name) for name in names]
    found = most_similar(wide.to_numpy(), labels, study["seed"], zip(*(name.split("/") for name in wide.columns), strict=True))
    _, errors = select.gain_vectors(gains, study, "dataset", "stderr")
    shared = select.shared_error(
        wide.to_numpy(), errors.to_numpy(), [labels.index(name) for name in found.what.split(" and ") if name in labels]
    )

    def tell(estimate: Estimate, q: float) -> str:
        beyond = replace(estimate, low=min(estimate.low - shared, estimate.effect))
        verdict = wording(beyond, q, "their gains go together", "their gains oppose each other", "no clear relation between their gains")
        return f"{estimate.what}: {verdict}; r = {evidence(estimate, q)}."

    note = (
        f"p is for the highest of all pairs under independent shuffles of base models and benchmarks. Gains of a base model share the error "
        f"of its base score, which could make up to {shared:.2f} of r; the words above allow for that. "
        f"Observations are base models x benchmarks."
    )
    return Finding(title, "similarity", [Statement(found, tell)], [note], also=("components", "variance"))


def methods(gains: pl.DataFrame, study: dict) -> Finding:
    """LoRA against full tuning."""
    title = "LoRA against full tuning"
    pairs = select.method_pairs(gains, study)
    if pairs.is_empty():
        return needs(title, "lora_full", "runs with both methods on the same base models and training sets")

    def tell(estimate: Estimate, q: float) -> str:
        verdict = wording(estimate, q, "LoRA gained more", "LoRA gained less", "no clear difference")
        return f"{estimate.what}: {verdict}; {evidence(estimate, q, **POINTS)}."

    statements = [Statement(select.overall_difference(pairs, study["seed"], "All benchmarks, LoRA minus full"), tell)]
    for name in study["benchmarks"]:
        if name in set(pairs["benchmark"]):
            part = pairs.filter(pl.col("benchmark") == name)
            statements.append(Statement(select.overall_difference(part, study["seed"], label(study, "benchmarks", name)), tell))

    def lines(q: list[float]) -> list[str]:
        told = [(statement, value) for statement, value in zip(statements, q, strict=True)]
        shown = told[:1] + [(statement, value) for statement, value in told[1:] if clear(statement.estimate, value)]
        unclear = [statement.estimate.what for statement, value in told[1:] if not clear(statement.estimate, value)]
        listed = bullets([tell(statement.estimate, value) for statement, value in shown])
        return listed + (bullets([f"No clear difference on {', '.join(unclear)} (each tested; see the figure)."]) if unclear else [])

    return Finding(title, "lora_full", statements, select.units_note(pairs), lines)


def epochs_and_size(gains: pl.DataFrame, study: dict) -> Finding:
    """More epochs, and more rows."""
    title = "More epochs, more data"
    statements, notes = [], []

    def over_units(frame: pl.DataFrame, what: str) -> Estimate:
        labels, of = select.units(frame)
        return paired_difference(frame["difference"], labels, study["seed"], what, of)

    def tell(estimate: Estimate, q: float) -> str:
        verdict = wording(estimate, q, "the mean gain rose", "the mean gain fell", "no clear change of the mean gain")
        return f"{estimate.what}: {verdict}; {evidence(estimate, q, **POINTS)}."

    for name, frame in (("Single sets", select.trajectories(gains, study)), ("Merged set", select.merged_trajectories(gains, study))):
        if frame.is_empty():
            notes.append(f"{name}: it would take runs that keep two or more epochs.")
            continue
        change = select.epoch_change(frame)
        what = f"{name}, epoch {change['first'].min()} to {change['last'].max()}"
        statements.append(Statement(over_units(change, what), tell))
        notes += [f"{name}: {note[0].lower()}{note[1:]}" for note in select.units_note(change)]
    pairs = select.size_pairs(gains, study)
    if pairs.is_empty():
        notes.append("Size: it would take runs on the same training sets at two sizes.")
    else:
        what = f"{pairs['small'].min():,} to {pairs['large'].max():,} rows"
        statements.append(Statement(over_units(pairs, what), tell))
        notes += [f"Size: {note[0].lower()}{note[1:]}" for note in select.units_note(pairs)]
    return Finding(title, "epochs", statements, notes)


def leave_one_out(scores: pl.DataFrame, study: dict) -> Finding:
    """The training set whose absence changed the mean score most."""
    title = "Leaving one training set out"
    cells = select.left_out(scores, study).drop_nulls("difference")
    if cells.is_empty():
        return needs(title, "leave_one_out", "runs on a merged set and on the same set without each of its parts")
    sets = cells["removed"].n_unique()
    effects = [
        mean_effect(part, "difference", label(study, "datasets", name), "scores", study["seed"], sets)
        for (name,), part in cells.group_by("removed", maintain_order=True)
    ]
    largest = max(effects, key=lambda effect: abs(effect.effect))

    def tell(estimate: Estimate, q: float) -> str:
        mean = "the mean score" + (" of these checkpoints" if estimate.interval_method == ITEM_NOISE else "")
        verdict = wording(estimate, q, f"{mean} rose", f"{mean} fell", f"no clear change of {mean}")
        return f"Largest of {sets}, without {estimate.what}: {verdict}; {evidence(estimate, q, **POINTS)}."

    beyond = int((cells["difference"].abs() > 2 * cells["stderr"]).sum())
    note = (
        f"{beyond} of {cells.height} scores differ by more than 2 SE (about {0.0455 * cells.height:.0f} by chance). "
        f"Standard errors treat the items of both runs as independent, which overstates them; p is Bonferroni-corrected for {sets} sets."
    )
    told = [Statement(largest, tell)]
    return Finding(title, "leave_one_out", told, [note, *noise_note(told)])
