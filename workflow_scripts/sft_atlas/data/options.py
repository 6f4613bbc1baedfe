"""Command-line options that the fetch jobs share."""

import argparse
from pathlib import Path


def fetch_options(p: argparse.ArgumentParser, kind: str, output: str) -> None:
    """Options of a job that fetches a ``kind`` of entry of the study file and writes ``output``."""
    p.add_argument("--name", default=kind, help=f"name of the {kind} in the study file")
    p.add_argument("--entry", required=True, help="its entry of the study file, as JSON")
    p.add_argument("--path", type=Path, nargs="?", help="local file or folder, where the entry names one")
    p.add_argument("--output", type=Path, required=True, help=output)


def fetch_model_options(p: argparse.ArgumentParser, kind: str) -> None:
    """The same for a model, with the folder of downloaded weights."""
    fetch_options(p, kind, "model.json")
    p.add_argument("--folder", type=Path, required=True, help="where a download goes; kept on failure, so that it resumes")
