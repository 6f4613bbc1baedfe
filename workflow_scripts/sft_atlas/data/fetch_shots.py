"""Draw a benchmark's few-shot examples from its train or dev split (may use the network)."""

import argparse
import json
import random
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256, text_hash, write_json, write_text
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data.fetch_benchmark import benchmark_items, registry_rows
from sft_atlas.data.options import fetch_options
from sft_atlas.data.records import at_commit, fetched, read_rows
from sft_atlas.study.items import read_items
from sft_atlas.study.lm_eval_registry import examples_of
from sft_atlas.study.schema import Benchmark

NETWORK = True


def main(args: argparse.Namespace) -> None:
    entry = Benchmark.model_validate_json(args.entry)
    asked, name, record = entry.shot_source(), f"benchmarks.{args.name}.shots", args.output.with_suffix(".json")
    source = at_commit(asked, record, name)
    if entry.lm_eval:  # lm-eval draws by itself, for each item anew: from all rows
        rows = registry_rows(source.model_copy(update={"split": entry.shots.split}), args.path, examples_of)
        shots, left_out = rows, 0
    else:
        rows = benchmark_items(read_rows(source, args.path, "train"), source, name)
        shots, left_out = draw_shots(rows, entry.shots.count, entry.shots.by, entry.seed, read_items(args.items), name)
    text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in shots)
    origin = fetched(asked, source, "".join(json.dumps(row, ensure_ascii=False) for row in rows), record, name)
    write_text(args.output, text)
    inputs = {"items": args.items} | ({"source": args.path} if args.path else {})
    facts = {
        "pool": len(rows),
        "pool_rows_that_are_items": left_out,
        "shots": len(shots),
        "file": args.output.name,
        "sha256": sha256(args.output),
    }
    write_json(record, record_provenance(json.loads(args.entry), inputs, **facts, **origin))
    LOG.info("%s: %d examples of %d rows; %d rows are benchmark items and were left out", args.name, len(shots), len(rows), left_out)


def draw_shots(rows: list[dict], count: int, by: str | None, seed: int, items: list[dict], name: str) -> tuple[list[dict], int]:
    """(few-shot examples, rows left out): a seeded draw of ``count`` rows of a train or dev split, for each value of the field ``by`` if given.

    Rows that are benchmark ``items`` are left out, which may leave a value of ``by`` with fewer (MMLU's dev split shares questions with
    its test split). Raises AtlasError where the split itself has too few. ``name``: for messages.
    """
    tested = {_identity(item) for item in items}
    groups: dict[object, list[dict]] = {}
    for row in rows:
        if by and by not in row:
            raise AtlasError(f"{name}: shots.by names {by!r}, which its examples lack; they have {', '.join(row)}")
        groups.setdefault(row[by] if by else None, []).append(row)
    shots, left_out = [], 0
    for value in dict.fromkeys(item.get(by) for item in items) if by else [None]:
        pool, which = groups.get(value, []), f" of {by} {value!r}" if by else ""
        if len(pool) < count:
            raise AtlasError(f"{name}: shots.count is {count}, the split has {len(pool)} examples{which}; lower it or name another split")
        usable = [row for row in pool if _identity(row) not in tested]
        if not usable:
            raise AtlasError(f"{name}: every example{which} is a benchmark item; name another split")
        order = list(range(len(usable)))
        random.Random(f"{seed} {value}").shuffle(order)
        shots += [usable[i] for i in order[:count]]
        left_out += len(pool) - len(usable)
    return shots, left_out


def _identity(item: dict[str, object]) -> str:
    """Hash of an item with its answer: many questions of MMLU have the same words and other options."""
    return text_hash(f"{item['instruction']}\n{item['answer']}")


def add_options(p: argparse.ArgumentParser) -> None:
    fetch_options(p, "benchmark", "shots.jsonl")
    p.add_argument("--items", type=Path, required=True, help="test.jsonl, whose items must not be examples")
