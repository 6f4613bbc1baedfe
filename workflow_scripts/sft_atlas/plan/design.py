"""Propose the runs that answer a question within a budget: base models x training sets x seeds, with the power to see a difference of a given size.

A comparison's variance is put together from its components (:mod:`sft_atlas.analyse.contrast`), and its power is that of the tests which the
findings use (:mod:`sft_atlas.stats.power`). docs/study-design.md derives the formulas.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from sft_atlas.analyse import contrast, select
from sft_atlas.analyse.contrast import Components, Part
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_table, write_text
from sft_atlas.core.job import long_text
from sft_atlas.core.markdown import bullets, table, wrap
from sft_atlas.plan import cost
from sft_atlas.plan.cost import Triple
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.graph import DONE, TO_DO, Decision
from sft_atlas.plan.own_data import OwnData
from sft_atlas.stats import power
from sft_atlas.stats.estimates import EXACT_CLUSTERS, smallest_p
from sft_atlas.stats.power import POWER
from sft_atlas.stats.wording import SIGNIFICANT, count
from sft_atlas.study.designs import Question
from sft_atlas.study.paths import Paths
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
from sft_atlas.study.runs import Checkpoint
from sft_atlas.study.schema import Design
from sft_atlas.study.site import device
from sft_atlas.study.study import Study, from_config

SEEDS = (1, 2, 3, 4, 5, 6, 8, 10)
MOST = 24  # base models that are considered, also those that the study does not have
FEWER = 0.94  # a design is in the table if it sees a difference this much smaller than all cheaper ones
PAPER = "published scores"
UNITS = {"models": "base models", "sets": "training sets"}
ONE_SEED = "one seed: the noise of training is not in such a study"


# ---------------------------------------------------------------- one design


@dataclass(frozen=True)
class Size:
    """A design: numbers of base models, training sets and seeds, and the share of items that is scored."""

    models: int
    sets: int
    seeds: int
    items: float = 1.0


@dataclass(frozen=True)
class Sight:
    """What a design sees. ``stderr`` of the comparison (points), ``power`` for the effect asked about, ``smallest`` effect seen with power 0.8, and
    that with every component at the low and the high end of its interval. NaN where it is not known, ``why`` says the reason."""

    units: int
    stderr: float = np.nan
    df: float = np.nan
    power: float = np.nan
    smallest: float = np.nan
    low: float = np.nan
    high: float = np.nan
    why: str = ""


def variance(size: Size, parts: Components, question: str, population: str) -> float | None:
    """Squared points: of the difference in one unit (base model or training set), or with ``these`` of the mean difference over all runs.

    None where a component that it needs is not known.
    """
    items = parts.items.variance if parts.items else None
    run, score = (part.variance if part else None for part in (parts.run, parts.score))
    extra = 0.0
    if size.items < 1:  # fewer items: the noise of each answer grows, that which seeds share included
        if None in (run, items, score):
            return None
        run, extra = run + items * (1 / size.items - 1), max(0.0, score - items) * (1 / size.items - 1)
    cells = {"models": 1 if question == "sets" else size.sets, "sets": size.models}
    if population == "these":
        if run is None:
            return None
        shared = 0.0 if score is None else max(0.0, score - (items or 0.0)) / size.items  # of the items, by all seeds of a cell
        each = size.models * (1 if question == "sets" else size.sets)
        return 2 * (run / size.seeds + shared) / each
    unit = Part(0.0) if question == "sets" else parts.model if population == "models" else parts.dataset
    cell = parts.cell or (Part(0.0) if unit and question != "sets" else None)
    if unit is None or cell is None:
        return None
    if parts.confounded:
        if size.seeds > 1 or size.items < 1:
            return None
        return 2 * (unit.variance + cell.variance / cells[population])
    return None if run is None else 2 * (unit.variance + (cell.variance + run / size.seeds + extra) / cells[population])


def sight(size: Size, parts: Components, asked: Design, comparisons: int) -> Sight:
    """What a design sees of the difference that is asked about."""
    if asked.question == "seeds":
        return sight_of_seeds(size, parts, asked)
    level = SIGNIFICANT / comparisons
    ends = [variance(size, each, asked.question, asked.population) for each in (parts, at_ends(parts, "low"), at_ends(parts, "high"))]
    found, *ends = (ends[0], np.nan, np.nan) if ends[1] == ends[2] else ends  # no interval, as of what is stated
    if asked.population == "these":
        df, units = float(size.models * size.sets * (size.seeds - 1)), size.models * (1 if asked.question == "sets" else size.sets)
        if size.seeds == 1:
            return Sight(units, why=ONE_SEED)
        if found is None:
            return Sight(units, why="the noise of training is not known")
        # Satterthwaite: only the part between seeds is estimated with few degrees of freedom.
        of_runs = 2 * parts.run.variance / size.seeds / units
        free = found**2 / (of_runs**2 / df) if of_runs > 0 else 1e9
        stderr = float(np.sqrt(found))
        shift = power.t_shift(round(free, 1), level)
        seen = [float(shift * np.sqrt(end)) for end in (found, *ends)]
        return Sight(units, stderr, free, power.t_power(asked.effect / stderr, free, level) if stderr else 1.0, *seen)
    units = size.models if asked.population == "models" else size.sets
    if not smallest_p(units) <= level:
        return Sight(units, why=f"sign flips of {count(units, UNITS[asked.population])} reach no p below {smallest_p(units):.2g}")
    if found is None:
        noise = (parts.run is None and (size.seeds > 1 or size.items < 1)) or (size.items < 1 and parts.score is None)
        if noise and (parts.cell or parts.model or parts.dataset):
            return Sight(units, why="the noise of training and of items is not known")
        return Sight(units, why="the variance of the difference between units is not known (state interaction_sd)")
    ratio = power.sign_flip_ratio(units, level)
    deviation = float(np.sqrt(found))
    seen = [float(ratio * np.sqrt(end)) for end in (found, *ends)]
    reached = power.sign_flip_power(units, asked.effect / deviation, level) if deviation else 1.0
    return Sight(units, deviation / np.sqrt(units), units - 1.0, reached, *seen)


def at_ends(parts: Components, end: str) -> Components:
    """With each component at the low or high end of its interval, where it has one."""
    moved = {}
    for name in ("model", "dataset", "cell", "run"):
        part = getattr(parts, name)
        if part is not None and np.isfinite(getattr(part, end)):
            moved[name] = replace(part, variance=getattr(part, end))
    return replace(parts, **moved)


def sight_of_seeds(size: Size, parts: Components, asked: Design) -> Sight:
    """Whether the standard deviation between seeds is shown to exceed ``effect``: one-sided chi-square test over the cells."""
    cells = size.models * size.sets
    if size.seeds == 1:
        return Sight(cells, why=ONE_SEED)
    df = float(cells * (size.seeds - 1))
    smallest = asked.effect * power.deviation_ratio(df, SIGNIFICANT)
    if parts.run is None:
        return Sight(cells, np.nan, df, np.nan, smallest)
    deviation = np.sqrt(parts.run.variance)
    reached = power.deviation_power(deviation / asked.effect, df, SIGNIFICANT) if deviation else 0.0
    return Sight(cells, float(deviation / np.sqrt(2 * df)), df, reached, smallest)


# ---------------------------------------------------------------- what designs cost


@dataclass(frozen=True)
class Hours:
    """Device-hours (low, likely, high) of the runs of all recipes and of scoring the base models."""

    training: np.ndarray  # base models x training sets x seeds x 3
    scoring: np.ndarray  # the same shape
    bases: np.ndarray  # base models x 3

    def of(self, size: Size) -> np.ndarray:
        """Of the first base models, training sets and seeds."""
        runs = np.s_[: size.models, : size.sets, : size.seeds]
        scoring = self.scoring[runs].sum(axis=(0, 1, 2)) + self.bases[: size.models].sum(axis=0)
        return self.training[runs].sum(axis=(0, 1, 2)) + size.items * scoring


@dataclass(frozen=True)
class Costs:
    """Device-hours of designs: what is ``left`` to do of them, and as a ``whole``."""

    left: Hours
    whole: Hours
    seeds: tuple[int, ...]

    def of(self, size: Size) -> Triple:
        """What is left of a design; each model that the study does not have costs the mean of those that it has, from the start."""
        here = min(size.models, len(self.left.bases))
        hours = self.left.of(replace(size, models=here))
        if size.models > here:
            hours = hours + (size.models - here) / here * self.whole.of(replace(size, models=here))
        return tuple(hours.tolist())


def block(size: Size, question: Question, seeds: tuple[int, ...], one_seed: bool = False) -> dict:
    """The entry of a design in `blocks`; ``one_seed``: name the seed although there is one."""
    entry = {
        "label": f"Proposed: {question.asked.question}",
        "models": list(question.models[: size.models]),
        "datasets": list(question.datasets[: size.sets]),
        "recipes": list(question.recipes),
    }
    if size.seeds > 1 or one_seed:
        entry["seeds"] = list(seeds[: size.seeds])
    return {**entry, "measure_representation": False}


def costs(config: dict, question: Question, devices: Path, root: Path) -> Costs:
    """What runs of the question cost in the study ``config``, whose finished jobs cost nothing and correct the forecast of the others."""
    study = from_config({key: value for key, value in config.items() if key != "select"}, "the study")
    own = {study.file.recipes[name].seed for name in question.recipes}
    first = sorted(own)[:1] if len(own) == 1 else []
    seeds = tuple([*first, *(seed for seed in range(max(SEEDS) + 1) if seed not in first)][: max(SEEDS)])
    largest = block(Size(len(question.models), len(question.datasets), len(seeds)), question, seeds)
    blocks = {name: entry for name, entry in config["blocks"].items() if name != question.block} | {question.block: largest}
    study = from_config(
        {key: value for key, value in config.items() if key != "select"} | {"blocks": blocks}, "the study with the proposed runs"
    )
    paths = Paths(root)
    plain = Forecast(study, device(devices, study.file.plan.device, "plan.device"), root, None, OwnData(study, paths))
    outputs = {
        paths.log("train", *run.key): paths.fill(paths.record, model=run.model, dataset=run.dataset, recipe=run.folder)
        for run in study.runs.values()
    }
    outputs |= {str(plain.log_of(c, suite)): paths.of(paths.scores, c, suite=suite) for c, suite in plain.scorings()}
    decisions = [Decision("", log, DONE if Path(output).exists() else TO_DO) for log, output in outputs.items()]
    forecast = Forecast(study, plain.device, root, decisions, plain.own)
    jobs = {str(job.log): job for job in forecast.jobs}
    if unknown := sorted({job.kind for job in jobs.values() if job.seconds is None}):
        raise AtlasError(
            f"the study says too little to forecast {', '.join(unknown)}: state plan.tokens, plan.load and models.NAME.parameters, as `snakemake plan` lists"
        )

    scored: dict[tuple, list[str]] = {}
    for checkpoint, suite in plain.scorings():
        scored.setdefault(checkpoint.run, []).append(str(plain.log_of(checkpoint, suite)))

    def of_all(there: bool) -> Hours:
        """Of every run and base model; ``there``: finished jobs too."""

        def hours(logs: Iterable[str]) -> Triple:
            return cost.scale(cost.add(jobs[log].device_seconds for log in logs if there or jobs[log].left), 1 / 3600)

        bases = np.array([hours(scored[Checkpoint.of_base(model).run]) for model in question.models])
        training = np.zeros((len(question.models), len(question.datasets), len(seeds), 3))
        scoring = np.zeros_like(training)
        for run in study.runs.values():
            if question.block in run.blocks:
                place = question.models.index(run.model), question.datasets.index(run.dataset), seeds.index(run.settings.seed)
                training[place] += hours([paths.log("train", *run.key)])
                scoring[place] += hours(scored[run.key])
        return Hours(training, scoring, bases)

    return Costs(of_all(there=False), of_all(there=True), seeds)


# ---------------------------------------------------------------- all designs


@dataclass(frozen=True)
class Row:
    """A design with what it costs and sees."""

    size: Size
    hours: Triple
    sight: Sight
    runs: int
    there: bool  # whether the study has that many base models

    def answers(self) -> bool:
        """Whether it has the power that is asked for."""
        return self.sight.power >= POWER


@dataclass(frozen=True)
class Designs:
    """Every design that was considered, by hours, and what it rests on."""

    question: Question
    parts: Components
    costs: Costs
    source: str

    @cached_property
    def rows(self) -> list[Row]:
        asked, sets = self.question.asked, len(self.question.datasets)
        counts = [sets] if asked.question == "sets" else sorted({*range(1, min(sets, 6) + 1), *range(8, sets, 2), sets})
        found = []
        for models in range(1, max(MOST, len(self.question.models)) + 1):
            for each in counts:
                for seeds in SEEDS:
                    for items in sorted(set(asked.items)):
                        size = Size(models, each, seeds, items)
                        seen = sight(size, self.parts, asked, self.question.comparisons)
                        runs = models * each * seeds * len(self.question.recipes)
                        found.append(Row(size, self.costs.of(size), seen, runs, models <= len(self.question.models)))
        return sorted(found, key=lambda row: (row.hours[1], row.runs))

    @property
    def recommended(self) -> Row | None:
        """The cheapest design with the power asked for that the budget and the study's base models allow."""
        return next((row for row in self.rows if row.answers() and row.there and row.hours[1] <= self.question.asked.budget), None)

    @property
    def smallest(self) -> Row | None:
        """The cheapest design with that power, whatever it costs; of base models that the study has, where there is one."""
        able = [row for row in self.rows if row.answers()]
        return next((row for row in able if row.there), able[0] if able else None)

    @property
    def best(self) -> Row | None:
        """What sees the smallest difference within the budget."""
        rows = [row for row in self.rows if row.there and row.hours[1] <= self.question.asked.budget and np.isfinite(row.sight.smallest)]
        return min(rows, key=lambda row: row.sight.smallest, default=None)

    @cached_property
    def shown(self) -> list[Row]:
        """The trade-off: designs up to three times the budget that see a smaller difference than every cheaper one, first of base models that the
        study has, then with more; and those that are named."""
        named, best, found = [self.recommended, self.smallest, self.best], np.inf, []
        for there in (True, False):
            for row in (row for row in self.rows if row.there is there):
                better = row.sight.smallest < FEWER * best and row.hours[1] <= 3 * self.question.asked.budget
                if better or any(row is other for other in named):
                    best = min(best, row.sight.smallest)
                    found.append(row)
        return found


