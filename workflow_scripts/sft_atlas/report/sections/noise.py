"""Findings about noise: what training once more changes, what other items would change, and what the rest of a gain is due to."""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_noise import ALL
from sft_atlas.report.findings import Finding, unavailable
from sft_atlas.stats.wording import count, number, span

TERMS = {
    "model": "base model", "dataset": "training set", "method": "method", "rest": "rest (the interaction of all, training once more, items)",
    "seed": "training once more", "items": "items (answers that change with the seed)",
}  # fmt: skip


def term_label(term: str) -> str:
    """A term in words, with × between the parts of an interaction."""
    return TERMS.get(term) or " × ".join(TERMS[part] for part in term.split(" x "))


def noise(frame: pl.DataFrame, runs: pl.DataFrame, study: dict) -> Finding:
    """The noise of training beside that of items, per recipe, and the split of the variance. ``runs``: the table with a row for each seed."""
    title = "Noise of training and of items"
    trained = {name for name, recipe in study["recipes"].items() if not recipe.get("outside")} & set(runs["recipe"])
    if not trained:
        return unavailable(title, "noise", "runs")
    notes = [_recipe(frame.filter(design="training", recipe=recipe), study) for recipe in _recipes(frame)]
    unknown = [name for name in study["recipes"] if name in trained and name not in _recipes(frame)]
    if unknown:
        named = ", ".join(study["recipes"][name]["label"] for name in unknown)
        notes.append(
            f"Trained with one seed: {named}. What training once more would change is unknown there, and no interval of one run's score "
            f"contains it; `seeds` of a block or recipe shows it (docs/training.md)."
        )
    split = frame.filter(design="split", benchmark=ALL)
    if split.height:
        notes += _split(split)
    return Finding(title, "noise", notes=notes)


def _recipes(frame: pl.DataFrame) -> list[str]:
    return frame.filter(design="training")["recipe"].unique(maintain_order=True).to_list()


def _recipe(part: pl.DataFrame, study: dict) -> str:
    """What the seeds of a recipe show, for the mean over benchmarks and for single benchmarks."""
    if part.filter(benchmark=ALL).is_empty():  # no run has every benchmark
        part = part.with_columns(benchmark=pl.when(benchmark=part["benchmark"][0]).then(pl.lit(ALL)).otherwise("benchmark"))
    of = {row["term"]: row for row in part.filter(benchmark=ALL).iter_rows(named=True)}
    run, single = of["run"], part.filter(pl.col("benchmark") != ALL)
    label = study["recipes"][run["recipe"]]["label"]
    seeds = span([run["fewest_seeds"], run["most_seeds"]])
    if run["variance"] == 0:
        return (
            f"{label}: the mean gain over benchmarks was the same with each of {seeds} seeds "
            f"({count(run['cells'], 'combinations')} of base model and training set), too little to say how large the noise of training is."
        )
    text = (
        f"{label}: trained once more with another seed, the mean gain over benchmarks differs by a standard deviation of {_sd(run)} points "
        f"({count(run['cells'], 'combinations')} of base model and training set with {seeds} seeds, {count(round(run['df']), 'degrees of freedom')}). Beyond what "
        f"the choice of items explains it is {_sd(of['seed'])}; the standard error by items of such a gain is {_root(of['score']['variance'])}."
    )
    if single.height:
        ranges = [
            " to ".join(_root(value) for value in (values.min(), values.max()))
            for values in (single.filter(term=term)["variance"] for term in ("run", "score"))
        ]
        text += f" On single benchmarks: {ranges[0]} points between seeds, {ranges[1]} by items."
    return text


