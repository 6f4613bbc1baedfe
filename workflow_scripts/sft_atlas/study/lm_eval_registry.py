"""Tasks and groups of lm-eval's registry by name: the task files behind them, and where their data are.

Read as text from lm-eval's folder, and from a folder of the study's own (`include_path`), whose names win; lm-eval is not imported.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.lm_eval_names import SCORED, package_folder
from sft_atlas.study.task_files import Function, task_file

NAME = re.compile(r"""^["']?(task|group)["']?:[ \t]*["']?([^\s"'#\[{]+)""", re.MULTILINE)
TAG = re.compile(r"""^["']?tag["']?:.*(?:\n(?:[ \t]|-).*)*""", re.MULTILINE)
GROUP = {"group", "task", "group_alias", "aggregate_metric_list", "metadata", "tag", "include"}  # keys of a group, no settings of its tasks
FORMATS = {"json": "json", "csv": "csv", "parquet": "parquet"}  # loaders of `datasets` for files, which a task may name as its data set
ALONE = "name its tasks one by one"


@dataclass(frozen=True)
class RegistryTask:
    """What a name of the registry stands for.

    ``tasks``: task file of each task, by lm-eval's name, in lm-eval's order. ``group``: whether they are a group's, whose score is their
    mean, weighted by the number of items. ``metric``: of the score; of a single task the first that is a mean over items. ``filter``: of the
    score; None: the first one. ``shots``: examples in a prompt, in the place of `num_fewshot`; None: as the task files say.
    """

    name: str
    tasks: dict[str, str] = field(default_factory=dict)
    group: bool = False
    metric: str | None = None
    filter: str | None = None
    shots: int | None = None


@dataclass(frozen=True)
class TaskData:
    """Where a task has its items: a split of a data set on the hub, or a local file."""

    split: str
    hub: str | None = None
    subset: str | None = None
    path: str | None = None


@dataclass
class _Index:
    tasks: dict[str, str] = field(default_factory=dict)  # name -> file
    groups: dict[str, str] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)  # tag -> tasks


@functools.cache
def _index(folder: str) -> _Index:
    """Names in a folder of task files."""
    found = _Index()
    for path in sorted(Path(folder).rglob("*.yaml"), key=lambda each: each.as_posix()):
        text = path.read_text(encoding="utf-8", errors="replace")
        names = dict(NAME.findall(text)[::-1])
        if "group" in names:
            found.groups.setdefault(names["group"], str(path))
        elif "task" in names and names["task"] not in found.tasks:
            found.tasks[names["task"]] = str(path)
            for tag in _tags(text):
                found.tags.setdefault(tag, []).append(names["task"])
    return found


def _tags(text: str) -> list[str]:
    """The tags that a task file states itself; lm-eval's files state them there."""
    lines = TAG.search(text)
    try:
        tags = next(iter(yaml.safe_load(lines[0]).values())) if lines else None
    except (yaml.YAMLError, AttributeError):
        return []
    return [tags] if isinstance(tags, str) else list(tags or [])


def resolve(name: str, include_path: str | None = None) -> RegistryTask:
    """The task or group of this name. AtlasError where there is none, or it is a group whose mean is no mean over items."""
    package = package_folder("lm_eval")
    if package is None:
        raise AtlasError("lm-eval, whose registry this name is of, is not installed here; install it, or name a task file with `task`")
    if include_path and not os.path.isdir(include_path):
        raise AtlasError(f"include_path: there is no folder {include_path}; name one with lm-eval task files")
    indices = [_index(folder) for folder in (*([include_path] if include_path else []), str(package / "tasks"))]

    def place(kind: str, wanted: str):
        return next((getattr(index, kind)[wanted] for index in indices if wanted in getattr(index, kind)), None)

    if file := place("groups", name):
        return _group(name, file, place)
    if file := place("tasks", name):
        return RegistryTask(name, {name: file}, metric=_metric(task_file(file)))
    if members := place("tags", name):
        raise AtlasError(
            f"{name!r} is a tag of {len(members)} tasks ({', '.join(sorted(members)[:4])}...), of which lm-eval has no mean; {ALONE}"
        )
    raise AtlasError(f"lm-eval's registry has no task or group {name!r}{_nearest(name, indices)}; `lm_eval ls tasks` lists them")