# ---------------------------------------------------------------- in words


def comparison(question: Question, size: Size | None = None) -> str:
    """What is compared."""
    recipes = " and ".join(question.recipes)
    return {
        "sets": f"two of {count(len(question.datasets), 'training sets')} ({recipes})",
        "methods": f"the recipes {recipes}",
        "sizes": f"the recipes {recipes}",
        "seeds": f"the standard deviation between seeds ({recipes})",
    }[question.asked.question]


def population(question: Question, items: bool) -> str:
    """What the answer holds for; ``items``: whether the noise of items is known."""
    if question.asked.question == "seeds":
        return "these base models and training sets, trained again, on the same items"
    return {
        "models": "base models like these, on the same items" + ("" if question.asked.question == "sets" else " and training sets"),
        "sets": "training sets like these, with these base models, on the same items",
        "these": "these base models and training sets alone, trained again, " + ("with items like these" if items else "on the same items"),
    }[question.asked.population]


def in_words(row: Row, question: Question) -> str:
    """A design in one phrase."""
    size = row.size
    text = f"{count(size.models, 'base models')} x {count(size.sets, 'training sets')} x {count(size.seeds, 'seeds')}"
    text += f" x {len(question.recipes)} recipes" if len(question.recipes) > 1 else ""
    text += f", {100 * size.items:.3g} % of the items" if size.items < 1 else ""
    return f"{text} ({count(row.runs, 'runs')}, {hours(row.hours)} device-hours)"


