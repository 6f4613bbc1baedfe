"""The study and its tables as they are on disk, for the jobs that analyse and report."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table


def add_options(p: argparse.ArgumentParser, **paths: str) -> None:
    """Add the required paths ``--study``, ``--tables`` and those given, by name with what each is."""
    for name, what in {"study": "resolved study, study.json", "tables": "folder of the collected tables", **paths}.items():
        p.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True, help=what)


def load(args: argparse.Namespace, names: Iterable[str]) -> tuple[dict, dict[str, pl.DataFrame]]:
    """The resolved study and its tables by name; AtlasError where a table is missing."""
    tables = {}
    for name in names:
        path = args.tables / f"{name}.parquet"
        if not path.is_file():
            raise AtlasError(f"{path} is missing; make it with: snakemake {path}")
        tables[name] = read_table(path)
    return read_json(args.study), tables
