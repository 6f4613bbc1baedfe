"""Training sets and benchmarks that share a source or items. Samples of them may happen to differ, so that no comparison of rows finds it."""

import filecmp
import os
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from sft_atlas.core.files import read_json
from sft_atlas.study.items import SHARED
from sft_atlas.study.schema import Benchmark, Source
from sft_atlas.study.study import Study

COUNTED = "a mean over benchmarks counts the items more than once"
OVERLAP = "tables/overlap.json"  # beside the table of rule check_overlap: under SHARED, benchmarks that share items


def warnings(study: Study, results: Path) -> list[str]:
    """One line for each training set and benchmark that read the same rows, and for benchmarks with the same items.

    Sources are compared by file (where it is, then its content) or by repository, configuration and split; items by what rule
    ``check_overlap`` found, where it has run in ``results``.
    """
    names = list(dict.fromkeys(name for suite in study.file.suites.values() for name in suite.benchmarks))
    benchmarks = {name: study.file.benchmarks[name] for name in names}
    datasets = {name: study.file.datasets[name] for name in study.sources if name in study.file.datasets}
    lines = [
        f"datasets.{dataset} and benchmarks.{name} read {source}: the model is trained on rows of the benchmark's source, even if the samples "
        "drawn differ; name other files or splits"
        for dataset, left in datasets.items()
        for name, right in benchmarks.items()
        if left.tasks is None and (source := same_rows(left, right, study.path))
    ]
    same, variants = [], []
    for (one, left), (other, right) in combinations(benchmarks.items(), 2):
        if source := same_rows(left, right, study.path):
            (variants if _asked_differently(left, right) else same).append((one, other, source))
    lines += [f"benchmarks.{one} and benchmarks.{other} read {source}: {COUNTED}" for one, other, source in same]
    lines += _shared_items(results, set(names), {frozenset(pair[:2]) for pair in same + variants})
    if groups := _groups(variants):
        lines.append(f"benchmarks that read the same rows and ask them in different ways ({'; '.join(map(', '.join, groups))}): {COUNTED}")
    return lines


def same_rows(one: Source, other: Source, path: Callable[[str], str]) -> str | None:
    """What two sources both read, in words; None where they have no row in common, as far as the study says."""
    if one.tasks is not None or other.tasks is not None:
        return "the same generated items" if (one.tasks, one.seed) == (other.tasks, other.seed) else None
    if any(set(one.filter[column]).isdisjoint(other.filter[column]) for column in one.filter.keys() & other.filter.keys()):
        return None
    if one.path and other.path:
        files = path(one.path), path(other.path)
        if not same_content(*files) or not _splits_meet(one.split, other.split, named=os.path.isdir(files[0])):
            return None
        places = sorted({one.path, other.path})
        return f"the same file ({places[0]})" if len(places) == 1 else f"files with the same content ({places[0]}, {places[1]})"
    if one.hub and other.hub and one.hub.lower() == other.hub.lower() and one.subset == other.subset:
        apart = one.files and other.files and not set(one.files) & set(other.files) and "*" not in "".join([*one.files, *other.files])
        if not apart and _splits_meet(one.split, other.split, named=True):
            return f"the same rows of the hub ({', '.join(filter(None, (one.hub, one.subset, one.split)))})"
    return None


def same_content(one: str, other: str) -> bool:
    """Whether two paths lead to one file or folder, or to files with the same bytes."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    return os.path.isfile(one) and os.path.isfile(other) and os.path.getsize(one) > 0 and filecmp.cmp(one, other, shallow=False)


def _splits_meet(one: str, other: str, named: bool) -> bool:
    """Whether two splits, such as ``train[10:510]``, can have a row in common; without ``named`` only the slices count."""
    return any((not named or left[0] == right[0]) and _slices_meet(left[1], right[1]) for left in _parts(one) for right in _parts(other))


def _parts(split: str) -> Iterator[tuple[str, str]]:
    """Name and slice of each part of a split."""
    for part in split.split("+"):
        name, _, rows = part.strip().partition("[")
        yield name, rows.removesuffix("]")


def _slices_meet(one: str, other: str) -> bool:
    ranges = [re.fullmatch(r"(\d*):(\d*)", rows or ":") for rows in (one, other)]
    if not all(ranges):
        return True  # shares (`train[:10%]`) depend on the number of rows
    (start, stop), (first, last) = ((int(match[1] or 0), int(match[2]) if match[2] else None) for match in ranges)
    return (last is None or start < last) and (stop is None or first < stop)


def _asked_differently(one: Benchmark, other: Benchmark) -> bool:
    """Whether two benchmarks of one source have different prompts or examples, as most do on purpose."""
    return (one.task, one.shots) != (other.task, other.shots)


def _groups(pairs: list[tuple[str, str, str]]) -> list[list[str]]:
    """Names that pairs connect, in groups."""
    groups: list[list[str]] = []
    for one, other, _ in pairs:
        group = next((group for group in groups if one in group or other in group), None)
        if group is None:
            groups.append([one, other])
        else:
            group += [name for name in (one, other) if name not in group]
    return groups


def _shared_items(results: Path, names: set[str], known: set[frozenset[str]]) -> list[str]:
    """Benchmarks that share items although they name different sources, as far as ``check_overlap`` has compared them."""
    file = results / OVERLAP
    if not file.exists():
        return []
    found = read_json(file).get(SHARED, [])
    return [
        f"benchmarks.{one} and benchmarks.{other} share {shared} of {items} items: {COUNTED}"
        for one, other, shared, items in found
        if {one, other} <= names and frozenset((one, other)) not in known
    ]
