"""The study and its tables as they are on disk, for the jobs that analyse and report."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table
from sft_atlas.tables import origins, seeds


def add_options(p: argparse.ArgumentParser, **paths: str) -> None:
    """Add the required paths ``--study``, ``--tables`` and those given, by name with what each is."""
    for name, what in {"study": "resolved study, study.json", "tables": "folder of the collected tables", **paths}.items():
        p.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True, help=what)


def load(args: argparse.Namespace, names: Iterable[str], each_seed: bool = False) -> tuple[dict, dict[str, pl.DataFrame]]:
    """The resolved study and its tables by name, averaged over seeds unless ``each_seed``; AtlasError where a table is missing.

    Of imported scores only those that may be compared are in them (:func:`sft_atlas.tables.origins.analysed`)."""
    tables = {}
    for name in names:
        path = args.tables / f"{name}.parquet"
        if not path.is_file():
            raise AtlasError(f"{path} is missing; make it with: snakemake {path}")
        tables[name] = read_table(path)
    study, tables = origins.analysed(read_json(args.study), tables)
    if not each_seed:
        tables = {name: seeds.averaged(name, frame) for name, frame in tables.items()}
    return study, tables
