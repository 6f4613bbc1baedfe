"""Options that the jobs on published scores share."""

import argparse
from pathlib import Path

from sft_atlas.published import POLICIES

PATHS = {
    "scores": "tidy scores, Parquet",
    "source": "JSON that says where the CSV came from",
    "repairs": "scores that the policy `repaired` changes, Parquet",
    "tables": "folder of the tables of the analyses",
    "table": "table of the claims or of the audit, Parquet",
    "audit": "table of the audit, Parquet",
    "claims": "table of the claims, Parquet",
    "output": "output: index.html of the atlas; the other files come beside it",
    "page": "output: Markdown",
    "folder": "output: folder",
}


def add_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """These required options: paths of PATHS and ``policy``."""
    for name in names:
        if name == "policy":
            parser.add_argument("--policy", choices=POLICIES, required=True, help="scores as published, or with the audit's repairs")
        else:
            parser.add_argument(f"--{name}", type=Path, required=True, help=PATHS[name])
