"""The lm-eval task files of a study's benchmarks, read without lm-eval."""

import functools
import os
from pathlib import Path

import yaml

from sft_atlas.core.errors import AtlasError

JUDGED = ("mt_bench", "alpaca_eval")  # values of `metadata: {judged: ...}` in a task file: protocols of judging
OWN_TEMPLATE = "own"  # `metadata: {template: own}` in a task file: the task has a prompt of its own on purpose


class Function(str):
    """The text of lm-eval's `!function module.name`; ``folder`` is that of the file in which it stands, where its module may be."""

    folder: str


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which lm-eval's `!function name` is a :class:`Function`; ``folder`` is that of the file."""

    folder = ""


def _function(loader: _Loader, node: yaml.Node) -> Function:
    name = Function(loader.construct_scalar(node))
    name.folder = loader.folder
    return name


_Loader.add_constructor("!function", _function)


def with_first(entries: list, key: str, value: str) -> list:
    """A list of entries of a task file, those whose ``key`` is ``value`` first."""
    return sorted(entries, key=lambda entry: not isinstance(entry, dict) or entry.get(key) != value)


@functools.cache
def task_file(path: str) -> dict[str, object]:
    """The keys of an lm-eval task file and of the files that it includes; functions by name.

    Raises :class:`AtlasError` where a file does not exist, is not YAML with keys, or includes itself.
    """
    sources = _order(path)
    twice = next((source for i, source in enumerate(sources) if source in sources[:i]), None)
    if twice:
        raise AtlasError(f"{path}: includes {twice} twice, which lm-eval refuses; remove one `include`")
    merged: dict[str, object] = {}
    for source in reversed(sources):
        merged |= {key: value for key, value in _read(source)[0].items() if key != "task_list" or source == path}
    return merged


def task_sources(path: str) -> list[str]:
    """A task file and every file that it includes, itself first; each of them once."""
    return list(dict.fromkeys(_order(path)))


def _order(path: str, including: tuple[str, ...] = ()) -> list[str]:
    """A task file and the files that it includes; keys of earlier ones win. Of several includes the last one wins, as in lm-eval."""
    if path in including:
        raise AtlasError(f"{path}: includes itself, by way of {', '.join(including[1:]) or 'its own name'}; remove one `include`")
    included = [source for name in reversed(_read(path)[1]) for source in _order(name, (*including, path))]
    return [path, *included]


@functools.cache
def _read(path: str) -> tuple[dict[str, object], list[str]]:
    """Keys of one file, and the files that it includes."""

    class Loader(_Loader):
        folder = os.path.dirname(path)

    try:
        config = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise AtlasError(f"{path}: there is no such file; correct the `include` that names it") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise AtlasError(f"{path} is not an lm-eval task file: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise AtlasError(f"{path} is not an lm-eval task file: it holds {type(config).__name__}, not keys and values")
    included = config.pop("include", None) or []
    names = included if isinstance(included, list) else [included]
    if not all(isinstance(name, str) for name in names):
        raise AtlasError(f"{path}: include must name files, not {included!r}")
    return config, [os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(name))) for name in names]


def metadata(path: str) -> dict[str, object]:
    """The `metadata` of a task file."""
    given = task_file(path).get("metadata")
    return given if isinstance(given, dict) else {}


def judged(path: str) -> str | None:
    """How a judge scores a task's answers; None if they are compared with right answers."""
    return metadata(path).get("judged")
