"""Hold out rows of one training set, or read them from a file, for the loss on samples that are never trained."""

import argparse
import json
import math
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table, write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data.prepare_dataset import clean, held_out, read_holdout, shuffled
from sft_atlas.study.schema import Dataset


def main(args: argparse.Namespace) -> None:
    """Write holdout.parquet: of a share, that share of ``rows`` rows at most; of a file, all of its rows."""
    entry = Dataset.model_validate_json(args.entry)
    name = f"datasets.{args.name}.holdout"
    if args.file:
        frame = read_holdout(args.file, entry, name)
    else:
        cleaned, _ = clean(read_table(args.input), entry)
        frame = shuffled(cleaned.filter(held_out(cleaned, entry, None)), entry.seed)[: math.ceil(entry.holdout * args.rows)]
    if frame.is_empty():
        place = args.file or f"{entry.holdout} of the rows"
        raise AtlasError(f"{name}: {place} leaves no row to validate on after cleaning; hold out more, or remove the key")
    inputs = {args.name: args.input} | ({"file": args.file} if args.file else {})
    settings = {"dataset": args.name, "rows": args.rows, "entry": json.loads(args.entry)}
    write_json(args.output.with_suffix(".json"), record_provenance(settings, inputs, rows=len(frame)))
    write_table(args.output, frame)
    LOG.info("%s: %d rows", args.output, len(frame))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", required=True, help="name of the training set")
    p.add_argument("--rows", type=int, required=True, help="rows that are sampled for training")
    p.add_argument("--entry", required=True, help="its entry of the study file, as JSON")
    p.add_argument("--input", type=Path, required=True, help="source.parquet")
    p.add_argument("--file", type=Path, nargs="?", help="file of held-out rows, where the entry names one")
    p.add_argument("--output", type=Path, required=True, help="holdout.parquet")
