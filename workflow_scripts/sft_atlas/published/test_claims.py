"""Hold the claims of the paper against its own scores, before and after the audit's repairs."""

import argparse
from pathlib import Path

from sft_atlas.core.files import atomic, write_table
from sft_atlas.published import POLICIES, TABLES


def main(args: argparse.Namespace) -> None:
    """Write claims.md and claims.parquet."""
    import polars as pl

    from sft_atlas.published import changes, claims

    tables = {policy: {name: pl.read_parquet(args.tables / policy / f"{name}.parquet") for name in TABLES} for policy in POLICIES}
    scores = pl.read_parquet(args.scores)
    found = claims.claims(tables, scores, pl.read_parquet(args.repairs))
    write_table(args.table, claims.table(found))
    with atomic(args.page) as part:
        part.write_text(claims.page(found, changes.lines(tables), claims.families(scores)), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells")
    parser.add_argument("--tables", type=Path, required=True, help="folder with a folder of tables per policy")
    parser.add_argument("--table", type=Path, required=True, help="claims as Parquet")
    parser.add_argument("--page", type=Path, required=True, help="claims as Markdown")
    return parser
