"""Find the benchmark items that occur in training sets, by shared n-grams."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance


def main(args: argparse.Namespace) -> None:
    import polars as pl

    from sft_atlas.evaluate import contamination
    from sft_atlas.study.items import read_items

    training = {
        (path.parent.parent.name, int(path.parent.name)): (
            f"{a}\n{b}" for a, b in pl.read_parquet(path, columns=["instruction", "response"]).iter_rows()
        )
        for path in args.training
    }
    benchmarks = {path.parent.name: [item["instruction"] for item in read_items(path)] for path in args.benchmarks}
    matrix, flags = contamination.measure(training, benchmarks)
    inputs = {f"{path.parent.parent.name}/{path.parent.name}": path for path in [*args.training, *args.benchmarks]}
    facts = {"pairs": len(matrix), "pairs_with_overlap": matrix.filter(pl.col("overlapping") > 0).height, "items": len(flags)}
    write_json(
        args.output.with_suffix(".json"),
        record_provenance({"ngram": contamination.NGRAM, "shortest": contamination.SHORTEST}, inputs, **facts),
    )
    write_table(args.output_items, flags)
    write_table(args.output, matrix)
    LOG.info("%s", facts)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--training", type=Path, nargs="+", required=True, help="train.parquet files, {dataset}/{rows}/train.parquet")
    p.add_argument("--benchmarks", type=Path, nargs="+", required=True, help="test.jsonl files, {benchmark}/test.jsonl")
    p.add_argument("--output", type=Path, required=True, help="Parquet, training set x benchmark")
    p.add_argument("--output-items", type=Path, required=True, help="Parquet, one row per training set and overlapping item")
    return p
