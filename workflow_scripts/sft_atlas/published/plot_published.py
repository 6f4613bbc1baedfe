"""Draw every figure of published scores under one policy, as vector PDF and as PNG."""

import argparse
from pathlib import Path

from sft_atlas.published import FIGURES, POLICIES


def main(args: argparse.Namespace) -> None:
    """Draw from the tidy scores, the repairs and the findings."""
    import polars as pl

    from sft_atlas.published import figures, frames
    from sft_atlas.report.figures import style

    changed = pl.read_parquet(args.repairs)
    published = pl.read_parquet(args.scores)
    data = frames.of_scores(frames.under_policy(published, changed, args.policy))
    tables = {path.stem: pl.read_parquet(path) for path in sorted(args.tables.glob("*.parquet"))}
    for name in FIGURES:
        style.save(
            figures.draw(name, data, tables, published, changed, args.policy), args.folder / f"{name}.pdf", args.folder / f"{name}.png"
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables of this policy")
    parser.add_argument("--policy", choices=POLICIES, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the figures")
    return parser
