"""Audit published scores: what is wrong with them, how it shows, which cells are repaired and which are not to be used."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import atomic, write_table


def main(args: argparse.Namespace) -> None:
    """Write the findings (table and page) and the table of repairs."""
    import polars as pl

    from sft_atlas.published.audit import detect

    scores = pl.read_parquet(args.scores)
    facts = json.loads(args.source.read_text(encoding="utf-8"))
    source = f"{'The authors’ file' if facts['authors_file'] else 'A file of one’s own'} (sha256 {facts['sha256'][:12]})"
    found = detect.audit(scores)
    changed = detect.repairs(found)
    write_table(args.repairs, changed)
    write_table(args.table, detect.table(found))
    with atomic(args.page) as part:
        part.write_text(detect.page(found, scores, source, changed), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--source", type=Path, required=True, help="JSON that says where the CSV came from")
    parser.add_argument("--table", type=Path, required=True, help="findings as Parquet")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells as Parquet")
    parser.add_argument("--page", type=Path, required=True, help="findings as Markdown")
    return parser
