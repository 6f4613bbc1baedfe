"""The items of a benchmark, as ``fetch_benchmark`` writes them: JSON Lines."""

import hashlib
import json
import random
import re
from collections.abc import Iterable
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import require_recorded

# Key of overlap.json, by rule check_overlap: (benchmark, benchmark, shared items, items of the smaller one) of all that share items.
SHARED = "benchmarks_with_shared_items"

WORDS = re.compile(r"[぀-ヿ㐀-鿿]|[^\W_]+|[^\w\s]")  # Chinese and Japanese by character; marks count: 3 + 4 is not 3 - 4


def read_items(path: Path) -> list[dict]:
    """The items of a benchmark, in the order of the file. AtlasError where the file does not exist, is damaged, or a row is not a JSON object."""
    if not path.exists():
        raise AtlasError(f"{path} should hold the items of a benchmark and does not exist; run `snakemake data`")
    content = path.read_bytes()
    if not content.strip():
        raise AtlasError(f"{path} is empty; delete it and run again")
    require_recorded(path)
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise AtlasError(f"{path} is damaged: {error}; delete it and run again") from error
    items = []
    for number, line in enumerate(line for line in lines if line.strip()):
        try:
            items.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise AtlasError(f"{path}: row {number} is not JSON ({error}); delete the file and run again") from error
        if not isinstance(items[-1], dict):
            raise AtlasError(f"{path}: row {number} is not a JSON object; delete the file and run again")
    return items


def words(text: str) -> tuple[str, ...]:
    """A text's words and marks, without case."""
    return tuple(WORDS.findall(text.lower()))


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


def prompts_hash(prompts: Iterable[str]) -> str | None:
    """A hash of prompts without regard to their order: of template, examples and items at once. None where one is not known."""
    listed = list(prompts)
    if not listed or None in listed:
        return None
    each = sorted(hashlib.sha256(prompt.encode()).hexdigest() for prompt in listed)
    return hashlib.sha256("".join(each).encode()).hexdigest()[:16]
