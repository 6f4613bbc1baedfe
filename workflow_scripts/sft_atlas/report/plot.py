"""Draw one figure of a study from its tables, as vector PDF and as PNG of 200 dots per inch."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.report.figures import FIGURES


def main(args: argparse.Namespace) -> None:
    """Load the tables that the figure reads, draw it, save it twice; the files hold no dates."""
    from importlib import import_module

    import polars as pl

    from sft_atlas.report.figures import style

    study = json.loads(args.study.read_text(encoding="utf-8"))
    tables = {}
    for name in FIGURES[args.figure]:
        path = args.tables / f"{name}.parquet"
        if not path.is_file():
            raise AtlasError(f"figure {args.figure} needs {path}; make it with collect.py --table {name}")
        tables[name] = pl.read_parquet(path)
    figure = import_module(f"sft_atlas.report.figures.{args.figure}").draw(tables, study)
    style.save(figure, args.output_pdf, args.output_png)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    parser.add_argument("--figure", choices=tuple(FIGURES), required=True)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the collected tables")
    parser.add_argument("--output-pdf", type=Path, required=True)
    parser.add_argument("--output-png", type=Path, required=True)
    return parser
