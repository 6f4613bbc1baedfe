"""Draw one figure of a study from its tables, as vector PDF and as PNG of 200 dpi."""

import argparse
from importlib import import_module
from pathlib import Path

from sft_atlas.report.figures import FIGURES
from sft_atlas.tables import stored


def main(args: argparse.Namespace) -> None:
    """Load the tables that the figure reads, draw it, save it twice; the files hold no dates."""
    from sft_atlas.report.figures import style

    study, tables = stored.load(args, FIGURES[args.figure])
    figure = import_module(f"sft_atlas.report.figures.{args.figure}").draw(tables, study)
    style.save(figure, args.output_pdf, args.output_png)


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p)
    p.add_argument("--figure", choices=tuple(FIGURES), required=True)
    p.add_argument("--output-pdf", type=Path, required=True)
    p.add_argument("--output-png", type=Path, required=True)
