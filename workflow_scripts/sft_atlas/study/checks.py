"""Checks that the schema cannot make: of names that the parts of a study file use, of local files, and of task files."""

import importlib.util
import os
from collections.abc import Callable, Collection, Iterator

from sft_atlas.core.optional_packages import how_to_install
from sft_atlas.study import task_checks
from sft_atlas.study.messages import nearest, renamed
from sft_atlas.study.runs import BASE, UNKNOWN, WITHOUT, run_folder
from sft_atlas.study.schema import CHAT, Hyperparameters, Override, StudyFile, Suite, is_commit
from sft_atlas.study.task_files import JUDGED, judged, task_file

SAME = ("method", "epochs", "learning_rate", "batch_size", "lr_scheduler_type")  # of checkpoints that share a recipe
FETCHED = ("models", "datasets", "benchmarks", "checkpoints")  # parts of a study whose entries come from somewhere
SETTABLE = sorted(set(Hyperparameters.model_fields) - {"epochs", "method", "save_epochs"})


def names(file: StudyFile) -> list[str]:
    """Problems with reserved, undefined and repeated names, with leave-one-out blocks, and with keys that `set` must not change."""
    checks = (_something, _reserved_names, _undefined_names, _repeated_benchmarks, _leave_one_out, _settings, _conversations, _outside)
    return [problem for check in checks for problem in check(file)]


def unpinned(file: StudyFile) -> list[str]:
    """Entries of the study whose revision is a branch or tag, not a commit: their content may change."""
    entries = {f"{part}.{name}": entry for part in FETCHED for name, entry in getattr(file, part).items()}
    entries |= {f"benchmarks.{name}.shots": entry.shots for name, entry in file.benchmarks.items() if entry.shots}
    entries |= {"measure.similarity.encoder": file.measure.similarity.encoder} if file.measure.similarity.encoder else {}
    return [key for key, entry in entries.items() if entry.hub and not is_commit(entry.revision)]


def local_files(file: StudyFile, path: Callable[[str], str]) -> list[str]:
    """Local files and folders of the study that do not exist; ``path`` resolves a `path` of the study file."""
    entries = {f"{part}.{name}.path": entry for part in FETCHED for name, entry in getattr(file, part).items()}
    entries |= {f"benchmarks.{name}.shots.path": entry.shots for name, entry in file.benchmarks.items() if entry.shots}
    if file.measure.similarity.encoder:
        entries["measure.similarity.encoder.path"] = file.measure.similarity.encoder
    named = {key: entry.path for key, entry in entries.items() if entry.path}
    named |= {f"datasets.{name}.holdout": entry.holdout for name, entry in file.datasets.items() if isinstance(entry.holdout, str)}
    start = "data_root" if file.data_root else "the current directory"
    tasks = {f"benchmarks.{name}.task": entry.task for name, entry in file.benchmarks.items()}
    if unfit := [
        f"{key}: {place!r} has braces or a line break, which a path in this workflow cannot have; rename the file"
        for key, place in {**{key: path(place) for key, place in named.items()}, **tasks}.items()
        if set("{}\n\r") & set(place)
    ]:
        return unfit
    absent = [
        f"{key}: there is no {path(place)}; correct the path (relative to {start}) or put it there"
        for key, place in named.items()
        if not _readable(path(place))
    ]
    return absent + [
        f"{key}: there is no file {task}; name an lm-eval task file, such as config/benchmarks/generate.yaml"
        for key, task in tasks.items()
        if not os.path.isfile(task)
    ]


def _readable(place: str) -> bool:
    """Whether a path leads to a file or folder, not to a device or pipe, whose end a job would wait for."""
    try:
        return os.path.isfile(place) or os.path.isdir(place)
    except ValueError:  # a zero byte, by way of a variable
        return False


def suites(file: StudyFile, packages: bool = True) -> list[str]:
    """Problems with the task files of suites and with their judges. ``packages``: see :func:`sft_atlas.study.task_checks.problems`."""
    template = {CHAT: None} if file.template == CHAT else file.template.model_dump()
    used = [file.benchmarks[benchmark] for suite in file.suites.values() for benchmark in suite.benchmarks]
    tasks = {task: entry for entry in used for task in entry.task_files}
    found = {}
    for task, entry in tasks.items():
        known = entry.registered
        found[task] = task_checks.problems(task, None if known else template, packages, known and known.metric)
    unusable = {task for task, problems in found.items() if problems}
    listed = [problem for problems in found.values() for problem in problems]
    return listed + [problem for name, suite in file.suites.items() for problem in _suite(file, name, suite, unusable)]


TRACKERS = ("tensorboard", "trackio", "wandb")


def tracker_missing(tracker: str | None) -> str | None:
    """The error where a tracker is not installed in this Python."""
    if tracker is None or importlib.util.find_spec(tracker):
        return None
    return f"track: {tracker} is not installed; {how_to_install(tracker)}, or remove the key"


