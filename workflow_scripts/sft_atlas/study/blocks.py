"""From blocks and overrides to runs, and the runs that `select` chooses."""

import itertools
from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from sft_atlas.study.messages import explain, nearest
from sft_atlas.study.outside import Outside
from sft_atlas.study.runs import WITHOUT, Key, Run, run_folder
from sft_atlas.study.schema import Block, Hyperparameters, Select, StudyFile


def resolve_runs(file: StudyFile) -> tuple[dict[Key, Run], list[str]]:
    """The runs of all blocks, each with its hyper-parameters, and what is wrong with them.

    A run that several blocks define must be the same in all of them; its representation is measured if one of them says so.
    """
    runs: dict[Key, Run] = {}
    problems: list[str] = []
    matched: set[int] = set()  # overrides that hold for some run
    for name, block in file.blocks.items():
        if not block.models or not block.datasets:
            problems.append(f"blocks.{name}: defines no run; name at least one model, dataset and recipe")
        for key, seed in _keys(file, block):
            overrides = _matching(file, key)
            matched.update(overrides)
            values, ties = _values(file, block, key, overrides)
            problems += ties
            if seed is not None:
                problems += _two_seeds(file, name, key, overrides)
                values["seed"] = seed
            try:
                settings = Hyperparameters.model_validate(values)
            except ValidationError as error:
                problems += [f"{'/'.join(key)} in blocks.{name}: {text}" for text in explain(error, Hyperparameters)]
                continue
            folder = key[2] if seed is None else run_folder(key[2], seed, file.recipes[key[2]].seed)
            run = Run(*key, folder, settings, (name,), block.measure_representation)
            first = runs.setdefault(run.key, run)
            if first.settings != settings:
                problems.append(_contradiction(first, run))
            elif first is not run:
                blocks = tuple(dict.fromkeys([*first.blocks, name]))
                runs[run.key] = Run(*key, folder, settings, blocks, first.measure_representation or run.measure_representation)
    problems = list(dict.fromkeys(problems))
    problems += [f"overrides[{i}]: matches no run; remove or correct it" for i in range(len(file.overrides)) if i not in matched]
    return runs, problems


def _keys(file: StudyFile, block: Block) -> Iterator[tuple[tuple[str, str, str], int | None]]:
    """(base model, dataset, recipe) of each run, and its seed; None where neither block nor recipe names seeds."""
    models = file.models if block.models == "*" else block.models
    datasets = file.source_datasets if block.datasets == "*" else block.datasets
    if block.leave_one_out:
        datasets = [WITHOUT + member for name in datasets for member in file.members(name)]
    for key in itertools.product(models, datasets, block.recipes):
        for seed in block.seeds or file.recipes[key[2]].seeds or [None]:
            yield key, seed


def _two_seeds(file: StudyFile, name: str, key: tuple[str, str, str], overrides: Iterable[int]) -> Iterator[str]:
    """The problems of a run of `seeds` whose `seed` is set as well."""
    setting = [f"blocks.{name}.set.seed"] if "seed" in file.blocks[name].set else []
    setting += [f"overrides[{i}].set.seed" for i in overrides if "seed" in file.overrides[i].set]
    for path in setting:
        seeds = f"blocks.{name}.seeds" if file.blocks[name].seeds else f"recipes.{key[2]}.seeds"
        yield f"{path}: {seeds} names the seeds of {'/'.join(key)}; remove one of the two"


def _matching(file: StudyFile, key: tuple[str, str, str]) -> dict[int, int]:
    """Index of each override that holds for a run -> how many of model, dataset and recipe it names, the most specific first."""
    matching = {}
    for i, override in enumerate(file.overrides):
        names = [pair for pair in zip(key, (override.models, override.datasets, override.recipes), strict=True) if pair[1] is not None]
        if all(part in chosen for part, chosen in names):
            matching[i] = len(names)
    return dict(sorted(matching.items(), key=lambda item: -item[1]))


