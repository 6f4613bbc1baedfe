"""Bring a training set to disk from its file, the hub or its generator (may use the network)."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_table
from sft_atlas.data import records
from sft_atlas.study.schema import Dataset

NETWORK = True


def main(args: argparse.Namespace) -> None:
    entry = records.at_commit(Dataset.model_validate_json(args.entry))
    frame = records.to_pairs(records.read_rows(entry, args.path, "train"), entry.columns, f"datasets.{args.name}")
    write_table(args.output, frame)
    records.write_manifest(args.output, frame, entry.model_dump(exclude_defaults=True), {"source": args.path} if args.path else {})


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--name", required=True)
    p.add_argument("--entry", required=True, help="the dataset's entry of the study file, as JSON")
    p.add_argument("--path", type=Path, help="local source file, where the entry names one")
    p.add_argument("--output", type=Path, required=True)
    return p