def bitsandbytes_missing(file: StudyFile) -> str | None:
    """The error where a recipe needs bitsandbytes and it is not installed in this Python."""
    needing = [name for name, recipe in file.recipes.items() if recipe.load_in_4bit or recipe.optim == "adamw_8bit"]
    if not needing or importlib.util.find_spec("bitsandbytes"):
        return None
    key = "load_in_4bit" if file.recipes[needing[0]].load_in_4bit else "optim"
    return f"recipes.{needing[0]}.{key}: bitsandbytes is not installed; {how_to_install('bitsandbytes')}, or remove the key"


def _something(file: StudyFile) -> Iterator[str]:
    """Parts without which the others mean nothing."""
    if not file.blocks and not file.checkpoints and not file.imported_scores:
        yield "blocks: this key is required and missing; state what is trained, `checkpoints` that were trained elsewhere, or `imported_scores` that others measured"
    needed = {"blocks": ("models", "datasets", "recipes"), "checkpoints": ("models",), "models": ("benchmarks", "suites")}
    for part, others in needed.items():
        if getattr(file, part):
            yield from (
                f"{other}: this key is required and missing; `{part}` use what it defines" for other in others if not getattr(file, other)
            )


def _outside(file: StudyFile) -> Iterator[str]:
    """Checkpoints that were trained elsewhere: base models, names of folders, and that no two are the same run."""
    taken = {name.lower(): "a recipe" for name in file.recipes} | {folder.lower(): "a recipe with a seed" for folder in _seed_folders(file)}
    cells: dict[tuple, list[str]] = {}
    shared: dict[str, str] = {}
    for name, entry in file.checkpoints.items():
        where = f"checkpoints.{name}"
        yield from _undefined_one(f"{where}.model", entry.model, "model", file.models)
        if name == BASE or name.lower() in taken:
            yield f"{where}: the name is that of {taken.get(name.lower(), 'the base models')}; choose another"
        if entry.dataset in (BASE, UNKNOWN):
            yield f"{where}.dataset: the name {entry.dataset!r} is reserved; " + (
                "leave the key out" if entry.dataset == UNKNOWN else "name the training set, or leave the key out"
            )
        if (entry.dataset or "").startswith(WITHOUT) and entry.dataset not in file.leave_one_out:
            yield f"{where}.dataset: names that begin with {WITHOUT!r} are those of leave-one-out blocks; choose another"
        if entry.recipe is None:
            continue
        of = (
            {BASE: "the base models"}
            | dict.fromkeys(file.recipes, "a recipe of this study")
            | dict.fromkeys(file.checkpoints, "another checkpoint")
        )
        if entry.recipe in of and entry.recipe != name:
            yield f"{where}.recipe: the name is that of {of[entry.recipe]}; choose another"
        other = shared.setdefault(entry.recipe, name)
        for key in SAME:
            ours, theirs = getattr(entry, key), getattr(file.checkpoints[other], key)
            if ours != theirs:
                yield f"{where}.{key}: is {ours}, but checkpoints.{other}, of the same recipe, has {theirs}; correct one, or give it another `recipe`"
        cells.setdefault((entry.model, entry.dataset, entry.recipe), []).append(name)
    for (_, dataset, _), names in cells.items():
        seeds = [file.checkpoints[name].seed for name in names]
        if len(names) > 1 and dataset is None:
            yield f"checkpoints.{names[1]}: shares its recipe with checkpoints.{names[0]}; state the dataset of both, or leave `recipe` out"
        elif (None in seeds and len(names) > 1) or len(set(seeds)) < len(seeds):
            yield (
                f"checkpoints.{names[1]}: has base model, dataset and recipe of checkpoints.{names[0]}; state a different `seed` for each, or "
                "leave `recipe` out"
            )


def _undefined_one(path: str, name: str, kind: str, defined: Collection[str]) -> Iterator[str]:
    if name not in defined:
        yield f"{path}: there is no {kind} {name!r}{nearest(name, defined)} (defined: {', '.join(defined)})"


def _reserved_names(file: StudyFile) -> Iterator[str]:
    if file.study == "published":
        yield "study: results/published belongs to `snakemake published`; choose another name"
    for name in file.datasets:
        if name == UNKNOWN and any(entry.dataset is None for entry in file.checkpoints.values()):
            yield f"datasets.{name}: the name is that of the training set of checkpoints without `dataset`; choose another"
        if name == BASE or name.startswith(WITHOUT):
            yield f"datasets.{name}: the name is reserved; choose one that is not {BASE!r} and does not begin with {WITHOUT!r}"
    if BASE in file.recipes:
        yield f"recipes.{BASE}: the name is reserved for the base models; choose another"
    lower = {name.lower(): name for name in file.recipes}
    for folder, (recipe, seed) in _seed_folders(file).items():
        if taken := lower.get(folder.lower()):
            yield f"recipes.{taken}: the name is that of the folder for seed {seed} of the recipe {recipe}; choose another"


def _seed_folders(file: StudyFile) -> dict[str, tuple[str, int]]:
    """Folder of runs that is no recipe's own -> recipe and seed."""
    folders = {}
    for block in file.blocks.values():
        for name, recipe in ((name, file.recipes[name]) for name in block.recipes if name in file.recipes):
            seeds = block.seeds or recipe.seeds or []
            folders |= {run_folder(name, seed, recipe.seed): (name, seed) for seed in seeds if seed != recipe.seed}
    return folders


