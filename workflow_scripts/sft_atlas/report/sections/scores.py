"""Findings about scores: which training sets, methods, epochs and sizes change them."""

from dataclasses import replace

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.markdown import bullets, table
from sft_atlas.report.findings import WIDTH, Finding, Statement, compare, unavailable
from sft_atlas.stats.estimates import BOTH_NOISES, FEWEST_CLUSTERS, ITEM_NOISE, Estimate, combined, most_similar, paired_difference, wilson
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, describe, is_significant, label, sentence_case, verdict

POINTS = {"scale": 100, "unit": " points", "digits": 1}


def changed(gains: pl.DataFrame, study: dict) -> Finding:
    """How many single-set runs changed the score of any benchmark."""
    title = "Runs with changed scores"
    cells = select.tested(select.single(gains, study))
    if cells.is_empty():
        return unavailable(title, "gains", "runs on single training sets")
    cells = cells.filter(pl.col("stderr").is_not_null())  # imported scores may have none
    if cells.is_empty():
        return unavailable(title, "gains", "gains with a standard error")
    runs = cells.group_by(select.RUN).agg(pl.col("moved").any(), (pl.col("q") < SIGNIFICANT).any().alias("significant"), pl.len())
    chance = 1 - (1 - 0.0455) ** float(runs["len"].mean())
    share = wilson(
        int(runs["moved"].sum()), runs.height, "Runs with at least one score changed by more than 2 standard errors", "single-set runs"
    )
    significant = cells.filter(pl.col("q") < SIGNIFICANT)
    up = int((significant["gain"] > 0).sum())
    notes = [
        f"By chance alone, about {100 * chance:.0f} % of runs would, with {runs['len'].max()} benchmarks each. Runs of a base model share the "
        "error of its base score; the interval treats them as independent and is too narrow.",
        f"After correction over all {cells.height:,} gains (false discovery rate 5 %), {significant.height:,} are significant, {up:,} up and "
        f"{significant.height - up:,} down, in {int(runs['significant'].sum()):,} of {runs.height:,} runs.",
    ]
    headline = (
        f"Of {cells.height:,} gains, {significant.height:,} are significant after correction: {up:,} up, {significant.height - up:,} down."
    )

    def sentence(estimate: Estimate, q: float) -> str:
        return f"{estimate.what}: {describe(estimate, q, scale=100, unit=' %', digits=0)}."

    return Finding(
        title,
        "gains",
        [Statement(share, sentence)],
        notes,
        more_figures=("consistency",),
        headline=lambda _: headline if significant.height else None,
    )


def extremes(gains: pl.DataFrame, study: dict) -> Finding:
    """The training set with the highest and the lowest mean gain on each benchmark."""
    title = "Best and worst training set per benchmark"
    cells = select.of_leading_method(select.single(gains, study))
    method, sets = select.leading_method(cells), cells["dataset"].n_unique()
    if sets < 2:
        return unavailable(title, "gains", "runs on two or more single training sets")
    statements, benchmarks = [], []
    for benchmark in study["benchmarks"]:
        part = cells.filter(pl.col("benchmark") == benchmark)
        if part.is_empty():
            continue
        groups = part.group_by("dataset", maintain_order=True)
        effects = [mean_effect(group, "gain", name, "base models", study["seed"], sets) for (name,), group in groups]
        effects = sorted((effect for effect in effects if effect.n), key=lambda effect: -effect.effect)
        if len(effects) > 1:
            benchmarks.append(label(study, "benchmarks", benchmark))
            statements += [Statement(effect, lambda estimate, q: estimate.what) for effect in (effects[0], effects[-1])]

    def body(q: list[float]) -> list[str]:
        cell = [_extreme(statement.estimate, value, study) for statement, value in zip(statements, q, strict=True)]
        rows = [[benchmark, *cell[2 * i : 2 * i + 2]] for i, benchmark in enumerate(benchmarks)]
        return table(["benchmark", "highest mean gain", "lowest mean gain"], rows)

    def headline(q: list[float]) -> str | None:
        pairs = zip(statements, q, [name for name in benchmarks for _ in range(2)], strict=True)
        found = [(one.estimate, value, name) for one, value, name in pairs if is_significant(one.estimate, value)]
        if not found:
            return None
        largest, value, benchmark = max(found, key=lambda entry: abs(entry[0].effect))
        return (
            f"{label(study, 'datasets', largest.what)} changes {benchmark} most of all sets and benchmarks: "
            f"mean gain {describe(largest, value, **POINTS)}; {len(found)} of {len(statements)} extremes are significant."
        )

    note = (
        f"{sentence_case(METHODS[method])}, mean over {cells['model'].n_unique()} base models, in points. *: significant (p Bonferroni-corrected for "
        f"{sets} training sets, q < 0.05). Choosing the extremes of {sets} sets overstates them on average."
    )
    return Finding(title, "gains", statements, [note, *noise_note(statements)], body, headline=headline)


