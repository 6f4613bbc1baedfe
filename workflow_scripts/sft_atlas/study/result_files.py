"""Read many small result files (Parquet) into one frame, and check that each holds the keys that its path states."""

from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.paths import ResultFile

TEXT, WHOLE, REAL = pl.String, pl.Int64, pl.Float64


def columns(names: str, kind: type[pl.DataType]) -> dict[str, type[pl.DataType]]:
    """The part of a schema that has columns of one type."""
    return dict.fromkeys(names.split(), kind)


RUN = columns("model dataset recipe", TEXT)
CHECKPOINT = {**RUN, "epoch": WHOLE}
SCORE = {**CHECKPOINT, **columns("suite benchmark", TEXT)}


def read(files: list[ResultFile], columns: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Concatenate Parquet files, cast to ``columns``, and check the keys in every file against its path.

    The result has one more column, ``_file``: the position of the row's file in ``files``.
    """
    empty = pl.DataFrame(schema={**columns, "_file": pl.UInt32})
    frames = [_read_one(file.path, columns).with_columns(_file=pl.lit(index, pl.UInt32)) for index, file in enumerate(files)]
    if not frames:
        return empty
    frame = pl.concat(frames)
    verify(frame, files)
    return frame


def _read_one(path: Path, columns: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, columns=list(columns), hive_partitioning=False, glob=False)
        frame = frame.select(pl.col(name).cast(kind) for name, kind in columns.items())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AtlasError(f"cannot read {path}: {str(error).splitlines()[0]}; delete it and run again") from error
    if frame.is_empty():
        raise AtlasError(f"{path} has no rows; delete it and run again")
    return frame


def verify(frame: pl.DataFrame, files: list[ResultFile]) -> None:
    """Raise AtlasError naming the first file whose keys are not those of its path. ``_file`` indexes ``files``."""
    keys = list(files[0].keys)
    expected = pl.DataFrame([file.keys for file in files]).select(pl.all().name.prefix("_")).with_row_index("_file")
    pairs = frame.select("_file", *keys).unique().join(expected, on="_file")
    wrong = pairs.filter(pl.any_horizontal(pl.col(key).ne_missing(pl.col(f"_{key}")) for key in keys)).sort("_file")
    if wrong.height:
        row = wrong.row(0, named=True)
        differing = ", ".join(f"{key} {row[key]!r} (not {row['_' + key]!r})" for key in keys if row[key] != row[f"_{key}"])
        raise AtlasError(f"{files[row['_file']].path} holds results of another place: {differing}; it was moved or copied there")


def require_benchmarks(study: dict, files: list[ResultFile], frame: pl.DataFrame) -> None:
    """Every file must hold each benchmark of its suite, and none twice (``frame`` has one row per file and benchmark)."""
    held = frame.group_by("_file").agg("benchmark")
    for index, benchmarks in held.sort("_file").iter_rows():
        expected = study["suites"][files[index].keys["suite"]]["benchmarks"]
        if sorted(benchmarks) != sorted(expected):
            raise AtlasError(f"{files[index].path} holds the benchmarks {sorted(benchmarks)}; its suite has {sorted(expected)}")
