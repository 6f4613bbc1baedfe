"""Draw one figure of a study from its tables, as vector PDF and as PNG of 200 dpi."""

import argparse
from importlib import import_module

from sft_atlas.report.figures import FIGURES
from sft_atlas.tables import stored


def main(args: argparse.Namespace) -> None:
    from sft_atlas.report.figures import labels, style

    study, tables = stored.load(args, FIGURES[args.figure].tables)
    study = labels.drawable(study)
    module = import_module(f"sft_atlas.report.figures.{args.figure}")
    style.draw_and_save(args.figure, lambda: module.draw(tables, study), args.output_pdf, args.output_png)


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p, output_pdf="the figure, PDF", output_png="the same, PNG")
    p.add_argument("--figure", choices=tuple(FIGURES), required=True)
