"""Analyse published scores under one policy: as published, or with the audit's repairs."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_table
from sft_atlas.published import POLICIES, TABLES


def main(args: argparse.Namespace) -> None:
    """Write one Parquet file per analysis."""
    import polars as pl

    from sft_atlas.published import analyses, frames
    from sft_atlas.published.audit import detect

    scores = detect.apply(pl.read_parquet(args.scores), pl.read_parquet(args.repairs), args.policy)
    tables = analyses.tables(frames.of_scores(scores))
    for name in TABLES:
        write_table(args.folder / f"{name}.parquet", tables[name])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells")
    parser.add_argument("--policy", choices=POLICIES, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the tables")
    return parser
