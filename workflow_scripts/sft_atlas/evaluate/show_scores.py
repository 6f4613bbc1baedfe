"""Print the scores of one checkpoint: every suite in a folder of scores."""

import argparse
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table

SHOWN = (
    "suite", "benchmark", "subtask", "metric", "score", "stderr", "score_strict", "n", "n_missing", "n_parsed", "n_truncated", "n_clusters", "shots",
    "n_fewer_shots", "backend",
)  # fmt: skip


def main(args: argparse.Namespace) -> None:
    import polars as pl

    files = sorted(args.folder.glob("*.parquet"))
    if not files:
        raise AtlasError(f"{args.folder} holds no scores")
    frame = pl.concat([read_table(path) for path in files], how="diagonal_relaxed").select(SHOWN)
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=220, float_precision=3, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True
    ):
        print(frame)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", type=Path, help="results/STUDY/runs/.../epoch-N/scores")
