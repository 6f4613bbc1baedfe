"""Score every checkpoint on the benchmark items that occur in none of its training sets."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.provenance import record_provenance
from sft_atlas.study import paths


def main(args: argparse.Namespace) -> None:
    import polars as pl

    from sft_atlas.evaluate import contamination
    from sft_atlas.study.result_files import REAL, SCORE, TEXT, WHOLE, read

    study = json.loads(args.study.read_text(encoding="utf-8"))
    flags = pl.read_parquet(args.flags)
    members = {name: tuple(entry["members"]) for name, entry in study["datasets"].items()}
    rows = {(run["model"], run["dataset"], run["recipe"]): run["rows"] for run in study["runs"]}
    found = paths.sources(study, "gains", args.study.parent)
    columns = {**SCORE, "item": WHOLE, "score": REAL, "cluster": TEXT}
    parts = []
    for model in study["models"]:  # one base model at a time: memory holds its samples, not the study's
        own = [source for source in found if source.keys["model"] == model and source.path.exists()]
        if own:
            parts.append(contamination.clean_scores(read(own, columns).drop("_file"), flags, members, rows))
    missing = [str(source.path) for source in found if not source.path.exists()]
    if missing and not args.allow_missing:
        raise AtlasError(f"{len(missing)} files of samples are missing, the first is {missing[0]}")
    frame = pl.concat(parts)
    write_json(
        args.output.with_suffix(".json"),
        record_provenance(study, {"study": args.study, "flags": args.flags}, rows=len(frame), missing=missing),
    )
    write_table(args.output, frame)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json; results lie beside it")
    p.add_argument("--flags", type=Path, required=True, help="Parquet of rule measure_contamination")
    p.add_argument("--output", type=Path, required=True, help="Parquet")
    p.add_argument("--allow-missing", action="store_true", help="list missing samples in the JSON instead of failing")
    return p