def hours(triple: Triple) -> str:
    """Likely hours and their range."""
    low, likely, high = (f"{cost.round_digits(value, 3):,.10g}" for value in triple)
    return f"{likely} ({low} to {high})"


def verdict(designs: Designs) -> str:
    """The recommendation, or why there is none and what the smallest design that can would cost."""
    asked, question = designs.question.asked, designs.question
    what = f"see a difference of {asked.effect:g} points"
    if asked.question == "seeds":
        size = f", if it is {np.sqrt(designs.parts.run.variance):.2g}" if designs.parts.run else ""
        what = f"show that the standard deviation between seeds is above {asked.effect:g} points{size}"
    if row := designs.recommended:
        seen = f"it sees {row.sight.smallest:.2g} points with power {POWER}"
        return f"Recommended: {in_words(row, question)}: power {row.sight.power:.2f} to {what}; {seen}."
    text = f"No design within {asked.budget:g} device-hours can {what} with power {POWER}"
    row = designs.smallest
    if row is None:
        known = [row for row in designs.rows if np.isfinite(row.sight.smallest)]
        text += f", nor can any other of up to {MOST} base models and {max(SEEDS)} seeds"
        if known:
            closest = min(known, key=lambda row: row.sight.smallest)
            text += f": {in_words(closest, question)} sees {closest.sight.smallest:.2g} points"
        if reasons := dict.fromkeys(row.sight.why for row in designs.rows if "not known" in row.sight.why):
            text += f". Of {'the other' if known else 'all'} designs nothing can be said: {next(iter(reasons))}"
    else:
        more = row.size.models - len(question.models)
        text += f". The smallest one that can: {in_words(row, question)}"
        text += f", which needs {count(more, 'base models')} that the study does not have" if more > 0 else ""
    if best := designs.best:
        text += f". Within the budget, {in_words(best, question)} sees {best.sight.smallest:.2g} points"
    return text + "."


