"""Write config/schema.json and the reference of config/README.md from the schema; `--check` only compares."""

import argparse
import json
import sys
import types
import typing
from pathlib import Path

from sft_atlas.core import markdown
from sft_atlas.core.provenance import ROOT
from sft_atlas.study.schema import Devices, Part, StudyFile

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
        for key, field in part.model_fields.items():
            if isinstance(field.default, Part):
                default = "see below"
            else:
                default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
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
    # The JSON schema is for editors: `# yaml-language-server: $schema=schema.json`.
    schema = json.dumps(StudyFile.model_json_schema(), indent=1, sort_keys=True) + "\n"
    return {ROOT / "config/schema.json": schema, page: f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"}


def main(args: argparse.Namespace) -> None:
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if args.check and stale:
        sys.exit(f"{', '.join(str(path.relative_to(ROOT)) for path in stale)}: out of date with the schema; run document_config")
    for path in stale:
        path.write_text(documents()[path], encoding="utf-8")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--check", action="store_true", help="fail when the files are stale, write nothing")
