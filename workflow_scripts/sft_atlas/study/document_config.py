"""Write the JSON schemas and the reference of config/README.md from the schema; `--check` only compares."""

import argparse
import json
import sys
import types
import typing
from pathlib import Path

from sft_atlas.core import markdown
from sft_atlas.core.provenance import ROOT
from sft_atlas.study.lm_eval_names import generation_settings, lm_eval_names
from sft_atlas.study.schema import Devices, Part, StudyFile
from sft_atlas.study.site import Site

BEGIN, END = "<!-- reference: made by workflow_scripts/run.py document_config -->", "<!-- end of reference -->"
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", object: "value"}


def reference() -> str:
    """A table for each part of the study file and of `config/devices.yaml`."""
    lines, queue, written = [], [("(top level)", StudyFile), ("config/devices.yaml", Devices)], set()
    while queue:
        path, part = queue.pop(0)
        if part in written:
            continue
        written.add(part)
        lines += [f"### `{path}`", "", part.__doc__.strip().splitlines()[0], ""]
        rows = []
        for name, field in part.model_fields.items():
            if isinstance(field.default, Part):
                default = "see below"
            else:
                default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
            key = field.alias or name
            rows.append((f"`{key}`", _type(field.annotation), default, field.description))
            prefix = "" if part in (StudyFile, Devices) else path + "."
            queue += [(f"{prefix}{key}{suffix}", inner) for inner, suffix in _parts(field.annotation)]
        lines += [*markdown.table(("key", "type", "default", "meaning"), rows, pad=False), ""]
    return "\n".join(lines)


def _parts(annotation: object) -> list[tuple[type[Part], str]]:
    """Parts inside a type, and the suffix of their path: `.{name}` or `[i]`."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [(annotation, "")]
    suffix = {dict: ".{name}", list: "[i]"}.get(typing.get_origin(annotation), "")
    return [(part, suffix + rest) for inner in typing.get_args(annotation) for part, rest in _parts(inner)]


def _type(annotation: object) -> str:
    """A type in words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is list:
        inner = _type(args[0])
        return f"list of {inner}{'s' * (inner in PLAIN.values())}"
    if origin is tuple:
        return f"list of {len(args)} {_type(args[0])}s"
    if origin is dict:
        return f"mapping of {'name' if typing.get_origin(args[0]) is typing.Annotated else _type(args[0])} to {_type(args[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(arg) for arg in args if arg is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation.__name__
    return PLAIN[annotation]


def documents() -> dict[Path, str]:
    """Path and content of each generated file."""
    page = ROOT / "config/README.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    pages = {ROOT / name: json.dumps(schema, indent=1, sort_keys=True) + "\n" for name, schema in schemas().items()}
    return {**pages, page: f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"}


def schemas() -> dict[str, dict]:
    """Name and content of the JSON schemas, with which editors complete keys: `# yaml-language-server: $schema=schema.json`."""
    study = StudyFile.model_json_schema()
    return {
        "config/schema.json": study,
        "config/overlay-schema.json": _without_required(study),  # of files that are laid over a study
        "config/devices-schema.json": Devices.model_json_schema(),
        "config/benchmarks/schema.json": _task_schema(),
        "slurm/schema.json": Site.model_json_schema(),
    }


def _without_required(schema: object) -> object:
    if isinstance(schema, list):
        return [_without_required(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_required(value) for key, value in schema.items() if key != "required" or not isinstance(value, list)}


def _task_schema() -> dict[str, object]:
    """The keys of lm-eval's task files, and its names of metrics and filters."""
    names = lm_eval_names()
    known = {"type": "object", "required": ["function"]}
    metric = {"properties": {"metric": {"anyOf": [{"enum": list(names.metrics)}, {"type": "string"}]}, "aggregation": {"type": "string"}}}
    step = {**known, "properties": {"function": {"enum": sorted(names.filters)}}}
    filters = {"type": "object", "properties": {"name": {"type": "string"}, "filter": {"type": "array", "items": step}}}
    detailed = {
        "include": {"description": "Task file whose keys hold unless this one has them too.", "type": ["string", "array"]},
        "output_type": {"enum": ["generate_until", "multiple_choice", "loglikelihood", "loglikelihood_rolling"]},
        "metric_list": {"type": "array", "items": {"type": "object", **metric}},
        "filter_list": {"type": "array", "items": filters},
        "fewshot_config": {"type": "object", "properties": {key: {} for key in names.fewshot_fields}},
        "generation_kwargs": {"type": "object", "properties": {key: {} for key in sorted(generation_settings())}},
    }
    return {"title": "lm-eval task file", "type": "object", "properties": {key: {} for key in names.fields} | detailed}


def main(args: argparse.Namespace) -> None:
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if args.check and stale:
        sys.exit(f"{', '.join(str(path.relative_to(ROOT)) for path in stale)}: out of date with the schema; run document_config")
    for path in stale:
        path.write_text(documents()[path], encoding="utf-8")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--check", action="store_true", help="fail when the files are stale, write nothing")
