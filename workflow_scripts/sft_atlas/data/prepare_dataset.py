"""Clean one training set and draw its seeded sample."""

import argparse
import json
import random
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table, text_hash, write_table
from sft_atlas.data.records import read_rows, to_pairs, write_manifest
from sft_atlas.study.schema import Dataset


def main(args: argparse.Namespace) -> None:
    entry = Dataset.model_validate_json(args.entry)
    cleaned, dropped = clean(read_table(args.input), entry)
    if entry.holdout is not None:
        held = held_out(cleaned, entry, args.holdout)
        cleaned, dropped["held out"] = cleaned.filter(~held), int(held.sum())
    frame = sample(cleaned, args.rows, entry.seed, entry.allow_fewer, f"datasets.{args.name}", dropped)
    write_table(args.output, frame)
    settings = {"dataset": args.name, "rows": args.rows, "entry": json.loads(args.entry)}
    inputs = {args.name: args.input} | ({"holdout": args.holdout} if args.holdout else {})
    write_manifest(args.output, frame, settings, inputs, dropped=dropped, rows_available=len(cleaned))


def clean(frame: pl.DataFrame, dataset: Dataset) -> tuple[pl.DataFrame, dict[str, int]]:
    """Strip white space; drop empty, unwanted and repeated rows. Returns the other rows, in order, and the rows dropped by reason."""
    frame = frame.with_columns(pl.col("instruction", "response").fill_null("").str.strip_chars())
    unwanted = [text.strip().lower() for text in dataset.drop_responses]
    steps = {
        "empty instruction": pl.col("instruction") != "",
        "empty response": pl.col("response") != "",
        "unwanted response": ~pl.col("response").str.to_lowercase().is_in(unwanted),
        "repeated row": pl.struct(pl.exclude("source")).is_first_distinct(),
    }
    if "messages" in frame.columns:
        steps = {"turns without text or out of order": pl.col("messages").is_not_null()} | steps
    dropped = {}
    for reason, keep in steps.items():
        kept = frame.filter(keep)
        dropped[reason], frame = len(frame) - len(kept), kept
    return frame, dropped


def sample(frame: pl.DataFrame, rows: int, seed: int, allow_fewer: bool, name: str, dropped: dict[str, int]) -> pl.DataFrame:
    """The first ``rows`` rows of a seeded shuffle, so that a smaller sample is part of every larger one.

    Raises AtlasError where there are fewer, unless ``allow_fewer``, and where there are none. ``name``: of the training set, and
    ``dropped``: rows dropped by reason, for messages.
    """
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
    if frame.is_empty():
        raise AtlasError(f"{name}: no row is left after cleaning (dropped: {reasons}); check `columns` and `drop_responses`")
    if len(frame) < rows and not allow_fewer:
        raise AtlasError(
            f"{name}: {rows} rows are needed, {len(frame)} are left after cleaning (dropped: {reasons});"
            " lower `rows` or set `allow_fewer: true`"
        )
    return shuffled(frame, seed)[:rows]


def shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The rows in a seeded order."""
    order = list(range(len(frame)))
    random.Random(seed).shuffle(order)
    return frame[order]


def held_out(frame: pl.DataFrame, dataset: Dataset, file: Path | None) -> pl.Series:
    """Which rows are never trained: those whose instruction is in the held-out ``file``, or of a share, those that its hash decides on.

    The first turn's hash alone decides, so rows with the same instruction are on the same side, also of two datasets with the same share,
    whatever their order, their number and the seed; a larger share holds out the rows of a smaller one and more.
    """
    hashes = [text_hash(text) for text in frame["instruction"]]
    if file is None:
        return pl.Series([int(digest[:15], 16) < dataset.holdout * 16**15 for digest in hashes], dtype=pl.Boolean)
    known = set(map(text_hash, read_holdout(file, dataset, "holdout")["instruction"]))
    return pl.Series([digest in known for digest in hashes], dtype=pl.Boolean)


def read_holdout(file: Path, dataset: Dataset, name: str) -> pl.DataFrame:
    """The cleaned rows of a file of held-out rows, whose columns are those of the dataset. ``name``: for messages."""
    source = Dataset(path=str(file), columns=dataset.columns, turns=dataset.turns)
    return clean(to_pairs(read_rows(source, file, "train"), dataset.columns, name, dataset.turns), dataset)[0]


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", required=True, help="name of the training set")
    p.add_argument("--rows", type=int, required=True, help="rows to sample")
    p.add_argument("--entry", required=True, help="its entry of the study file, as JSON")
    p.add_argument("--input", type=Path, required=True, help="source.parquet")
    p.add_argument("--holdout", type=Path, nargs="?", help="file of held-out rows, where the entry names one")
    p.add_argument("--output", type=Path, required=True, help="train.parquet")
