"""Relate weight change by depth to the gain: correlations with their max-T band, agreement of base models, places of the peaks."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_table


def main(args: argparse.Namespace) -> None:
    """Write the curves and their peaks."""
    import polars as pl

    from sft_atlas.analyse import layer_curves

    study = json.loads(args.study.read_text(encoding="utf-8"))
    tables = {name: pl.read_parquet(args.tables / f"{name}.parquet") for name in ("gains", "layers")}
    curves, peaks = layer_curves.curves(tables, study)
    write_table(args.output_curves, curves)
    write_table(args.output_peaks, peaks)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the collected tables")
    parser.add_argument("--output-curves", type=Path, required=True, help="Parquet, one row per method, measure and depth")
    parser.add_argument("--output-peaks", type=Path, required=True, help="Parquet, one row per method and measure")
    return parser
