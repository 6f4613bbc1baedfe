"""Entries of `checkpoints` with `from`: a table or a collection of the hub in place of many entries.

A table is a file of the study and read again in each call. A collection is asked for once: its models, their commits and files are noted in
``state/collections/`` of the results, so that a study does not change under its owner. Delete the note to ask again.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from sft_atlas.core.errors import AtlasError, ConfigError
from sft_atlas.core.files import read_json, write_json
from sft_atlas.core.hub import request
from sft_atlas.study.messages import explain, keys, nearest
from sft_atlas.study.outside import ADAPTER
from sft_atlas.study.paths import RESULTS, Paths
from sft_atlas.study.places import ConfigSources
from sft_atlas.study.schema import NAME, OutsideCheckpoint

MOST_ROWS = 100_000
COLUMNS = ["name", *(key for key in keys(OutsideCheckpoint) if key != "from")]


def expand(config: Mapping[str, object], source: str | ConfigSources) -> dict[str, object]:
    """The configuration with every entry of `checkpoints` that has `from` replaced by those that it stands for.

    Raises :class:`ConfigError` with every problem of a table, with its line and column, and where a collection cannot be read.
    """
    given = config.get("checkpoints")
    if not isinstance(given, Mapping) or not any(isinstance(entry, Mapping) and "from" in entry for entry in given.values()):
        return dict(config)
    checkpoints: dict[str, object] = {}
    problems: list[str] = []
    for name, entry in given.items():
        if not isinstance(entry, Mapping) or "from" not in entry:
            found = {name: entry}
        elif not isinstance(entry["from"], str | Mapping):
            found = {name: entry}  # which the schema refuses
        elif not isinstance(config.get("study"), str) or not re.fullmatch(NAME, config["study"]):
            continue  # which the schema refuses, and which is a part of the note's path
        else:
            where = f"checkpoints.{name}"
            rest = {key: value for key, value in entry.items() if key != "from"}
            try:
                OutsideCheckpoint.model_validate(entry)
                found = (
                    _of_table(_path(config, entry["from"]), rest, where)
                    if isinstance(entry["from"], str)
                    else _of_collection(config, entry["from"]["hub_collection"], rest, where)
                )
            except ValidationError as error:
                problems += [f"{where}.{text}" for text in explain(error, OutsideCheckpoint)]
                continue
            except ConfigProblems as error:
                problems += error.problems
                continue
        if repeated := [each for each in found if each in checkpoints or (each != name and each in given)]:
            problems.append(f"checkpoints.{name}: the name {repeated[0]!r} is there twice; give the checkpoints names of their own")
        checkpoints |= found
    if problems:
        raise ConfigError(source, problems)
    return {**config, "checkpoints": checkpoints}


class ConfigProblems(Exception):
    """What is wrong with a list of checkpoints."""

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)


def _path(config: Mapping[str, object], entry: str) -> str:
    """A path of the study file, as :meth:`sft_atlas.study.study.Study.path` resolves it."""
    root = config.get("data_root")
    start = os.path.expanduser(os.path.expandvars(root)) if isinstance(root, str) else ""
    return os.path.join(start, os.path.expanduser(os.path.expandvars(entry)))


# ---------------------------------------------------------------- a table


def _of_table(path: str, rest: Mapping[str, object], where: str) -> dict[str, dict[str, object]]:
    """The checkpoints of a CSV file; ``rest``: keys that hold for all of them, unless the file has a column for them."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return dict(_rows(csv.reader(file, strict=True), path, rest, where))
    except FileNotFoundError:
        raise ConfigProblems([f"{where}.from: there is no {path}; correct the path, or put the table there"]) from None
    except OSError as error:
        raise ConfigProblems([f"{where}.from: {path} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigProblems([f"{where}.from: {path} is not UTF-8; save the file as UTF-8"]) from None


def _rows(reader, path: str, rest: Mapping[str, object], where: str) -> Iterator[tuple[str, dict[str, object]]]:
    problems: list[str] = []
    found: dict[str, dict[str, object]] = {}
    lines: dict[str, int] = {}

    def wrong(line: int, column: str, what: str) -> None:
        problems.append(f"{where}.from: {path}, line {line}, column {column}: {what}")

    try:
        header = [column.strip() for column in next(reader, [])]
        for column in header:
            if column not in COLUMNS:
                wrong(1, column or "(empty)", f"unknown column{nearest(column, COLUMNS)} (there may be {', '.join(COLUMNS)})")
            elif header.count(column) > 1:
                wrong(1, column, "is there twice; remove one")
        if "name" not in header:
            wrong(1, "name", "is required and missing; it has the name of each checkpoint")
        if problems:
            raise ConfigProblems(dict.fromkeys(problems))
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                wrong(line, header[min(len(cells), len(header)) - 1], f"the line has {len(cells)} cells, the header {len(header)}")
                continue
            row = {column: cell.strip() for column, cell in zip(header, cells, strict=True) if cell.strip()}
            name = row.pop("name", "")
            if not re.fullmatch(NAME, name):
                wrong(line, "name", f"{name!r} is no name; it may hold letters, digits, '.', '_' and '-', 64 at most")
            elif name in found:
                wrong(line, "name", f"{name!r} is there twice (first in line {lines[name]}); remove one")
            else:
                found[name], lines[name] = {**rest, **row}, line
                try:
                    entry = OutsideCheckpoint.model_validate(found[name])
                    found[name] = entry.model_dump(by_alias=True, exclude_unset=True)  # numbers as numbers
                except ValidationError as error:
                    for text in explain(error, OutsideCheckpoint):
                        column, _, what = text.partition(": ")
                        wrong(line, "name" if column == "(top level)" else column, what)
            if len(found) > MOST_ROWS:
                raise ConfigProblems([f"{where}.from: {path} has more than {MOST_ROWS:,} lines"])
    except csv.Error as error:
        problems.append(f"{where}.from: {path}, line {reader.line_num}: not a CSV file: {error}")
    if not found and not problems:
        problems.append(f"{where}.from: {path} has no line below its header; add a checkpoint, or remove the entry")
    if problems:
        raise ConfigProblems(problems)
    yield from found.items()


# ---------------------------------------------------------------- a collection of the hub


def _of_collection(config: Mapping[str, object], slug: str, rest: Mapping[str, object], where: str) -> dict[str, dict[str, object]]:
    """The models of a collection, each at its commit, named as on the hub without its owner."""
    note = Path(RESULTS.format(study=config.get("study"))) / Paths("").collection.lstrip("/").format(collection=slug.replace("/", "--"))
    try:
        if not note.exists():
            write_json(note, _ask(slug))
        models = read_json(note)["models"]
    except AtlasError as error:
        raise ConfigProblems([f"{where}.from: {error}"]) from None
    found: dict[str, dict[str, object]] = {}
    problems = []
    for model in models:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", model["hub"].split("/")[-1])[:64]
        name = name if name not in found else re.sub(r"/", "-", model["hub"])[:64]
        base = rest.get("model") or _base_of(config, model["base_models"])
        if base is None:
            named = ", ".join(model["base_models"]) or "none"
            problems.append(
                f"{where}: the card of {model['hub']} names as its base {named}, which is no `hub` of a model of the study; add the model, or state "
                "`model`"
            )
        method = rest.get("method") or ("lora" if ADAPTER in model["files"] else "full")
        found[name] = {**rest, "model": base, "hub": model["hub"], "revision": model["commit"], "method": method}
    if not models:
        problems.append(f"{where}.from: the collection {slug} has no models")
    if problems:
        raise ConfigProblems(problems)
    return found


def _base_of(config: Mapping[str, object], names: list[str]) -> str | None:
    """The study's model that is on the hub under one of the names."""
    models = config.get("models")
    hubs = {entry.get("hub"): name for name, entry in models.items() if isinstance(entry, Mapping)} if isinstance(models, Mapping) else {}
    return next((hubs[name] for name in names if name in hubs), None)


def _ask(slug: str) -> dict[str, object]:
    """The models of a collection now: hub id, commit, file names, and the base models that their cards name."""
    from huggingface_hub import HfApi

    api = HfApi()
    items = request(lambda: api.get_collection(slug), "collection", slug, None).items
    names = [item.item_id for item in items if item.item_type == "model"]
    infos = [request(lambda name=name: api.model_info(name), "model", name, "its newest commit") for name in names]
    return {"collection": slug, "models": [_described(info) for info in infos]}


def _described(info) -> dict[str, object]:
    card = info.card_data.to_dict() if info.card_data else {}
    bases = card.get("base_model") or []
    return {
        "hub": info.id,
        "commit": info.sha,
        "files": sorted(file.rfilename for file in info.siblings or ()),
        "base_models": [bases] if isinstance(bases, str) else list(bases),
    }
