"""Partition the distances between checkpoints, and measure how far epochs, size and method take them."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_table


def main(args: argparse.Namespace) -> None:
    """Write shares of the squared distance, paired effects, and the spread of checkpoints by epoch."""
    import polars as pl

    from sft_atlas.analyse import map_effects, model_map

    study = json.loads(args.study.read_text(encoding="utf-8"))
    found = model_map.vectors(pl.read_parquet(args.likelihood))
    write_table(args.output_shares, map_effects.shares(found, study))
    write_table(args.output_effects, map_effects.effects(found, study))
    write_table(args.output_spread, map_effects.spread(found, study))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    parser.add_argument("--likelihood", type=Path, required=True, help="table of log-likelihoods")
    parser.add_argument("--output-shares", type=Path, required=True, help="Parquet, one row per design and term")
    parser.add_argument("--output-effects", type=Path, required=True, help="Parquet, one row per effect")
    parser.add_argument("--output-spread", type=Path, required=True, help="Parquet, one row per base model, recipe and epoch")
    return parser
