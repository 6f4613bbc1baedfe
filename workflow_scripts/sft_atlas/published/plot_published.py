"""Draw every figure of the published scores under one policy, as PDF and PNG."""

import argparse
from dataclasses import replace
from functools import partial

from sft_atlas.published import FIGURES
from sft_atlas.published.arguments import add_arguments


def main(args: argparse.Namespace) -> None:
    """Draw from the tidy scores, the repairs and the tables of the analyses."""
    import polars as pl

    from sft_atlas.published import figures, frames
    from sft_atlas.report.figures import labels, style

    scores, repairs = pl.read_parquet(args.scores), pl.read_parquet(args.repairs)
    data = frames.of_scores(frames.apply_policy(scores, repairs, args.policy))
    data = replace(data, study=labels.drawable(data.study))
    tables = {path.stem: pl.read_parquet(path) for path in sorted(args.tables.glob("*.parquet"))}
    for name in FIGURES:
        draw = partial(figures.draw, name, data, tables, scores, repairs, args.policy)
        style.draw_and_save(name, draw, args.folder / f"{name}.pdf", args.folder / f"{name}.png")


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "repairs", "tables", "policy", "folder")