def _nearest(name: str, indices: list[_Index]) -> str:
    import difflib

    close = difflib.get_close_matches(name, [known for index in indices for known in (*index.tasks, *index.groups)], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _group(name: str, file: str, place) -> RegistryTask:
    keys = task_file(file)
    listed = keys.get("aggregate_metric_list")
    mean = (listed if isinstance(listed, list) else [listed])[0]
    if not isinstance(mean, dict) or not mean.get("metric"):
        raise AtlasError(f"{file}: lm-eval computes no mean of the group {name!r}, which has no aggregate_metric_list; {ALONE}")
    if not mean.get("weight_by_size", True) or mean.get("aggregation", "mean") != "mean":
        raise AtlasError(f"{file}: the group {name!r} is no mean over items, because lm-eval weighs its tasks equally; {ALONE}")
    filters = mean.get("filter_list")
    chosen = filters[0] if isinstance(filters, list) else filters
    tasks: dict[str, str] = {}
    _collect(keys, file, place, tasks)
    return RegistryTask(name, tasks, True, str(mean["metric"]), chosen)


def _metric(keys: Mapping) -> str | None:
    """The first metric of a task that is a mean over items; None where none is, which the task's check reports."""
    kind, listed = keys.get("output_type", "generate_until"), keys.get("metric_list")
    for entry in listed if isinstance(listed, list) else []:
        metric = entry.get("metric") if isinstance(entry, dict) else None
        is_mean = entry.get("aggregation", "mean") == "mean" if isinstance(entry, dict) else False
        if is_mean and ("process_results" in keys or metric in SCORED.get(kind, ())):
            return metric
    return None


def _collect(keys: Mapping, file: str, place, tasks: dict[str, str]) -> None:
    """Add the task files of a group to ``tasks``."""
    changed = sorted(set(keys) - GROUP)
    if changed:
        raise AtlasError(f"{file}: the group changes {changed[0]} of its tasks, which is not supported; {ALONE}")
    for member in keys.get("task") or []:
        entry = member if isinstance(member, dict) else {"task": member}
        if isinstance(entry.get("task"), list):
            _collect(entry, file, place, tasks)
            continue
        wanted = entry.get("group", entry.get("task"))
        if set(entry) - {"task", "group"}:
            raise AtlasError(
                f"{file}: the group changes {sorted(set(entry) - {'task', 'group'})[0]} of {wanted}, which is not supported; {ALONE}"
            )
        if group := place("groups", wanted):
            _collect(task_file(group), group, place, tasks)
        elif task := place("tasks", wanted):
            tasks[wanted] = task
        elif members := place("tags", wanted):
            tasks |= {one: place("tasks", one) for one in sorted(members)}
        else:
            raise AtlasError(f"{file}: the group names {wanted!r}, which is no task; correct it")


def data_of(file: str) -> TaskData:
    """Where a task has the items that lm-eval scores. AtlasError where that cannot be read here."""
    keys = task_file(file)
    return _data(file, keys, keys.get("test_split") or keys.get("validation_split"))


def examples_of(file: str) -> TaskData:
    """Where a task has the rows from which lm-eval draws its examples. AtlasError where that is the split that is scored."""
    keys = task_file(file)
    config, scored = keys.get("fewshot_config") or {}, keys.get("test_split") or keys.get("validation_split")
    split = config.get("split") or keys.get("fewshot_split") or keys.get("training_split") or keys.get("validation_split")
    if split is None or split == scored:
        raise AtlasError(f"{file}: draws its examples from the split {scored!r} that is scored; give `shots` with a `path` of other rows")
    return _data(file, keys, split)


def _data(file: str, keys: Mapping, split: str | None) -> TaskData:
    given = keys.get("dataset_kwargs") or {}
    if "class" in keys or not isinstance(keys.get("dataset_path"), str):
        raise AtlasError(f"{file}: the task brings its data by code of its own; write a task file and give `path` or `hub`")
    if split is None:
        raise AtlasError(f"{file}: has neither test_split nor validation_split; give `path` with its items")
    if keys["dataset_path"] in FORMATS:
        return TaskData("train", path=_local_file(file, given.get("data_files"), split))
    if (given and set(given) != {"trust_remote_code"}) or given.get("trust_remote_code"):
        raise AtlasError(f"{file}: dataset_kwargs {given!r} are not supported (no code from the hub is run); give `path` with its items")
    return TaskData(split, hub=keys["dataset_path"], subset=keys.get("dataset_name"))


def _local_file(file: str, given: object, split: str) -> str:
    found = given.get(split) if isinstance(given, dict) else given
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(found, str) or "://" in found or isinstance(found, Function):
        raise AtlasError(f"{file}: dataset_kwargs.data_files must name one local file for the split {split!r}, not {found!r}; give `path`")
    if not os.path.isfile(os.path.expanduser(found)):
        raise AtlasError(f"{file}: dataset_kwargs.data_files: there is no file {found}; put it there")
    return os.path.expanduser(found)


def drawn_examples(task: RegistryTask) -> int:
    """How many examples each prompt has that lm-eval draws from data (`num_fewshot`); 0 where there are none, or they stand in the file.

    AtlasError where the tasks of a group differ in that.
    """
    numbers = {name: _drawn(task_file(file)) for name, file in task.tasks.items()}
    if len(set(numbers.values())) > 1:
        shown = ", ".join(f"{name} {number}" for name, number in list(numbers.items())[:3])
        raise AtlasError(f"the tasks of {task.name!r} draw different numbers of examples ({shown}...); {ALONE}")
    return next(iter(numbers.values()))


def _drawn(keys: Mapping) -> int:
    return 0 if (keys.get("fewshot_config") or {}).get("samples") else keys.get("num_fewshot") or 0


def require_place_for_examples(file: str) -> None:
    """AtlasError where lm-eval takes no other number of examples than the task file's."""
    keys = task_file(file)
    if (keys.get("fewshot_config") or {}).get("samples"):
        raise AtlasError(f"{file}: its examples stand in the file; remove `shots`")
    if keys.get("num_fewshot") == 0:
        raise AtlasError(f"{file}: states `num_fewshot: 0`, which lm-eval keeps; remove `shots`")