def mean_effect(part: pl.DataFrame, value: str, what: str, unit: str, seed: int, tests: int) -> Estimate:
    """Mean of ``value`` over checkpoints (rows with ``model`` and ``stderr``), p Bonferroni-adjusted for ``tests`` looks.

    Where there are five base models, interval and p are over these, so that the spread between runs is in them; else over items.
    """
    known = part.drop_nulls(value)
    if known["model"].n_unique() < FEWEST_CLUSTERS:
        if "seed_df" not in part.columns:
            return combined(part[value], part["stderr"], what, unit, tests)
        training = [part[name].cast(pl.Float64).fill_null(np.nan) for name in ("seed_stderr", "run_stderr", "seed_df")]
        runs = part.select(pl.concat_str("model", "recipe", separator="/")).to_series()
        return combined(part[value], part["item_stderr"], what, unit, tests, training, runs)
    estimate = paired_difference(known[value], known["model"], seed, what, "base models")
    return replace(estimate, p=min(1.0, estimate.p * tests))


def noise_note(statements: list[Statement]) -> list[str]:
    """What intervals and p of :func:`mean_effect` leave out where base models are too few, in words."""
    methods = {statement.estimate.interval_method for statement in statements}
    notes = []
    if BOTH_NOISES in methods:
        notes.append(
            f"With fewer than {FEWEST_CLUSTERS} base models, intervals and p reflect the sampling of items and training once more with another "
            "seed. They hold for these base models."
        )
    if ITEM_NOISE not in methods:
        return notes
    return [
        *notes,
        f"With fewer than {FEWEST_CLUSTERS} base models, intervals and p {'of recipes with one seed ' if notes else ''}reflect the sampling of items only. "
        "They hold for these checkpoints, not for another training run or another base model.",
    ]


def _extreme(estimate: Estimate, q: float, study: dict) -> str:
    star = "*" if is_significant(estimate, q) else ""
    low, effect, high = (f"{100 * value:+.1f}" for value in (estimate.low, estimate.effect, estimate.high))
    return f"{label(study, 'datasets', estimate.what)} {effect}{star} [{low} to {high}]"


def similar_sets(gains: pl.DataFrame, study: dict) -> Finding:
    """The two training sets whose gains agree most."""
    title = "Most similar training sets"
    names, wide = select.gain_vectors(gains, study, "dataset")
    if len(names) < 2 or wide.width < 3:
        return unavailable(title, "similarity", "runs on two or more training sets with three gains in common")
    labels = [label(study, "datasets", name) for name in names]
    pair = most_similar(wide.to_numpy(), labels, study["seed"], zip(*(name.split("/") for name in wide.columns), strict=True))
    _, errors = select.gain_vectors(gains, study, "dataset", "stderr")
    shared = select.shared_error(
        wide.to_numpy(), errors.to_numpy(), [labels.index(name) for name in pair.what.split(" and ") if name in labels]
    )

    def beyond_shared_error(estimate: Estimate) -> Estimate:
        return replace(estimate, low=min(estimate.low - shared, estimate.effect))

    def significant(estimate: Estimate, q: float) -> bool:
        return is_significant(beyond_shared_error(estimate), q)

    def sentence(estimate: Estimate, q: float) -> str:
        result = verdict(
            beyond_shared_error(estimate),
            q,
            "gains correlate positively",
            "gains correlate negatively",
            "no significant correlation of gains",
        )
        return f"{estimate.what}: {result}; r = {describe(estimate, q)}."

    known = np.isfinite(errors.to_numpy().astype(float)).any()
    allowed = (
        f"which could account for up to {shared:.2f} of r; the verdict allows for that"
        if known
        else "of unknown size, so that the verdict cannot allow for it"
    )
    note = (
        "p is for the highest r of all pairs, shuffling base models and benchmarks independently. Gains of a base model share the error of "
        f"its base score, {allowed}. Observations are base models x benchmarks."
    )
    return Finding(title, "similarity", [Statement(pair, sentence, significant)], [note], more_figures=("components", "variance"))


