"""Concatenate the samples of a merged set's members, in the order given."""

import argparse
from pathlib import Path

import polars as pl

from sft_atlas.core.files import read_table, write_table
from sft_atlas.data.records import write_manifest


def main(args: argparse.Namespace) -> None:
    inputs = {path.parent.parent.name: path for path in args.inputs}
    frame = pl.concat([read_table(path) for path in args.inputs], how="diagonal")  # only conversations have messages
    write_table(args.output, frame)
    write_manifest(args.output, frame, {"dataset": args.name, "rows": args.rows, "members": list(inputs)}, inputs)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", required=True, help="name of the merged set")
    p.add_argument("--rows", type=int, required=True, help="rows sampled from each member")
    p.add_argument("--inputs", type=Path, nargs="+", required=True, help="train.parquet files, {member}/{rows}/train.parquet")
    p.add_argument("--output", type=Path, required=True)
