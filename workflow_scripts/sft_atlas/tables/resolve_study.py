"""Resolve the study, whose file comes as JSON on standard input (it may be too long for an argument), and write it beside its results."""

import argparse
import json
import sys
from pathlib import Path

from sft_atlas.core.files import write_json
from sft_atlas.study.study import from_config


def main(args: argparse.Namespace) -> None:
    write_json(args.output, from_config(json.load(sys.stdin), "the study").resolved())


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--output", type=Path, required=True)