def _undefined_names(file: StudyFile) -> Iterator[str]:
    sources = "source dataset", file.source_datasets
    for name, dataset in file.datasets.items():
        if isinstance(dataset.merge, list):
            yield from _undefined(f"datasets.{name}.merge", dataset.merge, *sources)
    for name, suite in file.suites.items():
        yield from _undefined(f"suites.{name}.benchmarks", suite.benchmarks, "benchmark", file.benchmarks)
    for group, names in file.analyse.leave_out.items():
        yield from _undefined(f"analyse.leave_out.{group}", names, *sources)
    for path, part in _parts(file):
        left_out = file.leave_one_out if isinstance(part, Override) else ()
        defined = {"model": file.models, "dataset": [*file.datasets, *left_out], "recipe": file.recipes}
        for kind, known in defined.items():
            names = getattr(part, f"{kind}s")
            if isinstance(names, list):
                yield from _undefined(f"{path}.{kind}s", names, kind, known)


def _undefined(path: str, names: list[str], kind: str, defined: Collection[str]) -> Iterator[str]:
    for i, name in enumerate(names):
        yield from _undefined_one(f"{path}[{i}]", name, kind, defined)


def _repeated_benchmarks(file: StudyFile) -> Iterator[str]:
    suite_of: dict[str, str] = {}
    for name, suite in file.suites.items():
        for benchmark in suite.benchmarks:
            if suite_of.setdefault(benchmark, name) != name or suite.benchmarks.count(benchmark) > 1:
                yield f"suites.{name}.benchmarks: {benchmark!r} is measured twice (also in {suite_of[benchmark]!r}); name it once"


def _leave_one_out(file: StudyFile) -> Iterator[str]:
    for name, block in file.blocks.items():
        if block.leave_one_out and block.datasets == "*":
            yield f"blocks.{name}.datasets: leave_one_out needs the names of merged datasets; '*' stands for those that are not merges"
        for i, merged in enumerate(block.datasets) if block.leave_one_out and isinstance(block.datasets, list) else ():
            if merged not in file.datasets:
                continue
            if len(file.members(merged)) < 2:
                yield f"blocks.{name}.datasets[{i}]: leave_one_out needs a `merge` of at least two datasets; {merged!r} is not one"
            for member in file.members(merged):
                other = file.leave_one_out[WITHOUT + member][0]
                if other != merged:
                    yield f"blocks: {WITHOUT}{member} would come from both {other!r} and {merged!r}; use one merged set"


def _settings(file: StudyFile) -> Iterator[str]:
    for path, part in _parts(file):
        for key in part.set:
            if key not in SETTABLE:
                unknown = f"not a hyper-parameter that may differ{nearest(key, SETTABLE)} (allowed: {', '.join(SETTABLE)})"
                yield f"{path}.set.{key}: {renamed(Hyperparameters, key) or unknown}"


def _conversations(file: StudyFile) -> Iterator[str]:
    for name, dataset in file.datasets.items():
        if dataset.turns == "all" and file.template != CHAT:
            yield f"datasets.{name}.turns: all needs the chat template of the tokenizer; set `template: chat`, or remove turns"


def _parts(file: StudyFile) -> list[tuple[str, object]]:
    """Path and part of everything that names models, datasets and recipes."""
    blocks = [(f"blocks.{name}", block) for name, block in file.blocks.items()]
    return [*blocks, *((f"overrides[{i}]", override) for i, override in enumerate(file.overrides))]


def _suite(file: StudyFile, name: str, suite: Suite, unusable: Collection[str]) -> Iterator[str]:
    protocols: dict[str, str | None] = {}  # benchmark -> how it is judged
    for benchmark in suite.benchmarks:
        task = file.benchmarks[benchmark].task
        if task in unusable:
            continue
        keys, protocols[benchmark] = task_file(task), judged(task)
        if keys.get("unsafe_code") and not file.allow_code_execution:
            yield f"allow_code_execution: {benchmark} runs code written by models; set it to true (in the sandbox), or leave {benchmark} out"
        if protocols[benchmark] not in (None, *JUDGED):
            yield f"{task}: metadata.judged must be one of {', '.join(JUDGED)}, not {protocols[benchmark]!r}"
    misplaced = [benchmark for benchmark, protocol in protocols.items() if (protocol is None) == (suite.judge is not None)]
    if misplaced and suite.judge:
        yield f"suites.{name}.benchmarks: {misplaced[0]!r} needs no judge; put it into a suite without one"
    elif misplaced:
        yield f"suites.{name}: {misplaced[0]!r} is judged; give the suite a `judge`, and move benchmarks without one to another suite"
    if suite.judge and not suite.judge.url and suite.judge.model not in file.models:
        yield f"suites.{name}.judge.model: without `url` it must be one of the models ({', '.join(file.models)}), not {suite.judge.model!r}"
