"""Write docs/tables.md from the documented columns; `--check` only compares."""

import argparse
import sys

from sft_atlas.core import markdown
from sft_atlas.core.provenance import ROOT
from sft_atlas.tables import documented

OPENING = """# Tables

Every table of a study is a Parquet file in `results/{study}/tables/`, one row for each observation and each seed.

```python
from sft_atlas import load  # in the environment that `make env` installs

atlas = load("results/demo")
atlas.scores  # a polars frame with the columns below
atlas.missing  # result files that a table was made without
atlas.samples("llama-strings")  # every answer of a checkpoint, here of a base model
```

`snakemake export` writes the tables as CSV into `results/{study}/csv/`. [explore.ipynb](explore.ipynb) is a notebook on the demo's results.
Scores, gains and their errors are fractions. This page is made by `python workflow_scripts/run.py document_tables`.
"""


def page() -> str:
    """The page in Markdown."""
    lines = [OPENING]
    for name, table in documented.TABLES.items():
        rows = [(f"`{column}`", documented.KINDS[kind], text) for column, (kind, text) in table.columns.items()]
        lines += [f"## `{name}`", "", f"One row: {table.rows}. Written by `{table.rule}`.", ""]
        lines += [*markdown.table(("column", "type", "meaning"), rows, pad=False), ""]
    return "\n".join(lines).rstrip() + "\n"


def main(args: argparse.Namespace) -> None:
    path = ROOT / "docs" / "tables.md"
    if args.check:
        sys.exit(0 if path.read_text(encoding="utf-8") == page() else f"{path} is out of date; run document_tables")
    path.write_text(page(), encoding="utf-8")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--check", action="store_true", help="only compare the page with the columns")
