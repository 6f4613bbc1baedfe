"""The lm-eval task files of a study's benchmarks."""

import functools
import os
from pathlib import Path

import yaml

JUDGED = ("mt_bench", "alpaca_eval")  # values of `metadata: {judged: ...}` in a task file: protocols of judging


class _Loader(yaml.SafeLoader):
    """YAML in which lm-eval's `!function name` is the text `name`."""


_Loader.add_constructor("!function", lambda loader, node: node.value)


@functools.cache
def task_file(path: str) -> dict[str, object]:
    """The keys of an lm-eval task file and of the files that it includes; functions by name."""
    keys, included = _read(path)
    merged: dict[str, object] = {}
    for other in included:
        merged |= task_file(other)
    return merged | keys


def task_sources(path: str) -> list[str]:
    """A task file and every file that it includes, itself first."""
    return [path, *(source for other in _read(path)[1] for source in task_sources(other))]


@functools.cache
def _read(path: str) -> tuple[dict[str, object], list[str]]:
    """Keys of one file, and the files that it includes."""
    config = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader) or {}
    included = config.pop("include", [])
    names = included if isinstance(included, list) else [included]
    return config, [os.path.normpath(os.path.join(os.path.dirname(path), name)) for name in names]


def judged(path: str) -> str | None:
    """How a judge scores a task's answers; None if they are compared with right answers."""
    return (task_file(path).get("metadata") or {}).get("judged")
