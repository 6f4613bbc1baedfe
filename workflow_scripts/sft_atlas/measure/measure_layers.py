"""Measure how far a checkpoint's weights are from the base model's, per layer and component. Needs neither torch nor a GPU."""

import argparse
from pathlib import Path

import polars as pl

from sft_atlas.core.files import write_table
from sft_atlas.core.log import progress
from sft_atlas.models.base_model import ModelFolder

COLUMNS = {
    "layer": "Int64", "depth": "Float64", "component": "String", "relative_change": "Float64", "mean_abs_change": "Float64",
    "cosine": "Float64", "unchanged": "Float64", "stable_rank": "Float64", "effective_rank": "Float64", "parameters": "Int64", "skipped_rows": "Int64",
}  # fmt: skip


def main(args: argparse.Namespace) -> None:
    """Write one row per layer and component."""
    from sft_atlas.measure.weight_change import layer_changes

    rows = layer_changes(ModelFolder.read(args.base).path, args.weights, args.ranks, args.threads)
    frame = pl.DataFrame(rows, schema={name: getattr(pl, dtype) for name, dtype in COLUMNS.items()}).select(
        pl.lit(args.model).alias("model"),
        pl.lit(args.dataset).alias("dataset"),
        pl.lit(args.recipe).alias("recipe"),
        pl.lit(args.epoch).cast(pl.Int64).alias("epoch"),
        *COLUMNS,
    )
    write_table(args.output, frame)
    progress(f"{len(frame)} rows")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="manifest model.json of the base model")
    parser.add_argument("--weights", type=Path, required=True, help="the checkpoint: a folder of full weights or of a LoRA adapter")
    parser.add_argument("--model", required=True, help="name of the base model")
    parser.add_argument("--dataset", required=True, help="name of the training set")
    parser.add_argument("--recipe", required=True, help="name of the recipe")
    parser.add_argument("--epoch", type=int, required=True, help="epoch of the checkpoint")
    parser.add_argument("--ranks", action="store_true", help="also stable and effective rank of each matrix's change")
    parser.add_argument("--threads", type=int, default=1, help="threads that share the tensors")
    parser.add_argument("--output", type=Path, required=True, help="Parquet, one row per layer and component")
    return parser
