"""Write tables as CSV, for programs that read no Parquet; lists are joined by semicolons."""

import argparse
from pathlib import Path

import polars as pl

from sft_atlas.core.files import atomic, read_table


def main(args: argparse.Namespace) -> None:
    """Write a file for each table."""
    args.output.mkdir(parents=True, exist_ok=True)
    for path in args.tables:
        frame = read_table(path)
        lists = [column for column, kind in frame.schema.items() if kind == pl.List(pl.String)]
        with atomic(args.output / f"{path.stem}.csv") as part:
            frame.with_columns(pl.col(lists).list.join("; ")).write_csv(part)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--tables", type=Path, nargs="+", required=True, help="Parquet files")
    p.add_argument("--output", type=Path, required=True, help="folder of the CSV files")
