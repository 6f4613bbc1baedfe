"""Turn the CSV of published scores into one row per score, with units; a file that cannot be trusted ends here."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_table
from sft_atlas.core.log import LOG


def main(args: argparse.Namespace) -> None:
    """Write scores.parquet."""
    from sft_atlas.published import tidy

    frame = tidy.tidy(args.input.read_bytes(), str(args.input))
    write_table(args.output, frame)
    LOG.info("%d scores of %d checkpoints", frame.height, frame["row"].n_unique())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="CSV file")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file")
    return parser
