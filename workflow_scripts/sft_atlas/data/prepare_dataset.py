"""Clean one training set and take its seeded sample."""

import argparse
import json
from pathlib import Path

import polars as pl

from sft_atlas.core.files import write_table
from sft_atlas.data import records
from sft_atlas.study.schema import Dataset


def main(args: argparse.Namespace) -> None:
    entry = Dataset.model_validate_json(args.entry)
    clean, dropped = records.clean(pl.read_parquet(args.input), entry)
    frame = records.sample(clean, args.rows, entry.seed, entry.allow_fewer, f"datasets.{args.name}")
    write_table(args.output, frame)
    settings = {"dataset": args.name, "rows": args.rows, "entry": json.loads(args.entry)}
    records.write_manifest(args.output, frame, settings, {args.name: args.input}, dropped=dropped, rows_available=len(clean))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--name", required=True)
    p.add_argument("--rows", type=int, required=True, help="rows to sample")
    p.add_argument("--entry", required=True, help="the dataset's entry of the study file, as JSON")
    p.add_argument("--input", type=Path, required=True, help="source.parquet")
    p.add_argument("--output", type=Path, required=True)
    return p
