"""Resolve the study and write it beside its results."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_json
from sft_atlas.study.study import from_config


def main(args: argparse.Namespace) -> None:
    write_json(args.output, from_config(json.loads(args.study), "the study").resolved())


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", required=True, help="the study file's content, as JSON")
    p.add_argument("--output", type=Path, required=True)
