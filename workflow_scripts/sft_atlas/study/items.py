"""The items of a benchmark, as ``fetch_benchmark`` writes them: JSON Lines. Standard library only."""

import json
import random
from pathlib import Path

from sft_atlas.core.errors import AtlasError

# Key of overlap.json, by rule check_overlap: (benchmark, benchmark, shared items, items of the smaller one) of all that share items.
SHARED = "benchmarks_with_shared_items"


def read_items(path: Path) -> list[dict]:
    """The items of a benchmark, in the order of the file. AtlasError where the file does not exist or a row is not a JSON object."""
    if not path.exists():
        raise AtlasError(f"{path} should hold the items of a benchmark and does not exist; run `snakemake data`")
    items = []
    for number, line in enumerate(line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()):
        try:
            items.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise AtlasError(f"{path}: row {number} is not JSON ({error})") from error
        if not isinstance(items[-1], dict):
            raise AtlasError(f"{path}: row {number} is not a JSON object")
    return items


def sample_items(name: str, path: Path, count: int, seed: int) -> list[dict]:
    """At most ``count`` items of the benchmark ``name``, sampled without replacement, in the order of the file.

    The sample depends on ``seed`` and ``name`` alone, so it is the same for every model. Each item has the fields benchmark, item (row
    of the file, from 0), instruction and answer. Raises :class:`AtlasError` as :func:`read_items` does, and for a missing field.
    """
    rows = read_items(path)
    items = []
    for number in sorted(random.Random(f"{seed}/{name}").sample(range(len(rows)), min(count, len(rows)))):
        for field in ("instruction", "answer"):
            if not isinstance(rows[number].get(field), str):
                raise AtlasError(f"{path}: row {number} has no string '{field}'")
        items.append({"benchmark": name, "item": number, "instruction": rows[number]["instruction"], "answer": rows[number]["answer"]})
    return items
