"""Where the keys of a configuration stand: file, line and column in files that are laid over each other, and the words of `--config`.

Snakemake merges them without keeping lines. So where a problem is shown, the files are composed again, which constructs no values. A
problem begins with its key path (``recipes.full.rows: ...``), which leads through them.
"""

import functools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

MERGE = "tag:yaml.org,2002:merge"  # the key `<<`
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TASK_FILE = re.compile(r"(\S.*?\.ya?ml): (?=\S)")  # a problem of a task file begins with its path


class Place(NamedTuple):
    """A place in a file or in a word after `--config` (``source`` is its key); lines and columns count from 1."""

    source: str
    line: int = 1
    column: int = 1
    in_file: bool = True

    def __str__(self) -> str:
        if self.in_file:
            return f"{self.source}:{self.line}:{self.column}"
        return f"--config {self.source}, {f'line {self.line}, ' if self.line > 1 else ''}column {self.column}"


class _Layer(NamedTuple):
    """What one source says at some key path, and where its key stands."""

    node: yaml.Node
    place: Place

    def below(self, node: yaml.Node, mark: yaml.Mark) -> "_Layer":
        return _Layer(node, self.place._replace(line=mark.line + 1, column=mark.column + 1))

    def children(self) -> dict[str, "_Layer"]:
        """The keys of a mapping, also those that `<<` merges into it; none of anything else."""
        found: dict[str, _Layer] = {}
        own: dict[str, _Layer] = {}
        for key, value in self.node.value if isinstance(self.node, yaml.MappingNode) else ():
            if key.tag == MERGE:
                for merged in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                    found |= self.below(merged, merged.start_mark).children()
            elif isinstance(key, yaml.ScalarNode):
                own[key.value] = self.below(value, key.start_mark)
        return found | own


class ConfigSources:
    """The files of a configuration, in the order in which they are laid over each other, and the words of `--config` (``KEY=VALUE``)."""

    def __init__(self, files: Sequence[str | os.PathLike], words: Sequence[str] = ()):
        self.files, self.words = [str(file) for file in files], list(words)

    def __str__(self) -> str:
        return " + ".join([*self.files, *(["--config"] if self.words else [])])

    def located(self, problem: str) -> str:
        """The problem with its place in front. A problem of a task file has two places: that of the benchmark's key, and its own."""
        if (task := TASK_FILE.match(problem)) and os.path.isfile(task[1]):
            return f"{self._naming(task[1]) or self}: {ConfigSources([task[1]]).located(problem[task.end() :])}"
        return f"{self.place(problem) or self}: {problem}"

    def place(self, path: str) -> Place | None:
        """The place of a key path, with any text after it: in the source that has the last word; of a missing key, that of the part which
        lacks it. None where no source can be read."""
        layers = self._layers
        if not layers:
            return None
        recipes = [layer.children().get("recipes") for layer in layers]
        grids = {name for part in recipes if part for name, recipe in part.children().items() if "grid" in recipe.children()}
        place = layers[0].place
        while found := _step(layers, path, grids):
            layers, path = found
            place = layers[-1].place
        return place

    @functools.cached_property
    def _layers(self) -> list[_Layer]:
        return [*filter(None, map(_of_file, self.files)), *filter(None, map(_of_word, self.words))]

    def _naming(self, task: str) -> Place | None:
        """The place of the last benchmark that names a task file."""
        benchmarks = [layer.children()["benchmarks"] for layer in self._layers if "benchmarks" in layer.children()]
        keys = [entry.children()["task"] for part in benchmarks for entry in part.children().values() if "task" in entry.children()]
        return next((key.place for key in reversed(keys) if key.node.value == task), None)


def _of_file(path: str) -> _Layer | None:
    try:
        node = yaml.compose(Path(path).read_text(encoding="utf-8"), LOADER)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return _Layer(node or yaml.MappingNode("tag:yaml.org,2002:map", []), Place(path))


def _of_word(word: str) -> _Layer | None:
    key, _, value = word.partition("=")
    try:
        node = yaml.compose(" " * (len(key) + 1) + value, LOADER)  # so that columns are those of the word
    except (yaml.YAMLError, RecursionError):
        node = None
    start = yaml.Mark(key, 0, 0, 0, None, None)
    node = node or yaml.ScalarNode("tag:yaml.org,2002:str", value, start, start)
    return _Layer(yaml.MappingNode("tag:yaml.org,2002:map", [(yaml.ScalarNode(None, key, start, start), node)]), Place(key, in_file=False))


def _step(layers: list[_Layer], path: str, grids: Collection[str]) -> tuple[list[_Layer], str] | None:
    """One key or index further down: the layers there and the rest of the path. None where no source goes on."""
    if isinstance(layers[-1].node, yaml.SequenceNode):
        index, items = re.match(r"\[(\d+)\]", path), layers[-1].node.value
        # A recipe with a grid stands for several, so that the indices of the list are others than those in the file.
        if index is None or int(index[1]) >= len(items) or any(item.value in grids for item in items if isinstance(item, yaml.ScalarNode)):
            return None
        item = items[int(index[1])]
        return [layers[-1].below(item, item.start_mark)], path[index.end() :]
    path = path.removeprefix(".")
    named = [layer.children() for layer in layers]
    known = dict.fromkeys(key for keys in named for key in keys)
    fitting = [key for key in known if path.startswith(key) and path[len(key) : len(key) + 1] in ("", ".", "[", ":", " ")]
    combinations = [key for key in known if key in grids and path.startswith(f"{key}_")]
    if not (key := max(fitting or combinations, key=len, default=None)):
        return None
    chosen = [keys[key] for keys in named if key in keys]
    # Keys are laid over keys; a list or value replaces what earlier sources say.
    start = max((i for i, layer in enumerate(chosen) if not isinstance(layer.node, yaml.MappingNode)), default=0)
    return chosen[start:], path[len(key) :] if fitting else ""
