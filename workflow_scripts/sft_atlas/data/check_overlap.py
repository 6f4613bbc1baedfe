"""Prove by hash that no training row is a benchmark item, before anything is trained."""

import argparse
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table, text_hash, write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data.records import user_turns
from sft_atlas.study.items import SHARED, read_items


def main(args: argparse.Namespace) -> None:
    training = {f"{path.parent.parent.name}/{path.parent.name}": user_turns(read_table(path)) for path in args.training}
    items = {path.parent.name: read_items(path) for path in args.benchmarks}
    benchmarks = {name: [item["instruction"] for item in listed] for name, listed in items.items()}
    table, between = overlap(training, benchmarks), shared_between(items)
    lines = [f"{dataset} x {benchmark}: {shared} of {n} items" for dataset, benchmark, _, n, shared, _ in table.iter_rows() if shared]
    text = "training rows that are benchmark items:\n  " + "\n  ".join(lines)
    if lines and args.policy == "error":
        raise AtlasError(
            f"{text}\nRemove them from the training set or the benchmark, or set `on_overlap: report` in the study file to list them and continue"
        )
    inputs = {f"{path.parent.parent.name}/{path.parent.name}": path for path in [*args.training, *args.benchmarks]}
    facts = {"pairs": len(table), "pairs_with_overlap": len(lines), SHARED: between}
    write_json(args.output.with_suffix(".json"), record_provenance({"policy": args.policy}, inputs, **facts))
    write_table(args.output, table)
    for one, other, shared, n in between:
        LOG.info("benchmarks %s and %s share %d of %d items", one, other, shared, n)
    if lines:
        LOG.warning("%s", text)
    else:
        LOG.info("no benchmark item among the training instructions, in %d pairs of training set and benchmark", len(table))


def overlap(training: dict[str, Iterable[str]], benchmarks: dict[str, Iterable[str]]) -> pl.DataFrame:
    """Benchmark items that are training instructions, for every training set x benchmark; both are given as instructions by name.

    Columns dataset, benchmark, train_items and benchmark_items (distinct), shared, examples (up to three shared hashes).
    """
    train = {name: {text_hash(text) for text in texts} for name, texts in training.items()}
    bench = {name: {text_hash(text) for text in texts} for name, texts in benchmarks.items()}
    rows = []
    for dataset, left in train.items():
        for benchmark, right in bench.items():
            shared = sorted(left & right)
            rows.append((dataset, benchmark, len(left), len(right), len(shared), shared[:3]))
    counts = dict.fromkeys(("train_items", "benchmark_items", "shared"), pl.Int64)
    schema = {"dataset": pl.String, "benchmark": pl.String, **counts, "examples": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def shared_between(items: dict[str, list[dict]]) -> list[tuple[str, str, int, int]]:
    """(benchmark, benchmark, shared items, items of the smaller one) for all that share items: the same words and the same right answer."""
    hashes = {name: {text_hash(f"{item['instruction']}\n{item['answer']}") for item in listed} for name, listed in items.items()}
    pairs = (
        (one, other, len(hashes[one] & hashes[other]), min(len(hashes[one]), len(hashes[other]))) for one, other in combinations(hashes, 2)
    )
    return [pair for pair in pairs if pair[2]]


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--training", type=Path, nargs="+", required=True, help="train.parquet files, {dataset}/{rows}/train.parquet")
    p.add_argument("--benchmarks", type=Path, nargs="+", required=True, help="test.jsonl files, {benchmark}/test.jsonl")
    p.add_argument("--policy", choices=("error", "report"), default="error")
    p.add_argument("--output", type=Path, required=True)
