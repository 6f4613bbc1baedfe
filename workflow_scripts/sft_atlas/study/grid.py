"""Recipes with a `grid`: one recipe for every combination of the values that it lists."""

import itertools
from collections.abc import Mapping

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import nearest, renamed
from sft_atlas.study.schema import Hyperparameters

SHORT = {"learning_rate": "lr", "batch_size": "bs", "weight_decay": "wd"}  # elsewhere the initials of the key


def expand(config: Mapping[str, object], source: str) -> dict[str, object]:
    """The configuration with every recipe that has a `grid` replaced by its combinations, wherever it is named.

    `search` with ``grid: {learning_rate: [1e-5, 1e-6]}`` becomes `search_lr1e-05` and `search_lr1e-06`. What is not a recipe with a
    well-formed grid is left to validation; raises :class:`ConfigError` for keys that are no hyper-parameters and lists without values.
    """
    recipes = config.get("recipes")
    if not isinstance(recipes, Mapping) or not any(isinstance(recipe, Mapping) and recipe.get("grid") for recipe in recipes.values()):
        return dict(config)
    made: dict[str, dict[str, object]] = {}  # name -> its combinations by their names
    problems: list[str] = []
    for name, recipe in recipes.items():
        grid = recipe.get("grid") if isinstance(recipe, Mapping) else None
        if grid and isinstance(grid, Mapping):
            found = _problems(name, grid)
            problems += found
            made[name] = {} if found else dict(_combinations(name, recipe, grid))
        else:
            made[name] = {name: recipe}
    if problems:
        raise ConfigError(source, problems)
    expanded = {**config, "recipes": {name: recipe for several in made.values() for name, recipe in several.items()}}
    if isinstance(config.get("blocks"), Mapping):
        expanded["blocks"] = {name: _renamed(block, made) for name, block in config["blocks"].items()}
    if isinstance(config.get("overrides"), list):
        expanded["overrides"] = [_renamed(override, made) for override in config["overrides"]]
    if config.get("select"):
        expanded["select"] = _renamed(config["select"], made)
    return expanded


def _problems(name: str, grid: Mapping[str, object]) -> list[str]:
    known = sorted(Hyperparameters.model_fields)
    unknown = [
        f"recipes.{name}.grid.{key}: {renamed(Hyperparameters, key) or 'not a hyper-parameter' + nearest(str(key), known)}"
        for key in grid
        if key not in known
    ]
    return unknown + [
        f"recipes.{name}.grid.{key}: give a list of values"
        for key, values in grid.items()
        if key in known and not (isinstance(values, list) and values)
    ]


def _combinations(name: str, recipe: Mapping[str, object], grid: Mapping[str, list]):
    rest = {key: value for key, value in recipe.items() if key != "grid"}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        marks = [f"{SHORT.get(key) or ''.join(word[0] for word in key.split('_'))}{_text(value)}" for key, value in chosen.items()]
        words = [f"{key.replace('_', ' ')} {_text(value)}" for key, value in chosen.items()]
        yield "_".join([name, *marks]), {**rest, **chosen, "label": ", ".join([str(recipe.get("label") or name), *words])}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _renamed(part: object, made: dict[str, dict[str, object]]) -> object:
    if not isinstance(part, Mapping) or not isinstance(part.get("recipes"), list):
        return part
    return {**part, "recipes": [new for name in part["recipes"] for new in made.get(name, [name])]}