def _split(split: pl.DataFrame) -> list[str]:
    first = split.row(0, named=True)
    shares = []
    for row in split.sort("share", descending=True, nulls_last=True).iter_rows(named=True):
        deviation = _root(row["variance"]) if row["low"] is None else _sd(row)
        shares.append(f"{term_label(row['term'])} {100 * (row['share'] or 0):.0f} %, {deviation}")
    size = f"{count(first['models'], 'base models')}, {count(first['datasets'], 'training sets')}, {count(first['methods'], 'methods')}"
    notes = [
        f"Variance of the mean gain over benchmarks, single training sets ({size}), as shares and as standard deviations in points: {'; '.join(shares)}."
    ]
    few = [name for name, size in (("base models", first["models"]), ("training sets", first["datasets"])) if size < 5]
    if few:
        notes.append(f"With so few {' and '.join(few)}, how much they vary is hardly known: the intervals are very wide, or there is none.")
    return notes


def _root(variance: float | None) -> str:
    if variance is None or np.isnan(variance):
        return "unknown"
    return "0" if variance == 0 else number(variance**0.5, 1 if variance >= 0.01 else 2)


def _sd(row: dict) -> str:
    return f"{_root(row['variance'])} [{_root(row['low'])} to {_root(row['high'])}]"


def recipes_left_out(study: dict) -> list[str]:
    """Which recipes comparisons of single training sets leave out, with their runs; empty where there is none."""
    single, main = set(select.kinds(study, "single")), select.main_recipes(study)
    others: dict[str, int] = {}
    for run in study["runs"]:
        if run["dataset"] in single and run["recipe"] not in main.values():
            others[run["recipe"]] = others.get(run["recipe"], 0) + 1
    if not others:
        return []
    taken = ", ".join(study["recipes"][name]["label"] for name in main.values())
    named = ", ".join(f"{study['recipes'][name]['label']} ({count(number_of, 'runs')})" for name, number_of in others.items())
    rule = "of each method the one with most runs" + (
        ", an imported one only without others" if any(map(_is_imported, study["recipes"].values())) else ""
    )
    text = f"ONE RECIPE PER METHOD: comparisons of single training sets take {taken}, {rule}. They leave out {named}"
    twins = _twins(study, [*main.values(), *others])
    hint = f". {twins} differ in the seed alone: give one recipe `seeds`, so that they are averaged" if twins else ""
    return [f"{text}{hint}."]


def _is_imported(recipe: dict) -> bool:
    return bool(recipe.get("imported"))


def _twins(study: dict, names: list[str]) -> str:
    """Recipes of the study that differ in nothing but their seed, such as those of ``grid: {seed: [...]}``; of others not all settings are known."""
    ignored = ("seed", "seeds", "label", "grid")
    groups: dict[str, list[str]] = {}
    for name in (name for name in names if not (_is_imported(study["recipes"][name]) or study["recipes"][name].get("outside"))):
        settings = {key: value for key, value in study["recipes"][name].items() if key not in ignored}
        groups.setdefault(str(sorted(settings.items())), []).append(name)
    return ", ".join(name for group in groups.values() if len({study["recipes"][name].get("seed") for name in group}) > 1 for name in group)


def numbers_of_seeds(runs: pl.DataFrame) -> list[str]:
    """How runs with several seeds are counted, and cells of a recipe that have fewer seeds than others; empty where each run has one seed."""
    cells = runs.group_by("model", "dataset", "recipe", maintain_order=True).agg(pl.len().alias("seeds"), "seed")
    if cells.is_empty() or cells["seeds"].max() == 1:
        return []
    several = cells.filter(pl.col("seeds") > 1)
    text = (
        f"SEEDS: {several.height:,} of {count(cells.height, 'combinations')} of base model, training set and recipe were trained with "
        f"{span(several['seeds'])} seeds. All sections use their mean, and each combination counts once."
    )
    most = cells.filter(pl.col("seeds") < pl.col("seeds").max().over("recipe"))
    if most.height:
        of = ", ".join(f"{recipe} {part.height}" for (recipe,), part in most.group_by("recipe", maintain_order=True))
        text += f" Combinations with fewer seeds than others of their recipe: {of}; only their errors are larger."
    return [text]