def _values(file: StudyFile, block: Block, key: tuple[str, str, str], overrides: dict[int, int]) -> tuple[dict[str, object], list[str]]:
    """Hyper-parameters of a run: the recipe's, then the block's `set`, then the overrides'; and overrides that contradict each other."""
    recipe = file.recipes[key[2]]
    values = {name: getattr(recipe, name) for name in Hyperparameters.model_fields} | block.set
    decided_by: dict[str, int] = {}
    ties = []
    for i, rank in overrides.items():
        for name, value in file.overrides[i].set.items():
            first = decided_by.setdefault(name, i)
            if first == i:
                values[name] = value
            elif overrides[first] == rank and values[name] != value:
                tie = f"overrides[{i}].set.{name}: overrides[{first}] sets it as well for {'/'.join(key)} and is as specific"
                ties.append(f"{tie}; let one of them name more of model, dataset and recipe")
    return values, ties


def _contradiction(first: Run, second: Run) -> str:
    ours, theirs = first.settings.model_dump(), second.settings.model_dump()
    differences = ", ".join(f"{name} ({ours[name]} and {theirs[name]})" for name in ours if ours[name] != theirs[name])
    place = f"blocks.{second.blocks[0]}: defines the run {'/'.join(first.key)} differently from blocks.{first.blocks[0]}"
    return f"{place}: {differences}; give one of them a recipe of its own"


def select_runs(
    runs: dict[Key, Run], outside: dict[Key, Outside], select: Select
) -> tuple[tuple[dict[Key, Run], dict[Key, Outside]], list[str]]:
    """The runs, and the checkpoints of others, that match every given part of ``select``, and what is wrong with it: unknown names, or no run
    that matches.

    A run keeps its settings, so its results are those of the whole study; of its blocks only the selected ones remain. Checkpoints of others
    are in no block, and have a seed where it is known.
    """
    everything = [*runs.values(), *outside.values()]
    existing = {
        "models": dict.fromkeys(run.model for run in everything),
        "datasets": dict.fromkeys(run.dataset for run in everything),
        "recipes": dict.fromkeys(run.recipe for run in everything),
        "seeds": dict.fromkeys(run.settings.seed for run in runs.values())
        | {each.entry.seed: None for each in outside.values() if each.entry.seed is not None},
        "blocks": dict.fromkeys(block for run in runs.values() for block in run.blocks),
    }
    problems = [
        f"select.{part}[{i}]: no run has the {part[:-1]} {name!r}{nearest(str(name), map(str, existing[part]))} "
        f"(there are {', '.join(map(str, existing[part]))})"
        for part in existing
        for i, name in enumerate(getattr(select, part) or ())
        if name not in existing[part]
    ]
    names = ["/".join(key) for key in (*runs, *outside)]
    problems += [
        f"select.without[{i}]: there is no run {name!r}{nearest(name, names)}" for i, name in enumerate(select.without) if name not in names
    ]
    if problems:
        return ({}, {}), problems
    selected = {part: set(getattr(select, part) or names) for part, names in existing.items()}
    matching = {
        key: run.within(selected["blocks"])
        for key, run in runs.items()
        if run.model in selected["models"]
        and run.dataset in selected["datasets"]
        and run.recipe in selected["recipes"]
        and run.settings.seed in selected["seeds"]
        and selected["blocks"].intersection(run.blocks)
        and "/".join(key) not in select.without
    }
    others = {
        key: each
        for key, each in outside.items()
        if not select.blocks
        and each.model in selected["models"]
        and each.dataset in selected["datasets"]
        and each.recipe in selected["recipes"]
        and (select.seeds is None or each.entry.seed in select.seeds)
        and "/".join(key) not in select.without
    }
    if not matching and not others:
        parts = [f"{len(names)} {part} ({', '.join(map(str, names))})" for part, names in existing.items() if names]
        return ({}, {}), [f"select: matches no run; each of its names exists, but no run has them all. The study has {'; '.join(parts)}"]
    return (matching, others), []
