"""Relate what is known of training sets before training to their gains: correlations, mixed models, held-out errors."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_table

TABLES = ("gains", "perplexity", "properties", "similarity")


def main(args: argparse.Namespace) -> None:
    """Write one row per subset, predictor and statistic."""
    import polars as pl

    from sft_atlas.analyse import predictors

    study = json.loads(args.study.read_text(encoding="utf-8"))
    tables = {name: pl.read_parquet(args.tables / f"{name}.parquet") for name in TABLES}
    write_table(args.output, predictors.table(tables, study))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the collected tables")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file")
    return parser
