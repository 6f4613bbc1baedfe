"""Write the findings of a study in words, each with its number, interval, p-value, n and figure."""

import argparse
import json
import os
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic
from sft_atlas.study import paths


def main(args: argparse.Namespace) -> None:
    """Load the tables and write the page as Markdown."""
    import polars as pl

    from sft_atlas.report import findings

    study = json.loads(args.study.read_text(encoding="utf-8"))
    tables, missing = {}, {}
    for name in paths.REPORTED:
        path = args.tables / f"{name}.parquet"
        if not path.is_file():
            raise AtlasError(f"the findings need {path}; make it with collect.py --table {name}")
        tables[name] = pl.read_parquet(path)
        record = path.with_suffix(".json")
        absent = json.loads(record.read_text(encoding="utf-8"))["missing"] if record.is_file() else []
        if absent:
            missing[name] = len(absent)
    text = findings.page(study, tables, Path(os.path.relpath(args.figures, args.output.parent)), missing)
    with atomic(args.output) as part:
        part.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the collected tables")
    parser.add_argument("--figures", type=Path, required=True, help="folder of the figures that the page names")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file")
    return parser
