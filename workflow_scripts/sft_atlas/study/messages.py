"""Read YAML strictly, check it against the schema, and explain what is wrong: file, key path, problem, remedy."""

import difflib
import math
import reprlib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.places import MERGE, ConfigSources, Place
from sft_atlas.study.schema import Part

Checked = typing.TypeVar("Checked", bound=Part)

YTE = "__use_yte__"  # the key with which Snakemake takes a file for a template of https://yte-template-engine.github.io
MOST_VALUES = 200_000  # in one file, counting what aliases stand for; the paper's study has under 3,000
DEEPEST = 50  # levels of lists and keys; the schema has 7
LARGEST = 2**63 - 1
# What PyYAML raises, besides its own errors, for a value that does not fit its tag, such as `!!int x` or the date 2024-13-01.
UNFIT = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
BRIEF = reprlib.Repr()  # of values in messages, which may be long or hold much by aliases
BRIEF.maxstring = BRIEF.maxother = 200
BRIEF.maxlist, BRIEF.maxdict, BRIEF.maxlevel = 8, 8, 3


def strict_yaml(path: Path) -> dict[str, object]:
    """Load YAML; a repeated key is an error (plain YAML silently keeps the last value).

    Raises :class:`ConfigError`, with line and column where YAML knows them, also for what :func:`unusable_value` refuses.
    """

    def wrong(problem: str, mark: yaml.Mark | None = None) -> ConfigError:
        return ConfigError(str(Place(str(path), mark.line + 1, mark.column + 1)) if mark else str(path), [problem])

    class Loader(yaml.SafeLoader):
        def construct_object(self, node, deep=False):
            try:
                return super().construct_object(node, deep)
            except UNFIT as error:
                raise wrong(f"holds a value that does not fit its type: {BRIEF.repr(str(error))}; quote texts", node.start_mark) from None

    def mapping(loader, node):
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            key = None if key_node.tag == MERGE else loader.construct_object(key_node)
            if key is None or not isinstance(key, Hashable):  # `<<`, or a key that construct_mapping refuses below
                continue
            if key in seen:
                raise wrong(f"key {key!r} is repeated (first in line {seen[key]}); remove one", key_node.start_mark)
            seen[key] = key_node.start_mark.line + 1
        loader.flatten_mapping(node)
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise wrong("there is no such file") from None
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].splitlines(keepends=True)
        line = len(before) + (not before or before[-1].endswith(b"\n"))
        column = 1 if not before or before[-1].endswith(b"\n") else len(before[-1].decode("utf-8")) + 1
        place = Place(str(path), line, column)
        raise ConfigError(str(place), [f"not UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8"]) from None
    except yaml.MarkedYAMLError as error:
        raise wrong(f"not valid YAML: {syntax(error)}", error.problem_mark or error.context_mark) from None
    except yaml.YAMLError as error:
        raise wrong(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise wrong(f"nested too deeply; a study has at most {DEEPEST} levels") from None
    except UNFIT as error:
        raise wrong(f"holds a value that does not fit its type: {BRIEF.repr(str(error))}; quote texts") from None
    sources = ConfigSources([path])
    if not isinstance(value, dict):
        raise ConfigError(sources, ["must hold keys and values"])
    if YTE in value:
        raise ConfigError(sources, [f"{YTE}: Snakemake runs the Python code in such a file while it reads it; write the values themselves"])
    if problem := unusable_value(value):
        raise ConfigError(sources, [problem])
    return value


def syntax(error: yaml.MarkedYAMLError) -> str:
    """What YAML cannot read, with the line where it began."""
    begun = error.context_mark.line + 1 if error.context and error.context_mark else None
    context = f" ({error.context}, which begins in line {begun})" if begun else f" ({error.context})" if error.context else ""
    tab = "; indent by spaces, not tabs" if "'\\t'" in str(error.problem) else ""
    return f"{' '.join(str(error.problem).split())}{context}{tab}"


def unusable_value(config: Mapping[str, object]) -> str | None:
    """The first value that no key may have, with its path; None where there is none.

    Such are infinity and NaN, integers of more than 64 bits, halves of surrogate pairs and control characters (a command line or a file
    cannot hold them), values that contain themselves, more than DEEPEST levels and, with aliases written out, more than MOST_VALUES values.
    """
    waiting: list[tuple[str, object, int]] = [("", config, 0)]
    count = 0
    while waiting:
        path, value, level = waiting.pop()
        count += 1
        if level > DEEPEST:
            return f"{path[:80]}: nested too deeply, or holds itself by an alias; a study has at most {DEEPEST} levels"
        if count > MOST_VALUES:
            return f"holds more than {MOST_VALUES:,} values, counting what aliases stand for; write fewer"
        if isinstance(value, Mapping):
            if problem := next(filter(None, map(_unusable_scalar, value)), None):
                return f"{path or '(top level)'}: a key {problem}"
            waiting += [(f"{path}.{key}".lstrip("."), each, level + 1) for key, each in value.items()]
        elif isinstance(value, list | tuple | set):
            waiting += [(f"{path}[{i}]", each, level + 1) for i, each in enumerate(value)]
        elif problem := _unusable_scalar(value):
            return f"{path}: {problem}"
    return None


def _unusable_scalar(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "is a number of more than 64 bits; write a smaller one"
    if isinstance(value, str):
        wrong = next(
            (sign for sign in value if "\ud800" <= sign <= "\udfff" or (sign < " " and sign not in "\t\n\r") or sign == "\x7f"), None
        )
        if wrong:
            kind = "half a surrogate pair" if wrong >= "\ud800" else "a control character"
            return f"holds {kind} ({ascii(wrong)[1:-1]}); remove it"
    return None


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for the closest known word, or nothing."""
    close = [] if len(word) > 100 else difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def validated(schema: type[Checked], config: Mapping[str, object], source: str | ConfigSources) -> Checked:
    """The configuration as ``schema``; raises :class:`ConfigError` with every problem. ``source``: what its messages call the file."""
    if problem := unusable_value(config):
        raise ConfigError(source, [problem])
    try:
        return schema.model_validate(config)
    except ValidationError as error:
        raise ConfigError(source, explain(error, schema)) from None


def explain(error: ValidationError, schema: type[Part]) -> list[str]:
    """One line per problem: key path, what is wrong, what to do."""
    lines = []
    for item in error.errors():
        loc = tuple(part for part in item["loc"] if part != "[key]" and not _is_branch(part))
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{one_line(part)}" for part in loc).lstrip(".") or "(top level)"
        if item["type"] == "extra_forbidden":
            part = _part(schema, loc[:-1])
            valid = keys(part)
            unknown = f"unknown key{nearest(str(loc[-1]), valid)} (valid keys: {', '.join(valid)})"
            lines.append(f"{path}: {renamed(part, loc[-1]) or unknown}")
        elif item["type"] == "missing":
            lines.append(f"{path}: this key is required and missing")
        elif "[key]" in item["loc"]:
            lines.append(f"{path}: names may hold letters, digits, '.', '_' and '-', 64 at most, and begin with a letter or digit")
        else:
            value = "" if isinstance(item["input"], dict) else f" (got {BRIEF.repr(item['input'])})"
            lines.append(f"{path}: {_message(item, schema, loc)}{value}")
    return list(dict.fromkeys(lines))


def keys(part: type[Part]) -> list[str]:
    """The keys of a part, as a study file spells them."""
    return [field.alias or name for name, field in part.model_fields.items()]


def one_line(text: str) -> str:
    """A key for a message: as it is where it is short and printable, else quoted and cut."""
    return text if len(text) <= 100 and text.isprintable() else BRIEF.repr(text)


def renamed(part: type[Part], key: object) -> str | None:
    """The error for a key under its former name; None for any other unknown key."""
    return f"was renamed; write {part.renamed[key]}" if key in part.renamed else None


def _message(item: dict, schema: type[Part], loc: tuple) -> str:
    """The problem, and what to write if a single value stands where a list or keys and values belong."""
    if item["type"] == "model_type":
        return f"must hold keys and values; valid keys: {', '.join(keys(_part(schema, loc)))}"
    if item["type"] == "dict_type":
        return "must hold names with keys and values"
    message = item["msg"].removeprefix("Value error, ")
    return f"{message}: write [{item['input']}]" if item["type"] == "list_type" and isinstance(item["input"], str) else message


def _is_branch(part: object) -> bool:
    """Whether a location element names a branch of a union (pydantic adds them) rather than a key."""
    return isinstance(part, str) and (part.startswith(("literal[", "list[", "constrained-str", "function-", "branch-")))


def _part(schema: object, loc: tuple) -> type[Part]:
    """The part of the schema that a location points to."""
    for step in loc:
        if isinstance(schema, type) and issubclass(schema, Part):
            schema = next(field.annotation for name, field in schema.model_fields.items() if step in (name, field.alias))
        else:
            schema = typing.get_args(schema)[-1]
        while isinstance(schema, types.UnionType) or typing.get_origin(schema) in (typing.Union, typing.Annotated):
            schema = next(part for part in typing.get_args(schema) if part is not type(None))
    return schema
