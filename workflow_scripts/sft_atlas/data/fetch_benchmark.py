"""Bring a benchmark's items to disk from their file, the hub or their generator (may use the network)."""

import argparse
import json
from pathlib import Path

import polars as pl

from sft_atlas.core.files import atomic
from sft_atlas.data import records
from sft_atlas.data.items import benchmark_items
from sft_atlas.study.schema import Benchmark

NETWORK = True


def main(args: argparse.Namespace) -> None:
    entry = records.at_commit(Benchmark.model_validate_json(args.entry))
    items = benchmark_items(records.read_rows(entry, args.path, "benchmark"), entry, f"benchmarks.{args.name}")
    with atomic(args.output) as part:
        part.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    frame = pl.DataFrame({"source": [str(item.get("task", "unknown")) for item in items]})
    records.write_manifest(args.output, frame, entry.model_dump(exclude_defaults=True), {"source": args.path} if args.path else {})


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--name", required=True)
    p.add_argument("--entry", required=True, help="the benchmark's entry of the study file, as JSON")
    p.add_argument("--path", type=Path, help="local source file, where the entry names one")
    p.add_argument("--output", type=Path, required=True)
    return p