def components_table(designs: Designs) -> list[str]:
    """Every component with its interval and where it is from."""
    parts, asked = designs.parts, designs.question.asked
    seen = f"{designs.source}; n = {count(parts.models, 'base models')} x {count(parts.sets, 'training sets')}"
    replicated = f"{designs.source}; n = {count(parts.seeded, 'cells')} with several seeds"
    stated = "stated: interaction_sd"
    together = " and, as no cell has two seeds, of training once more and items" if parts.confounded else ""
    what = "two training sets" if asked.question == "sets" else "the two recipes"
    texts = {
        "model": (f"base model x {what}", stated if asked.interaction_sd is not None else seen),
        "dataset": (f"training set x {what}", stated if asked.interaction_sd is not None else seen),
        "cell": (
            "base model x training set" + ("" if asked.question == "sets" else f" x {what}"),
            stated if asked.interaction_sd is not None else seen,
        ),
        "run": ("training once more, on the same items", "stated: seed_sd" if asked.seed_sd is not None else replicated),
        "items": ("of that, due to the items", "not known with a stated seed_sd" if asked.seed_sd is not None else replicated),
        "score": ("one gain by its items (upper bound)", f"{designs.source}, standard errors of gains"),
    }
    of_units = [] if asked.question == "sets" else ["model" if asked.population == "models" else "dataset"]
    used = [*of_units, "cell", "run", "items", "score"]
    if asked.question == "seeds" or asked.population == "these":
        used = ["run", "items", *(["score"] if asked.question != "seeds" else [])]
    top = next((name for name in ("cell", "model", "dataset") if getattr(parts, name)), "")
    rows = []
    for name in used:
        part, (text, where) = getattr(parts, name), texts[name]
        if part is None:
            rows.append((text, "not known", "", "", "nothing at hand shows it"))
            continue
        interval = f"{np.sqrt(part.low):.2g} to {np.sqrt(part.high):.2g}" if np.isfinite(part.low) else "none"
        df = f"{part.df:.4g}" if np.isfinite(part.df) else ""
        rows.append((text + (together if name == top else ""), f"{np.sqrt(part.variance):.3g}", interval, df, where))
    return table(["component of one gain", "SD, points", "95 % interval", "df", "from"], rows)


