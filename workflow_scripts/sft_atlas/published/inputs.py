"""The output tree of ``rules/published.smk``, and the check of ``published_csv``."""

import os

from sft_atlas.published import FIGURES, TABLES

ROOT = "results/published"
CSV, SOURCE = f"{ROOT}/evaluation_result.csv", f"{ROOT}/evaluation_result.json"
FOLDER = f"{ROOT}/tables"
SCORES, AUDIT, REPAIRS, CLAIMS = (f"{FOLDER}/{table}.parquet" for table in ("scores", "audit", "repairs", "claims"))
SINGLE_SETS = f"{FOLDER}/single_sets.parquet"  # what the adviser learns from
ATLAS = f"{ROOT}/atlas/index.html"
AUDIT_PAGE, CLAIMS_PAGE, SUMMARY = f"{ROOT}/audit.md", f"{ROOT}/claims.md", f"{ROOT}/summary.md"


def tables(*policies: str) -> list[str]:
    """Every table of the analyses under these policies; ``{policy}`` stays a wildcard."""
    return [f"{FOLDER}/{policy}/{table}.parquet" for policy in policies for table in TABLES]


def figures(*policies: str) -> list[str]:
    """The files of every figure under these policies; ``{policy}`` stays a wildcard."""
    return [f"{ROOT}/figures/{policy}/{figure}.{ending}" for policy in policies for figure in FIGURES for ending in ("pdf", "png")]


def local_csv(path: str | None) -> str | list:
    """The local file that ``published_csv`` names, or an empty list."""
    return os.path.expanduser(os.path.expandvars(path)) if path else []


def absent_csv(path: str | None) -> list[str]:
    """The problem with a ``published_csv`` that does not exist."""
    file = local_csv(path)
    if not file or os.path.isfile(file):
        return []
    return [f"published_csv: there is no file {file} (a relative path starts at the current directory)"]
