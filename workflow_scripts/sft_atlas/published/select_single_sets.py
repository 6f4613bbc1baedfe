"""Select the repaired scores of single training sets, the last epoch of each method's main recipe: what the adviser learns from."""

import argparse
from pathlib import Path

import polars as pl

from sft_atlas.core.files import write_table
from sft_atlas.published import frames
from sft_atlas.published.arguments import add_arguments
from sft_atlas.published.columns import task


def single_sets(data: frames.Data) -> pl.DataFrame:
    """One row per base model, training set, method and task: ``score`` in points of its scale's range, ``n`` items; ``label``, ``family`` and
    ``language`` of the base model, ``dataset_label``, and ``benchmark``, which the tasks with its numbers of shots (``task``) share."""
    models = pl.DataFrame([{"model": key, **facts} for key, facts in data.study["models"].items()])
    labels = {key: facts["label"] for key, facts in data.study["datasets"].items()}
    tasks = data.cells["benchmark"].unique().to_list()
    cells = data.cells.drop("gain", "centred").rename({"benchmark": "task"}).join(models, on="model", maintain_order="left")
    return cells.with_columns(
        pl.col("dataset").replace_strict(labels, return_dtype=pl.String).alias("dataset_label"),
        pl.col("task").replace_strict({key: task(key).benchmark for key in tasks}, return_dtype=pl.String).alias("benchmark"),
        pl.col("task").replace_strict({key: task(key).items for key in tasks}, return_dtype=pl.Int64).alias("n"),
    )


def main(args: argparse.Namespace) -> None:
    scores, repairs = (pl.read_parquet(path) for path in (args.scores, args.repairs))
    write_table(args.output, single_sets(frames.of_scores(frames.apply_policy(scores, repairs, "repaired"))))


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "repairs")
    p.add_argument("--output", type=Path, required=True, help="Parquet")