def design_table(designs: Designs) -> list[str]:
    """The trade-off."""
    asked = designs.question.asked
    sd = asked.question == "seeds"
    head = [
        "", "base models", "training sets", "seeds", "items", "runs", "device-hours", "standard error" + (" of the SD" if sd else ""),
        "power" + (" for the SD above" if sd else f" at {asked.effect:g}"), f"smallest {'SD' if sd else 'difference'}, power {POWER}",
    ]  # fmt: skip
    rows = []
    for row in designs.shown:
        seen, size = row.sight, row.size
        mark = "recommended" if row is designs.recommended else "over budget" if row.hours[1] > asked.budget else ""
        mark = mark if row.there else "more base models than there are"
        smallest = f"{seen.smallest:.2g}" + (f" ({seen.low:.2g} to {seen.high:.2g})" if np.isfinite(seen.low + seen.high) else "")
        known = (f"{value:.2f}" if np.isfinite(value) else "not known" for value in (seen.stderr, seen.power))
        rows.append((mark, size.models, size.sets, size.seeds, f"{100 * size.items:.3g} %", row.runs, hours(row.hours), *known, smallest))
    return table(head, rows)


def notes(designs: Designs, label: str) -> Iterator[str]:
    """The test, its correction, and what the numbers leave out."""
    question, parts = designs.question, designs.parts
    asked, level = question.asked, SIGNIFICANT / question.comparisons
    if asked.question == "seeds":
        yield f"Test: one-sided chi-square that the standard deviation between seeds, pooled over cells, is above {asked.effect:g} points, at 0.05. Normal noise of the same size in all cells is supposed."
        if parts.run:
            needed = max(1, int(np.ceil(parts.run.variance / asked.effect**2)))
            yield f"Seeds needed for a gain's standard error by training of at most {asked.effect:g} points, with the noise of the source: {needed}."
    elif asked.population == "these":
        if parts.score:
            yield (
                "Test: t, two-sided, noise of items and of training (Satterthwaite's degrees of freedom). The items of two checkpoints count as "
                "unrelated: an upper bound, as in the findings."
            )
        else:
            yield "Test: t, two-sided, noise of training; that of items is not known and left out (Satterthwaite's degrees of freedom)."
    else:
        unit = UNITS[asked.population]
        yield f"Test: two-sided sign flips of whole {unit}, as in the findings (exact up to {EXACT_CLUSTERS}); it supposes normal effects for the power alone."
        fewest = next((n for n in range(2, EXACT_CLUSTERS + 1) if smallest_p(n) <= level), None)
        if fewest:
            yield f"At this level it needs {fewest} {unit} or more, however large the difference."
        else:
            yield f"No number of {unit} up to {EXACT_CLUSTERS} reaches this level exactly; compare fewer."
    if asked.question != "seeds":
        if question.comparisons > 1:
            yield f"Correction: Bonferroni over {count(question.comparisons, 'comparisons')}: level {level:.2g}."
        else:
            yield "Correction: none, as there is one comparison: level 0.05."
        if any(np.isfinite(row.sight.low + row.sight.high) for row in designs.shown):
            yield "In brackets: the smallest difference with every component at the low and the high end of its 95 % interval."
    if parts.confounded and asked.question != "seeds":
        yield (
            "The noise of training is not known: designs of one seed have it in their variance, and what more seeds would save cannot be said. State "
            "`seed_sd` (points) to see them."
        )
    if asked.population != "these" and asked.question != "seeds" and parts.score:
        floor = np.sqrt(2 * parts.score.variance)
        yield f"The answer is for these items. Another draw of them would move a difference by up to {floor:.2g} points (one standard error, upper bound), which no number of runs makes smaller."
    if PAPER in designs.source and parts.models:
        yield "The published scores are of the paper's base models (7 to 9 billion parameters) and benchmarks; other models and benchmarks vary otherwise."
    if asked.question != "sets" and asked.population == "models" and asked.question != "seeds":
        yield "Training sets are taken as they are: what only other sets would show is in no number."
    yield (
        f"Device-hours ({label}): training and scoring of the runs and of their base models, as `snakemake plan` forecasts them, likely (low to high); results that are "
        "there cost nothing, and a base model beyond the study's costs the mean of its own. The budget is compared with the likely hours."
    )


