"""Measure what a training set looks like: lengths, lexical diversity, near-duplicates."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_table
from sft_atlas.core.log import progress
from sft_atlas.measure.dataset_statistics import properties


def main(args: argparse.Namespace) -> None:
    """Write one row."""
    import polars as pl

    found = properties(pl.read_parquet(args.data, columns=["instruction", "response"]).rows())
    keys = {"dataset": args.dataset, "rows": args.rows}
    schema = {"dataset": pl.String, "rows": pl.Int64, "n": pl.Int64} | {name: pl.Float64 for name in found if name != "n"}
    write_table(args.output, pl.DataFrame([keys | found], schema=schema))
    progress(f"{found}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="training set: Parquet with the columns instruction and response")
    parser.add_argument("--dataset", required=True, help="name of the training set")
    parser.add_argument("--rows", type=int, required=True, help="size of the sample in rows of each source dataset")
    parser.add_argument("--output", type=Path, required=True, help="Parquet, one row")
    return parser
