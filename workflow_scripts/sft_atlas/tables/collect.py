"""Collect the result files of a study into one tidy table, with its provenance beside it."""

import argparse
import json
from collections import Counter
from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.provenance import record_provenance
from sft_atlas.study import paths


def main(args: argparse.Namespace) -> None:
    """Write the table and ``<table>.json``."""
    from sft_atlas.tables import tables

    study = json.loads(args.study.read_text(encoding="utf-8"))
    collected = tables.collect(study, args.table, args.study.parent, args.allow_missing)
    write_table(args.output, collected.frame)
    facts = {
        "table": args.table,
        "files": collected.files,
        "rows": collected.frame.height,
        "missing": [str(path) for path in collected.missing],
        "data_sha256": data_hashes(study, args.study.parent),
        "devices": devices(study, args.study.parent),
    }
    write_json(args.output.with_suffix(".json"), record_provenance(study, {"study": args.study}, **facts))


def data_hashes(study: dict, root: Path) -> dict[str, str]:
    """Hash of every training sample behind the study's runs, by dataset and rows; what is not on disk is left out."""
    samples = dict.fromkeys((run["dataset"], run["rows"]) for run in study["runs"])
    manifests = {f"{dataset}/{rows}": root / "data" / dataset / str(rows) / "manifest.json" for dataset, rows in samples}
    return {name: json.loads(path.read_text(encoding="utf-8"))["sha256"] for name, path in manifests.items() if path.exists()}


def devices(study: dict, root: Path) -> dict[str, int]:
    """Devices that the runs were trained on, with the number of runs on each."""
    records = [source.path for source in paths.sources(study, "runs", root)]
    return dict(Counter(json.loads(path.read_text(encoding="utf-8"))["device"] for path in records if path.exists()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json; results lie beside it")
    parser.add_argument("--table", choices=paths.TABLES, required=True)
    parser.add_argument("--output", type=Path, required=True, help="Parquet file")
    parser.add_argument("--allow-missing", action="store_true", help="list missing results in the JSON instead of failing")
    return parser
