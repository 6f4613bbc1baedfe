"""Prove by hash that no training row is a benchmark item, before anything is trained."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data.records import item_hash, user_turns


def main(args: argparse.Namespace) -> None:
    training = {f"{path.parent.parent.name}/{path.parent.name}": user_turns(pl.read_parquet(path)) for path in args.training}
    benchmarks = {path.parent.name: pl.read_ndjson(path, infer_schema_length=None)["instruction"] for path in args.benchmarks}
    table = overlap(training, benchmarks)
    lines = [f"{dataset} x {benchmark}: {shared} of {n} items" for dataset, benchmark, _, n, shared, _ in table.iter_rows() if shared]
    text = "training rows that are benchmark items:\n  " + "\n  ".join(lines)
    if lines and args.policy == "error":
        raise AtlasError(
            f"{text}\nRemove them from the training set or the benchmark, or set `on_overlap: report` in the study file to list them and continue"
        )
    inputs = {f"{path.parent.parent.name}/{path.parent.name}": path for path in [*args.training, *args.benchmarks]}
    facts = {"pairs": len(table), "pairs_with_overlap": len(lines)}
    write_json(args.output.with_suffix(".json"), record_provenance({"policy": args.policy}, inputs, **facts))
    write_table(args.output, table)
    if lines:
        LOG.warning("%s", text)
    else:
        LOG.info("no benchmark item among the training instructions, in %d pairs of training set and benchmark", len(table))


def overlap(training: dict[str, Iterable[str]], benchmarks: dict[str, Iterable[str]]) -> pl.DataFrame:
    """Benchmark items that are training instructions, for every training set x benchmark; both are given as instructions by name.

    Columns dataset, benchmark, train_items and benchmark_items (distinct), shared, examples (up to three shared hashes).
    """
    train = {name: {item_hash(text) for text in texts} for name, texts in training.items()}
    bench = {name: {item_hash(text) for text in texts} for name, texts in benchmarks.items()}
    rows = []
    for dataset, left in train.items():
        for benchmark, right in bench.items():
            shared = sorted(left & right)
            rows.append((dataset, benchmark, len(left), len(right), len(shared), shared[:3]))
    counts = dict.fromkeys(("train_items", "benchmark_items", "shared"), pl.Int64)
    schema = {"dataset": pl.String, "benchmark": pl.String, **counts, "examples": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--training", type=Path, nargs="+", required=True, help="train.parquet files, {dataset}/{rows}/train.parquet")
    p.add_argument("--benchmarks", type=Path, nargs="+", required=True, help="test.jsonl files, {benchmark}/test.jsonl")
    p.add_argument("--policy", choices=("error", "report"), default="error")
    p.add_argument("--output", type=Path, required=True)
