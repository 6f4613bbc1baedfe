"""Fetch a training set from its file, the hub or its generator, and normalise its columns (may use the network)."""

import argparse

from sft_atlas.core.files import write_table
from sft_atlas.data.options import fetch_options
from sft_atlas.data.records import at_commit, fetched, read_rows, to_pairs, write_manifest
from sft_atlas.study.paths import MANIFEST
from sft_atlas.study.schema import Dataset

NETWORK = True


def main(args: argparse.Namespace) -> None:
    asked, key, record = Dataset.model_validate_json(args.entry), f"datasets.{args.name}", args.output.parent / MANIFEST
    entry = at_commit(asked, record, key)
    frame = to_pairs(read_rows(entry, args.path, "train"), entry.columns, key, entry.turns)
    facts = fetched(asked, entry, frame.write_ndjson() if entry.hub else "", record, key)
    write_table(args.output, frame)
    write_manifest(args.output, frame, entry.model_dump(exclude_defaults=True), {"source": args.path} if args.path else {}, **facts)


def add_options(p: argparse.ArgumentParser) -> None:
    fetch_options(p, "dataset", "source.parquet")