def methods(gains: pl.DataFrame, study: dict) -> Finding:
    """LoRA against full fine-tuning."""
    title = "LoRA compared with full fine-tuning"
    pairs = select.method_pairs(gains, study)
    if pairs.is_empty():
        return unavailable(title, "lora_full", "runs with both methods on the same base models and training sets")
    sentence = compare("LoRA gains more", "LoRA gains less", "no significant difference", **POINTS)
    statements = [Statement(select.overall_difference(pairs, study["seed"], "All benchmarks, LoRA minus full"), sentence)]
    for name in study["benchmarks"]:
        if name in set(pairs["benchmark"]):
            part = pairs.filter(pl.col("benchmark") == name)
            statements.append(Statement(select.overall_difference(part, study["seed"], label(study, "benchmarks", name)), sentence))

    def body(q: list[float]) -> list[str]:
        overall, *single = [(statement.estimate, value) for statement, value in zip(statements, q, strict=True)]
        shown = [overall, *(pair for pair in single if is_significant(*pair))]
        texts = [sentence(*pair) for pair in shown]
        rest = [pair for pair in single if not is_significant(*pair)]
        for decidable, words in ((True, "No significant difference"), (False, "Cannot be decided with so few units")):
            if names := [estimate.what for estimate, _ in rest if estimate.decidable is decidable]:
                texts.append(f"{words} on {', '.join(names)} (see the figure).")
        return bullets(texts, WIDTH)

    return Finding(title, "lora_full", statements, select.units_note(pairs), body)


def epochs_and_size(gains: pl.DataFrame, study: dict) -> Finding:
    """More epochs, and more rows."""
    title = "Effects of epochs and training set size"
    statements, notes = [], []
    sentence = compare("mean gain increases", "mean gain decreases", "no significant change of the mean gain", **POINTS)

    def add(name: str, frame: pl.DataFrame, what: str) -> None:
        statements.append(Statement(select.mean_difference(frame, study["seed"], what), sentence))
        notes.extend(f"{name}: {note[0].lower()}{note[1:]}" for note in select.units_note(frame))

    for name, frame in (("Single sets", select.trajectories(gains, study)), ("Merged set", select.merged_trajectories(gains, study))):
        if frame.is_empty():
            notes.append(f"{name}: not available in this study, needs runs that keep two or more epochs.")
            continue
        change = select.epoch_change(frame)
        add(name, change, f"{name}, epoch {change['first'].min()} to {change['last'].max()}")
    notes += [f"Single sets: {line}" for line in _recipes_without_course(gains, study)]
    pairs = select.size_pairs(gains, study)
    if pairs.is_empty():
        notes.append("Size: not available in this study, needs runs on the same training sets at two sizes.")
    else:
        add("Size", pairs, f"{pairs['small'].min():,} to {pairs['large'].max():,} rows")
    return Finding(title, "epochs", statements, notes, more_figures=("training_curves",))


def _recipes_without_course(gains: pl.DataFrame, study: dict) -> list[str]:
    """Which recipes that keep two or more epochs :func:`sft_atlas.analyse.select.trajectories` leaves out."""
    single = gains.filter(pl.col("dataset").is_in(select.kinds(study, "single")))
    several = single.filter(pl.col("epoch").n_unique().over(select.RUN) > 1)["recipe"].unique(maintain_order=True)
    taken = select.trajectories(gains, study)["recipe"].unique(maintain_order=True).to_list()
    others = [study["recipes"][name]["label"] for name in several if name not in taken]
    if not others:
        return []
    return [
        f"runs of {', '.join(study['recipes'][name]['label'] for name in taken)}; left out, as of another method or schedule: {', '.join(others)}."
    ]


def leave_one_out(scores: pl.DataFrame, study: dict) -> Finding:
    """The training set whose absence changed the mean score most."""
    title = "Leaving one training set out"
    cells = select.left_out(scores, study).drop_nulls("difference")
    if cells.is_empty():
        return unavailable(title, "leave_one_out", "runs on a merged set and on the same set without each of its parts")
    sets = cells["removed"].n_unique()
    effects = [
        mean_effect(
            part, "difference", f"Largest of {sets} effects, without {label(study, 'datasets', name)}", "scores", study["seed"], sets
        )
        for (name,), part in cells.group_by("removed", maintain_order=True)
    ]
    largest = max(effects, key=lambda effect: abs(effect.effect))
    mean = "mean score of these checkpoints" if largest.interval_method == ITEM_NOISE else "mean score"
    sentence = compare(f"higher {mean}", f"lower {mean}", f"no significant change of the {mean}", **POINTS)
    beyond = int((cells["difference"].abs() > 2 * cells["stderr"]).sum())
    note = (
        f"{beyond:,} of {cells.height:,} scores differ by more than 2 SE (about {0.0455 * cells.height:,.0f} by chance). "
        f"Standard errors treat the items of both runs as independent, which overstates them; p is Bonferroni-corrected for {sets} sets."
    )
    statements = [Statement(largest, sentence)]
    return Finding(title, "leave_one_out", statements, [note, *noise_note(statements)])
