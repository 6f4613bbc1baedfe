"""Recipes with a `grid`: one recipe for each combination of its values."""

import itertools
import math
from collections.abc import Mapping

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import nearest, renamed
from sft_atlas.study.places import ConfigSources
from sft_atlas.study.schema import Hyperparameters

MOST_RECIPES = 10_000  # that the grids of a study may stand for; the paper's search has 96
SHORT = {"learning_rate": "lr", "batch_size": "bs", "weight_decay": "wd"}  # elsewhere the initials of the key


def expand(config: Mapping[str, object], source: str | ConfigSources) -> dict[str, object]:
    """Replace every recipe that has a `grid` by one recipe per combination, wherever it is named.

    `search` with ``grid: {learning_rate: [1e-5, 1e-6]}`` becomes `search_lr1e-05` and `search_lr1e-06`. Raises :class:`ConfigError` for
    keys that are not hyper-parameters, values that are not lists or stand there twice, and more than MOST_RECIPES combinations, which are
    counted and not made; the schema checks everything else.
    """
    recipes = config.get("recipes")
    if not isinstance(recipes, Mapping) or not any(isinstance(recipe, Mapping) and recipe.get("grid") for recipe in recipes.values()):
        return dict(config)
    recipes_of: dict[str, dict[str, object]] = {}  # name in the file -> its recipes by name
    problems: list[str] = []
    left = MOST_RECIPES
    for name, recipe in recipes.items():
        grid = recipe.get("grid") if isinstance(recipe, Mapping) else None
        if grid and isinstance(grid, Mapping):
            wrong = _problems(name, recipe, grid)
            count = 0 if wrong else math.prod(map(len, grid.values()))
            left -= count
            if left < 0:
                wrong = [f"recipes.{name}.grid: stands for {count:,} recipes; all grids of a study may stand for {MOST_RECIPES:,}"]
            problems += wrong
            recipes_of[name] = {} if wrong else dict(_combinations(name, recipe, grid))
        else:
            recipes_of[name] = {name: recipe}
    if problems:
        raise ConfigError(source, problems)
    expanded = {**config, "recipes": {name: recipe for combinations in recipes_of.values() for name, recipe in combinations.items()}}
    if isinstance(config.get("blocks"), Mapping):
        expanded["blocks"] = {name: _with_combinations(block, recipes_of) for name, block in config["blocks"].items()}
    if isinstance(config.get("overrides"), list):
        expanded["overrides"] = [_with_combinations(override, recipes_of) for override in config["overrides"]]
    if config.get("select"):
        expanded["select"] = _with_combinations(config["select"], recipes_of)
    return expanded


def _problems(name: str, recipe: Mapping[str, object], grid: Mapping[str, object]) -> list[str]:
    if "seed" in grid and recipe.get("seeds"):
        return [f"recipes.{name}.grid.seed: `seeds` of this recipe names the seeds; remove one of the two"]
    known = sorted(Hyperparameters.model_fields)
    unknown = {key: renamed(Hyperparameters, key) or "not a hyper-parameter" + nearest(str(key), known) for key in grid if key not in known}
    empty = {key: "give a list of values" for key, values in grid.items() if key in known and not (isinstance(values, list) and values)}
    repeated = {key: problem for key, values in grid.items() if key in known and key not in empty and (problem := _repeated(values))}
    return [f"recipes.{name}.grid.{key}: {problem}" for key, problem in (unknown | empty | repeated).items()]


def _repeated(values: list) -> str | None:
    """The problem with values of which two are equal, or would give two recipes the same name."""
    first: dict[str, object] = {}
    for value in values:
        other = first.setdefault(_text(value), value)
        if other is not value and other != value:
            return f"{other!r} and {value!r} would have the same name; leave one out, or write a recipe for each"
    twice = next((text for text in first if sum(_text(value) == text for value in values) > 1), None) if len(first) < len(values) else None
    return twice and f"{twice} is there twice; remove one"


def _combinations(name: str, recipe: Mapping[str, object], grid: Mapping[str, list]):
    rest = {key: value for key, value in recipe.items() if key != "grid"}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        marks = [f"{SHORT.get(key) or ''.join(word[0] for word in key.split('_'))}{_text(value)}" for key, value in chosen.items()]
        words = [f"{key.replace('_', ' ')} {_text(value)}" for key, value in chosen.items()]
        yield "_".join([str(name), *marks]), {**rest, **chosen, "label": ", ".join([str(recipe.get("label") or name), *words])}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _with_combinations(part: object, recipes_of: dict[str, dict[str, object]]) -> object:
    if not isinstance(part, Mapping) or not isinstance(part.get("recipes"), list):
        return part
    return {
        **part,
        "recipes": [new for name in part["recipes"] for new in (recipes_of.get(name, [name]) if isinstance(name, str) else [name])],
    }
