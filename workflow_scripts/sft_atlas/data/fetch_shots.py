"""Draw a benchmark's few-shot examples from its train or dev split (may use the network)."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import atomic, sha256, write_json
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data import records
from sft_atlas.data.items import benchmark_items, draw_shots
from sft_atlas.study.items import read_items
from sft_atlas.study.schema import Benchmark

NETWORK = True


def main(args: argparse.Namespace) -> None:
    entry = Benchmark.model_validate_json(args.entry)
    source = records.at_commit(entry.shot_source())
    where = f"benchmarks.{args.name}.shots"
    rows = benchmark_items(records.read_rows(source, args.path, "train"), source, where)
    shots, left_out = draw_shots(rows, entry.shots.count, entry.shots.by, entry.seed, read_items(args.items), where)
    with atomic(args.output) as part:
        part.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in shots), encoding="utf-8")
    inputs = {"items": args.items} | ({"source": args.path} if args.path else {})
    facts = {"pool": len(rows), "pool_rows_that_are_items": left_out, "shots": len(shots), "sha256": sha256(args.output)}
    write_json(args.output.with_suffix(".json"), record_provenance(json.loads(args.entry), inputs, **facts))
    LOG.info("%s: %d examples of %d rows; %d rows are benchmark items and were left out", args.name, len(shots), len(rows), left_out)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--name", required=True)
    p.add_argument("--entry", required=True, help="the benchmark's entry of the study file, as JSON")
    p.add_argument("--items", type=Path, required=True, help="test.jsonl, whose items must not be examples")
    p.add_argument("--path", type=Path, help="local file of the examples, where the entry names one")
    p.add_argument("--output", type=Path, required=True, help="shots.jsonl")
    return p
