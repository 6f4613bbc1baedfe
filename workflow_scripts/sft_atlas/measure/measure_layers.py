"""Measure the change of a checkpoint's weights from the base model's, per layer and component. Needs neither torch nor a GPU."""

import argparse
from pathlib import Path

import polars as pl

from sft_atlas.core.files import write_table
from sft_atlas.core.log import progress
from sft_atlas.models.arguments import CHECKPOINT, add_keys, add_model, key_columns
from sft_atlas.models.base_model import ModelFolder, verify_checkpoint

COLUMNS = {
    "layer": pl.Int64, "depth": pl.Float64, "component": pl.String, "relative_change": pl.Float64, "mean_abs_change": pl.Float64,
    "cosine": pl.Float64, "unchanged": pl.Float64, "stable_rank": pl.Float64, "effective_rank": pl.Float64, "parameters": pl.Int64,
    "skipped_rows": pl.Int64,
}  # fmt: skip


def main(args: argparse.Namespace) -> None:
    """Write one row per layer and component."""
    from sft_atlas.measure.weight_change import layer_changes

    base = ModelFolder.read(args.base)
    base.verify()
    verify_checkpoint(args.weights)
    rows = layer_changes(base.path, args.weights, args.ranks, args.threads)
    write_table(args.output, pl.DataFrame(rows, schema=COLUMNS).select(*key_columns(args, *CHECKPOINT), pl.all()))
    progress(f"{len(rows)} rows")


def add_options(p: argparse.ArgumentParser) -> None:
    add_keys(p, *CHECKPOINT)
    add_model(p, weights=False)
    p.add_argument("--weights", type=Path, required=True, help="the checkpoint: a folder of full weights or of a LoRA adapter")
    p.add_argument("--ranks", action="store_true", help="also stable and effective rank of each matrix's change")
    p.add_argument("--threads", type=int, default=1, help="threads that share the tensors")
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row per layer and component")
