"""Arguments that jobs on base models and checkpoints share, and the key columns of the tables that they write."""

import argparse
from pathlib import Path

KEYS = {
    "model": "name of the base model",
    "dataset": "name of the training set; `base` for the base model itself",
    "recipe": "name of the recipe, with the seed if it is not the recipe's own; `base` for the base model itself",
    "epoch": "epoch of the checkpoint; 0 for the base model itself",
    "rows": "size of the sample, in rows of each source dataset",
}
TEMPLATE_HELP = "prompt template: JSON with the strings prompt and response, or the JSON string chat"
INTEGERS = ("epoch", "rows")
CHECKPOINT = ("model", "dataset", "recipe", "epoch")


def add_keys(parser: argparse.ArgumentParser, *names: str) -> None:
    """Required options of KEYS, such as ``--model`` and ``--epoch``."""
    for name in names:
        parser.add_argument(f"--{name}", type=int if name in INTEGERS else str, required=True, help=KEYS[name])


def add_model(parser: argparse.ArgumentParser, weights: bool = True) -> None:
    """``--base`` and, for jobs on checkpoints, ``--weights``, which is given without a value for the base model itself."""
    parser.add_argument("--base", type=Path, required=True, help="manifest of the base model, model.json")
    if weights:
        parser.add_argument("--weights", type=Path, nargs="?", help="full weights or a LoRA adapter (default: the base model itself)")


def add_forward_pass(parser: argparse.ArgumentParser, batch_size=int) -> None:
    """``--template``, ``--batch-size`` (parsed by ``batch_size``), ``--max-length`` and ``--threads``."""
    parser.add_argument("--template", required=True, help=TEMPLATE_HELP)
    parser.add_argument("--batch-size", type=batch_size, default=8, help="sequences per forward pass")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of the longest sequence")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")


def named_file(text: str) -> tuple[str, Path]:
    """Parse an argument of the form NAME=FILE."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, Path(path)


def key_columns(args: argparse.Namespace, *names: str) -> list:
    """The keys of a table as polars columns, from the options of :func:`add_keys`."""
    import polars as pl

    return [pl.lit(getattr(args, name), pl.Int64 if name in INTEGERS else pl.String).alias(name) for name in names]