def page(designs: Designs, label: str) -> str:
    """The design as Markdown."""
    question = designs.question
    asked = question.asked
    aim = f"larger than {asked.effect:g} points" if asked.question == "seeds" else f"a difference of {asked.effect:g} points"
    lines = [
        f"# Design: {asked.question}", "",
        f"Compared: {comparison(question)}; benchmark: {asked.benchmark or 'mean over all'}; to be seen: {aim}; budget: {asked.budget:g} device-hours.", "",
        f"Holds for: {population(question, designs.parts.score is not None)}.", "", *wrap(verdict(designs)), "",
        "## Trade-off", "", *design_table(designs), "", "## Variance", "", *components_table(designs), "", *bullets(notes(designs, label)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def block_file(designs: Designs, one_seed: bool) -> str:
    """The recommended runs as YAML for a study file."""
    row, question = designs.recommended, designs.question
    how = "Proposed by `snakemake design`; paste it into `blocks` of the study, or give this file as a second --configfile."
    text = "".join(f"# {line}\n" for line in [how, *wrap(verdict(designs))])
    if row is None:
        return text + "blocks: {}\n"
    if row.size.items < 1:
        text += f"# Score {100 * row.size.items:.3g} % of each benchmark's items: set `items` of the benchmarks.\n"
    entry = block(row.size, question, designs.costs.seeds, one_seed)
    return text + yaml.safe_dump(
        {"blocks": {question.block: entry}}, sort_keys=False, default_flow_style=None, width=1000, allow_unicode=True
    )


ROWS = {
    **columns("question population source", TEXT),
    **columns("models sets seeds", WHOLE),
    "items": REAL,
    **columns("runs units", WHOLE),
    **columns("hours_low hours hours_high stderr df effect power smallest smallest_low smallest_high", REAL),
    **columns("available recommended", pl.Boolean),
    "why": TEXT,
}


def designs_table(designs: Designs) -> pl.DataFrame:
    """Every design that was considered, one per row; points, device-hours."""
    asked, rows = designs.question.asked, []
    for row in designs.rows:
        seen = row.sight
        rows.append({
            "question": asked.question, "population": asked.population, "source": designs.source, **vars(row.size), "runs": row.runs, "units": seen.units,
            **dict(zip(("hours_low", "hours", "hours_high"), row.hours, strict=True)), "stderr": seen.stderr, "df": seen.df, "effect": asked.effect,
            "power": seen.power, "smallest": seen.smallest, "smallest_low": seen.low, "smallest_high": seen.high, "available": row.there,
            "recommended": row is designs.recommended, "why": seen.why or None,
        })  # fmt: skip
    return pl.DataFrame([{name: row[name] for name in ROWS} for row in rows], ROWS).fill_nan(None)


# ---------------------------------------------------------------- a study as it is


def shortcomings(study: Study, root: Path, published: Path | None = None) -> list[str]:
    """What the study's runs of single training sets cannot show, or how large a difference must be; nothing where they compare no sets.

    Variances are those of the study's gains, else of ``published`` (the table of published scores), where there is such a file.
    """
    resolved = study.resolved()
    main, single = select.main_recipes(resolved), set(select.kinds(resolved, "single"))
    if not main:
        return []
    method, recipe = next(iter(main.items()))
    seeds = Counter((run.model, run.dataset) for run in study.runs.values() if run.recipe == recipe and run.dataset in single)
    per_model = {model: {d for m, d in seeds if m == model} for model, _ in seeds}
    shared = [sets for sets in per_model.values() if len(sets) > 1]
    common = set.intersection(*shared) if shared else set()
    if len(common) < 2:
        return []
    models, fewest, lines = len(shared), min(seeds.values()), []
    cells = Counter((run.model, run.dataset, run.recipe) for run in study.runs.values())
    if max(cells.values()) == 1:
        lines.append(
            "**No run has a second seed**: the noise of training once more stays unknown, and so does whether a difference within one base model is "
            "more than that. `seeds: [0, 1, 2]` for a few runs measures it"
        )
    gains = Path(Paths(root).tables, "gains.parquet")
    parts, source = Components(), ""
    if gains.exists():
        parts, source = contrast.of_study(read_table(gains), resolved, (recipe,), None), "this study's gains"
    elif published and published.exists() and method in ("full", "lora"):
        parts, source = contrast.of_published(read_table(published), (method,), None, study.file.seed), f"the {PAPER}"

    def smallest(population: str, comparisons: int) -> float:
        asked = Design(question="sets", effect=1, budget=1, population=population)
        return sight(Size(models, len(common), fewest), parts, asked, comparisons).smallest

    needed = next(units for units in range(2, EXACT_CLUSTERS) if smallest_p(units) <= SIGNIFICANT)
    if models < needed:
        text = (
            f"**{count(models, 'base models')} cannot show that one training set is better than another for base models like these**: the test over "
            f"base models needs {needed}. What is found holds for these base models alone"
        )
        if np.isfinite(within := smallest("these", 1)):
            text += f", where two sets must differ by {within:.2g} points to be told apart with power {POWER}, by {source}"
        lines.append(text)
    elif np.isfinite(one := smallest("models", 1)):
        pairs, corrected = len(common) * (len(common) - 1) // 2, ""
        if pairs > 1:
            every = smallest("models", pairs)
            corrected = f"; with p corrected for all {pairs} pairs, " + (f"by {every:.2g}" if np.isfinite(every) else "none can")
        lines.append(
            f"Two training sets must differ by {one:.2g} points (mean over benchmarks) to be told apart with power {POWER} for base models like these"
            f"{corrected} ({count(models, 'base models')}, {count(fewest, 'seeds')}; variances of {source})"
        )
    return [*lines, "`snakemake design` finds the runs that can show a difference of a given size"] if lines else []


# ---------------------------------------------------------------- the job


def known_components(args: argparse.Namespace, study: Study, question: Question) -> tuple[Components, str]:
    """The variance components of the question, and their source."""
    asked = question.asked
    if args.learn_from:
        gains = read_table(args.learn_from / "gains.parquet")
        parts = contrast.of_study(gains, read_json(args.study), question.recipes, asked.benchmark)
        source = f"gains of the study {study.name}"
    elif args.published:
        facts = read_json(args.published_source)
        source = f"{PAPER} ({'the authors’ CSV' if facts['authors_file'] else facts['source']}, sha256 {facts['sha256'][:12]})"
        methods = tuple(dict.fromkeys(study.file.recipes[name].method for name in question.recipes))
        of_methods = len(methods) == len(question.recipes)  # they have no sizes
        parts = contrast.of_published(read_table(args.published), methods, asked.benchmark, study.file.seed) if of_methods else Components()
    else:
        parts, source = Components(), "stated"
    if asked.interaction_sd is not None:
        parts = parts.with_interaction(asked.interaction_sd)
    if asked.seed_sd is not None:
        parts = parts.with_seed(asked.seed_sd)
    return parts, source


def main(args: argparse.Namespace) -> None:
    config = json.loads(args.config)
    study = from_config(config["study"] | {"design": config["design"]}, "the study")
    question = study.question
    parts, source = known_components(args, study, question)
    designs = Designs(question, parts, costs(config["study"], question, args.devices, args.results), source)
    one_seed = any(study.file.recipes[name].seeds for name in question.recipes)
    write_table(args.output_table, designs_table(designs))
    write_text(args.output_block, block_file(designs, one_seed))
    write_text(args.output_page, page(designs, device(args.devices, study.file.plan.device, "plan.device").label))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--config",
        type=long_text,
        required=True,
        help="JSON: the study file's content, `study`, and the question, `design`; -: standard input",
    )
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    p.add_argument("--devices", type=Path, required=True, help="config/devices.yaml")
    p.add_argument("--results", type=Path, required=True, help="results/{study}")
    p.add_argument("--learn-from", type=Path, help="folder of the study's tables; without it, the study is not asked")
    p.add_argument("--published", type=Path, help="published scores of single training sets; without it, they are not asked")
    p.add_argument("--published-source", type=Path, help="JSON that says where they came from")
    p.add_argument("--learned-at", help="time stamp of what it learns from; not read, but a change of it renews the design")
    p.add_argument("--output-page", type=Path, required=True, help="Markdown")
    p.add_argument("--output-table", type=Path, required=True, help="Parquet, one row per design")
    p.add_argument("--output-block", type=Path, required=True, help="YAML, the recommended block")
