"""Read YAML strictly, check it against the schema, and explain what is wrong: file, key path, problem, remedy."""

import difflib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.schema import Part

Checked = typing.TypeVar("Checked", bound=Part)

MERGE = "tag:yaml.org,2002:merge"  # the key `<<`


def strict_yaml(path: Path) -> dict[str, object]:
    """Load YAML; a repeated key is an error (plain YAML silently keeps the last value)."""

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            key = None if key_node.tag == MERGE else loader.construct_object(key_node)
            if key is None or not isinstance(key, Hashable):  # `<<`, or a key that construct_mapping refuses below
                continue
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(str(path), [f"line {line}: key {key!r} is repeated (first in line {seen[key]}); remove one"])
            seen[key] = line
        loader.flatten_mapping(node)
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [f"not valid YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(value, dict):
        raise ConfigError(str(path), ["must hold keys and values"])
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for the closest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def validated(schema: type[Checked], config: Mapping[str, object], source: str) -> Checked:
    """The configuration as ``schema``; raises :class:`ConfigError` with every problem. ``source``: the file's name in messages."""
    try:
        return schema.model_validate(config)
    except ValidationError as error:
        raise ConfigError(source, explain(error, schema)) from None


def explain(error: ValidationError, schema: type[Part]) -> list[str]:
    """One line per problem: key path, what is wrong, what to do."""
    lines = []
    for item in error.errors():
        loc = tuple(part for part in item["loc"] if part != "[key]" and not _is_branch(part))
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or "(top level)"
        if item["type"] == "extra_forbidden":
            part = _part(schema, loc[:-1])
            valid = part.model_fields
            unknown = f"unknown key{nearest(str(loc[-1]), valid)} (valid keys: {', '.join(valid)})"
            lines.append(f"{path}: {renamed(part, loc[-1]) or unknown}")
        elif item["type"] == "missing":
            lines.append(f"{path}: this key is required and missing")
        elif "[key]" in item["loc"]:
            lines.append(f"{path}: names may hold letters, digits, '.', '_' and '-', 64 at most, and begin with a letter or digit")
        else:
            value = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
            lines.append(f"{path}: {_message(item, schema, loc)}{value}")
    return list(dict.fromkeys(lines))


def renamed(part: type[Part], key: object) -> str | None:
    """The error for a key under its former name; None for any other unknown key."""
    return f"was renamed; write {part.renamed[key]}" if key in part.renamed else None


def _message(item: dict, schema: type[Part], loc: tuple) -> str:
    """The problem, and what to write if a single value stands where a list or keys and values belong."""
    if item["type"] == "model_type":
        return f"must hold keys and values; valid keys: {', '.join(_part(schema, loc).model_fields)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{message}: write [{item['input']}]" if item["type"] == "list_type" and isinstance(item["input"], str) else message


def _is_branch(part: object) -> bool:
    """Whether a location element names a branch of a union (pydantic adds them) rather than a key."""
    return isinstance(part, str) and (part.startswith(("literal[", "list[", "constrained-str", "function-", "branch-")))


def _part(schema: object, loc: tuple) -> type[Part]:
    """The part of the schema that a location points to."""
    for step in loc:
        if isinstance(schema, type) and issubclass(schema, Part):
            schema = schema.model_fields[step].annotation
        else:
            schema = typing.get_args(schema)[-1]
        while isinstance(schema, types.UnionType) or typing.get_origin(schema) in (typing.Union, typing.Annotated):
            schema = next(part for part in typing.get_args(schema) if part is not type(None))
    return schema
