"""The section `imported_scores` of a study: what its names mean, and which files are read."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sft_atlas.study.messages import nearest
from sft_atlas.study.outside import EPOCH, Outside
from sft_atlas.study.runs import BASE, Key, Run
from sft_atlas.study.schema import Benchmark, Import, ImportedCheckpoint, StudyFile
from sft_atlas.study.task_files import task_file

if TYPE_CHECKING:
    from sft_atlas.study.study import Study

Place = dict[str, str | int]
IMPORTED = "imported"  # recipe of a checkpoint whose method nobody stated
SUFFIXES = (".json", ".jsonl")  # of lm-eval's files


def problems(file: StudyFile, runs: Mapping[Key, Run], outside: Mapping[Key, Outside]) -> list[str]:
    """Checkpoints of imports that are said to be of this study and are not, or whose name stands for two."""
    known = places(file, runs, outside)
    found = []
    for name, entry in file.imported_scores.items():
        for checkpoint, stated in entry.checkpoints.items():
            key = f"imported_scores.{name}.checkpoints.{checkpoint}"
            if stated.run is not None and stated.run not in known:
                found.append(
                    f"{key}: {stated.run!r} is no checkpoint of this study{nearest(stated.run, known)}; for one that the study does not have state "
                    "`model` and `dataset`"
                )
            elif stated.run in file.models and stated.run in file.checkpoints:
                both = next("/".join(each.key) for each in outside.values() if each.folder == stated.run)
                found.append(f"{key}: {stated.run!r} is a base model and an entry of `checkpoints`; write {stated.run}/base/base or {both}")
    return found


def places(file: StudyFile, runs: Mapping[Key, Run], outside: Mapping[Key, Outside]) -> dict[str, Place]:
    """The keys of every checkpoint of the study by each of its names. ``recipe`` is the folder of the run.

    A base model is `model`; a run's checkpoint `model/dataset/recipe/epoch-3`, the last kept one also without its epoch; one that was trained
    elsewhere by its name in `checkpoints`, or as if it was a run.
    """
    found: dict[str, Place] = {}
    for each in outside.values():
        found |= dict.fromkeys([each.folder, *_names(each.key, EPOCH)], _place(each.key, EPOCH))
    for run in runs.values():
        for epoch in run.settings.kept_epochs:  # ascending, so that the last one has the name without an epoch
            found |= dict.fromkeys(_names(run.key, epoch), _place(run.key, epoch))
    for model in file.models:
        found |= dict.fromkeys([model, *_names((model, BASE, BASE), 0)], _place((model, BASE, BASE), 0))
    return found


def _names(run: Key, epoch: int) -> tuple[str, ...]:
    name = "/".join(run)
    return name, f"{name}/epoch-{epoch}", f"{name}/{epoch}"


def _place(run: Key, epoch: int) -> Place:
    return dict(zip(("model", "dataset", "recipe"), run, strict=True)) | {"epoch": epoch}


def files(path: str, entry: Import) -> list[str]:
    """The files of an import. Of lm-eval's all JSON files in its folder, or the named results with the samples beside them."""
    where = Path(path)
    if entry.format != "lm-eval":
        return [path]
    if where.is_dir():
        return [str(file) for file in sorted(where.rglob("*")) if file.suffix in SUFFIXES and file.is_file()]
    date = where.stem.partition("_")[2]
    beside = where.parent.glob(f"samples_*_{date}.jsonl" if date else "*.jsonl") if where.parent.is_dir() else ()
    return [path, *map(str, sorted(beside))]


def absent(file: StudyFile, path: Callable[[str], str]) -> list[str]:
    """Imports whose file does not exist, or folder holds no results; ``path`` resolves a `path` of the study file."""
    found = []
    for name, entry in file.imported_scores.items():
        where = Path(path(entry.file))
        key = f"imported_scores.{name}.file"
        if set("{}\n\r") & set(str(where)):
            found.append(f"{key}: {str(where)!r} has braces or a line break, which a path in this workflow cannot have; rename the file")
        elif where.is_dir() and entry.format != "lm-eval":
            found.append(f"{key}: {where} is a folder; name the file with the scores")
        elif where.is_dir() and not any(Path(each).name.startswith("results") for each in files(str(where), entry)):
            found.append(f"{key}: {where} holds no results*.json of lm-eval")
        elif not (where.is_dir() or where.is_file()):
            found.append(f"{key}: there is no {where}; correct the path, or put it there")
    return found


def settings(study: "Study") -> str:
    """All imports as JSON, for the job that reads them: by name, the entry, its files, and what the study knows of checkpoints and metrics."""
    file = study.file
    own = places(file, study.all_runs, study.all_outside)
    left_out = _left_out(study)
    own = {name: place | left_out.get((place["model"], place["dataset"], place["recipe"]), {}) for name, place in own.items()}
    metrics = {name: metric(entry) for name, entry in file.benchmarks.items()}
    found = {}
    for name, entry in file.imported_scores.items():
        named = {each: own[known.run] if known.run else _facts(known, file.recipes) for each, known in entry.checkpoints.items()}
        stated = entry.model_dump(exclude={"checkpoints", "file"}, exclude_defaults=True) | {"format": entry.format}
        found[name] = stated | {
            "files": files(study.path(entry.file), entry),
            "checkpoints": named,
            "own": {} if named else own,
            "metrics": metrics,
            "recipes": list(file.recipes),
            "models": list(file.models),
        }
    return json.dumps(found, ensure_ascii=False)


def _left_out(study: "Study") -> dict[Key, dict[str, str | int | None]]:
    """What is known of the runs that `select` leaves out, which tables cannot look up in `study.json`."""
    found = {(model, BASE, BASE): {"method": BASE} for model in study.file.models if model not in study.models}
    for key, run in study.all_runs.items():
        if key not in study.runs:
            stated = run.settings
            found[key] = {"recipe": run.recipe, "method": stated.method, "rows": stated.rows, "seed": stated.seed}
    for key, each in study.all_outside.items():
        if key not in study.outside:
            found[key] = {"recipe": each.recipe, "method": each.method, "rows": each.entry.rows, "seed": each.entry.seed}
    return found


def _facts(known: ImportedCheckpoint, recipes: Collection[str]) -> dict[str, str | int | None]:
    if known.dataset is None:
        return {"model": known.model, "dataset": BASE, "recipe": BASE, "epoch": 0, "method": BASE}
    return known.model_dump(exclude={"run"}) | {"recipe": recipe(known.recipe, known.method, recipes)}


def recipe(stated: str | None, method: str | None, recipes: Collection[str]) -> str:
    """What the recipe of an imported checkpoint is called: as stated, else as its method; with a prefix where the study has a recipe of that name
    (``recipes``), as nobody can tell that a checkpoint was trained by it."""
    name = stated or method or IMPORTED
    return f"{IMPORTED}-{name}" if name in recipes else name


def metric(entry: Benchmark) -> dict[str, str | None]:
    """What scores of a benchmark call its metric, and lm-eval's name of it and of its filter; None where a function of the task has no name."""
    registered, keys = entry.registered, task_file(entry.task_files[0])
    listed, filters = keys.get("metric_list") or [{}], keys.get("filter_list") or [{"name": "none"}]
    stated = registered.metric if registered and registered.metric else listed[0].get("metric")
    name = str(stated).rpartition(".")[2] if stated else None
    chosen = registered.filter if registered and registered.filter else filters[0].get("name")
    text = f"{name} (lm_eval: {registered.name})" if registered else name
    return {"text": text, "metric": name, "filter": str(chosen)}
