"""Renamed models, datasets, recipes and suites take over their finished results.

A name that the study did not have at the last call, with the settings of one that it has no longer, is a new name for the same thing. Its
results move to the new places, together with Snakemake's records of them, so that Snakemake itself decides what is still missing or out of
date. They are copied first (weights are hard links); a dry run removes the copies when it ends, any other call removes what was copied.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.core import snakemake_records
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import link_or_copy, read_json, sha256, write_json, write_text
from sft_atlas.study.paths import MANIFEST, PREFLIGHT, Paths
from sft_atlas.study.runs import WITHOUT
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.study.study import Study

KINDS = {"models": "model", "datasets": "dataset", "recipes": "recipe", "suites": "suite"}  # part of the study file -> key of its results
# What is not compared: keys that change no result, and what `study.json` adds to the entries of the study file.
COSMETIC = {"label", "group", "family", "language", "parameters", "chance", "grid", "seeds"} | Hyperparameters.memory
SPEED = {"suites": {"batch_size", "memory", "gpus"}}  # of one kind
RESOLVED = {"smallest_rows", "merged", "members", "without"}
BY_SUITE = ("scores", "samples", "answers", "judgements", "rescored")  # folders of a checkpoint with one file of each suite
STATES = ("state/suites", "state/judgements")  # folders with answers and judgements that are kept between jobs
Names = dict[str, dict[str, str]]  # kind -> former name -> name


def renames(former: dict, study: Study) -> Names:
    """The parts of a study that were renamed since ``study.json`` (``former``) was written; no entry for a kind without any."""
    file = json.loads(study.file.model_dump_json())
    for name, recipe in file["recipes"].items():
        recipe["save_epochs"] = list(study.kept_epochs(name))
    found: Names = {}
    for kind in KINDS:
        before, now = former.get(kind, {}), file[kind]
        gone = [name for name in before if name not in now]
        names = found[kind] = {}
        new = sorted((name for name in now if name not in before), key=lambda name: bool(now[name].get("merge")))  # members first
        for name in new:
            same = (old for old in gone if old not in names and _settings(kind, before[old], names) == _settings(kind, now[name], {}))
            if old := next(same, None):
                names[old] = name
    seeds = {(run["recipe"], run["folder"]) for run in former.get("runs", []) if run.get("folder", run["recipe"]) != run["recipe"]}
    found["recipes"] |= {old: found["recipes"][of] + old.removeprefix(of) for of, old in seeds if of in found["recipes"]}
    found["recipes"] |= _seeds_of_recipes(former, file["recipes"], study, found["recipes"])
    left_out = {WITHOUT + old: WITHOUT + new for old, new in found["datasets"].items() if WITHOUT + old in former.get("datasets", {})}
    found["datasets"] |= {old: new for old, new in left_out.items() if new in study.file.leave_one_out}
    return {kind: names for kind, names in found.items() if names}


def _seeds_of_recipes(former: dict, recipes: dict, study: Study, names: dict[str, str]) -> dict[str, str]:
    """Former recipes whose place a seed of another recipe has taken, such as those of ``grid: {seed: [0, 1]}``; name -> folder of its runs."""
    before, used = former.get("recipes", {}), {run.get("folder", run["recipe"]) for run in former.get("runs", [])}
    found: dict[str, str] = {}
    for run in study.runs.values():
        if run.folder in (run.recipe, *used, *found.values()):
            continue
        settings = _settings("recipes", {**recipes[run.recipe], "seed": run.settings.seed}, {})
        for old in before:
            if old not in recipes and old not in names and old not in found and _settings("recipes", before[old], {}) == settings:
                found[old] = run.folder
                break
    return found


def _settings(kind: str, entry: dict, names: dict[str, str]) -> dict:
    """What decides the results of an entry; members of a merge by their names today."""
    settings = {key: value for key, value in entry.items() if key not in COSMETIC | RESOLVED | SPEED.get(kind, set())}
    if isinstance(settings.get("merge"), list):
        settings["merge"] = [names.get(member, member) for member in settings["merge"]]
    return settings


def place(path: str, names: Names) -> str:
    """Where a result (a path below the study's folder) is kept under the names of today."""

    def name(kind: str, former: str) -> str:
        return names.get(kind, {}).get(former, former)

    def file(kind: str, former: str) -> str:
        stem, dot, ending = former.rpartition(".")
        return f"{name(kind, stem)}{dot}{ending}" if dot and former not in names.get(kind, {}) else name(kind, former)

    match path.split("/"):
        case ["models", model, *rest]:
            parts = ["models", name("models", model), *rest]
        case ["data", dataset, *rest]:
            parts = ["data", name("datasets", dataset), *rest]
        case ["perplexity", model, dataset]:
            parts = ["perplexity", name("models", model), file("datasets", dataset)]
        case ["suites", suite]:
            parts = ["suites", file("suites", suite)]
        case ["runs", model, dataset, recipe, *rest]:
            if len(rest) == 3 and rest[1] in BY_SUITE:
                rest[2] = file("suites", rest[2])
            parts = ["runs", name("models", model), name("datasets", dataset), name("recipes", recipe), *rest]
        case ["state", "suites" | "judgements" as kept, model, dataset, recipe, epoch, suite, *rest]:
            run = [name("models", model), name("datasets", dataset), name("recipes", recipe)]
            parts = ["state", kept, *run, epoch, file("suites", suite), *rest]
        case parts:
            pass
    return "/".join(parts)


@dataclass
class Takeover:
    """What was copied to new places: lines for people, and what it takes to keep the copies alone, or the former results alone."""

    study: Path  # study.json
    names: Names = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    former: list[str] = field(default_factory=list)  # files at their former places
    files: list[str] = field(default_factory=list)  # the copies
    moved: dict[str, str] = field(default_factory=dict)  # outputs with a record: former place -> new place
    records_before: dict[str, dict] = field(default_factory=dict)  # of outputs that stay where they are

    def finish(self, folder: Path = snakemake_records.FOLDER) -> None:
        """Remove the former results and their records."""
        _remove(self.former)
        snakemake_records.delete(self.moved, folder)
        # The names that the results have now: they may change again before a call writes the study anew.
        with snakemake_records.keep_time(self.study):
            study = read_json(self.study)
            for kind, renamed in self.names.items():
                study[kind] = {renamed.get(name, name): entry for name, entry in study[kind].items()}
            study["runs"] = _with_names(study.get("runs", []), self.names, "")
            write_json(self.study, study)

    def undo(self, folder: Path = snakemake_records.FOLDER) -> None:
        """Remove the copies and their records."""
        _remove(self.files)
        snakemake_records.delete(self.moved.values(), folder)
        snakemake_records.write(self.records_before, folder)


def _remove(files: list[str]) -> None:
    for path in files:
        Path(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # up to the first folder that holds something else
            os.removedirs(os.path.dirname(path))


def take_over(study: Study, paths: Paths, folder: Path = snakemake_records.FOLDER) -> Takeover:
    """Copy the results of renamed parts to their new places; nothing where a new place is in use already.

    Until :meth:`Takeover.finish` nothing is lost, whenever it is interrupted.
    """
    file = Path(paths.study)
    taken = Takeover(file)
    former = read_json(file) if file.exists() else {}
    names = renames(former, study) if former else {}
    if not names:
        return taken
    root = f"{paths.root}/"
    records = snakemake_records.read((paths.root,), folder)
    moved = {old: root + place(old.removeprefix(root), names) for old in records if not old.endswith("/card.md")}
    moved = {old: new for old, new in moved.items() if new != old}
    if any(new in records or os.path.lexists(new) for new in moved.values()):
        return taken
    for old in snakemake_records.incomplete(moved, folder):
        del moved[old]
    if not moved:
        return taken
    side = [path for part in STATES for path in Path(root, part).rglob("*") if path.is_file()]
    for path in map(Path, moved):
        side += [path.with_suffix(".json"), path.with_name(MANIFEST)] if path.suffix == ".parquet" else []
        side += path.with_name("weights").rglob("*") if path.name == "model.json" else []  # downloaded ones are no output
    beside = {str(path): root + place(path.relative_to(root).as_posix(), names) for path in side if path.is_file()}
    beside = {old: new for old, new in beside.items() if new != old and old not in records}
    checksums: dict[str, dict[str, str]] = {}  # rewritten file -> checksum before -> checksum after
    for old, new in {**beside, **moved}.items():
        for source in [path for path in Path(old).rglob("*") if path.is_file()] if os.path.isdir(old) else [Path(old)]:
            target = Path(new) / source.relative_to(old)
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(source, target, names, root)
                taken.files.append(str(target))
                taken.former.append(str(source))
                if not os.path.samefile(source, target):
                    checksums[str(target)] = {f"sha256:{sha256(source)}": f"sha256:{sha256(target)}"}
    # A merge has no name of its members in it; the record of anything else that keeps its place, such as a table, must not name new inputs.
    merges = {output: record for output, record in records.items() if output.startswith(f"{root}data/") and output not in moved}
    after = snakemake_records.rename({output: records[output] for output in moved} | merges, moved)
    for record in after.values():
        if known := record.get("input_checksums"):
            record["input_checksums"] = {path: checksums.get(path, {}).get(value, value) for path, value in known.items()}
    taken.records_before = {output: record for output, record in merges.items() if after[output] != record}
    taken.names, taken.moved = names, moved
    snakemake_records.write({output: after[output] for output in [*moved.values(), *taken.records_before]}, folder)
    for kind, renamed in names.items():
        entries = former[kind]  # not the folders of seeds, which follow their recipe
        renamed = {old: new for old, new in renamed.items() if old in entries and not old.startswith(WITHOUT)}
        taken.lines += [
            f"{KINDS[kind]} {new} takes over the finished results of {old}, which has equal settings" for old, new in renamed.items()
        ]
    return taken


def _copy(source: Path, target: Path, names: Names, root: str) -> None:
    """Copy a file, with the names of today in it; it keeps its time stamp. Files that hold no names are hard links, where that is possible."""
    if source.suffix == ".parquet":
        rewritten = _copy_table(source, target, names)
    elif source.suffix == ".json" and "weights" not in source.parts:
        content = _with_names(read_json(source), names, root)
        if "name" in content:  # of a base model or a suite
            content["name"] = target.parent.name if target.name == "model.json" else target.stem
        write_json(target, content)
        rewritten = True
    elif source.name == PREFLIGHT:
        run, new = ("/".join(path.parts[-4:-1]) for path in (source, target))
        write_text(target, source.read_text(encoding="utf-8").replace(run, new))
        rewritten = True
    else:
        rewritten = False
    if rewritten:
        shutil.copystat(source, target)
    else:
        link_or_copy(source, target)


def _copy_table(source: Path, target: Path, names: Names) -> bool:
    import polars as pl

    from sft_atlas.core.files import read_table, write_table

    keys = {KINDS[kind]: renamed for kind, renamed in names.items()}
    keys = {key: renamed for key, renamed in keys.items() if pl.read_parquet_schema(source).get(key) == pl.String}
    if not keys:
        return False
    write_table(target, read_table(source).with_columns(pl.col(key).replace(renamed) for key, renamed in keys.items()))
    return True


def _with_names(value: object, names: Names, root: str, key: str = "") -> object:
    """JSON with the names of today under the keys of results, and with the paths of today."""
    if isinstance(value, dict):
        return {name: _with_names(inner, names, root, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_names(inner, names, root) for inner in value]
    if not isinstance(value, str):
        return value
    kind = "recipes" if key == "folder" else next((kind for kind, singular in KINDS.items() if singular == key), None)
    if kind:
        return names.get(kind, {}).get(value, value)
    for prefix in (root, os.path.join(os.path.abspath(root), "")):
        if value.startswith(prefix):
            return prefix + place(value.removeprefix(prefix), names)
    return value


def before_the_graph(workflow, study: Study, paths: Paths, say: Callable[[str], None], only_look: Callable) -> None:
    """Take over results in each call before Snakemake looks at them; everything is as before after a dry run or where ``only_look(workflow)``."""
    build, execute, taken = workflow._build_dag, workflow.execute, Takeover(Path(paths.study))

    def dry() -> bool:
        return workflow.dryrun or only_look(workflow)

    def build_after_takeover() -> None:
        running = any((snakemake_records.FOLDER / "locks").glob("*.lock"))  # another call, whose results must stay where they are
        if workflow.is_main_process and not workflow.touch and not (running and not dry()):
            try:
                vars(taken).update(vars(take_over(study, paths)))
            except AtlasError as error:
                print(error, file=sys.stderr)
                sys.exit(1)
            for line in taken.lines:
                say(line)
            if taken.moved and not dry():
                taken.finish()
        build()

    def execute_and_undo(*arguments, **options):
        try:
            return execute(*arguments, **options)
        finally:
            if taken.moved and dry():
                taken.undo()

    workflow._build_dag, workflow.execute = build_after_takeover, execute_and_undo
