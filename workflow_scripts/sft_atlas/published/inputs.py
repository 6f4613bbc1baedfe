"""Input and parameter functions of ``rules/published.smk``, and where the published scores are."""

import os

from snakemake.exceptions import WorkflowError

from sft_atlas.published import FIGURES, TABLES

ROOT = "results/published"
SCORES = f"{ROOT}/tables/scores.parquet"


def local_csv(path: str | None) -> str | list:
    """The local file that `published_csv` names; nothing where it names none. A file that is not there ends the call before any job."""
    if not path:
        return []
    expanded = os.path.expanduser(os.path.expandvars(path))
    if not os.path.isfile(expanded):
        raise WorkflowError(f"published_csv: there is no file {expanded} (a relative path starts at the current directory)")
    return expanded


def tables(*policies: str) -> list[str]:
    """Every table of the analyses under these policies; ``{policy}`` stays a wildcard."""
    return [f"{ROOT}/tables/{policy}/{table}.parquet" for policy in policies for table in TABLES]


def figures(*policies: str) -> list[str]:
    """The files of every figure under these policies; ``{policy}`` stays a wildcard."""
    return [f"{ROOT}/figures/{policy}/{figure}.{ending}" for policy in policies for figure in FIGURES for ending in ("pdf", "png")]


def folder_of_scores(wildcards, input) -> str:
    """The folder of the tidy scores; that of the analyses lies below it."""
    return os.path.dirname(input.scores)
