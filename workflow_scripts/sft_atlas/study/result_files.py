"""Read many small result files (Parquet) into one frame, and check that each holds the keys that its path states."""

from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table
from sft_atlas.study.paths import ResultFile

TEXT, WHOLE, REAL = pl.String, pl.Int64, pl.Float64
LATER = {
    "subtask",
    "backend",
    "backend_version",
    "dtype",
    "sandbox_missing",
}  # columns of scores and samples that files of earlier versions lack; null there


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
        there = pl.read_parquet_schema(path) if LATER & columns.keys() else columns
        frame = read_table(path, columns=[name for name in columns if name in there or name not in LATER])
        frame = frame.with_columns(pl.lit(None).alias(name) for name in LATER & columns.keys() - there.keys())
        frame = frame.select(pl.col(name).cast(kind) for name, kind in columns.items())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AtlasError(f"cannot read {path}: {str(error).splitlines()[0]}; delete it and run again") from error
    if frame.is_empty():
        raise AtlasError(f"{path} has no rows; delete it and run again")
    return frame


def without_subtasks(scores: pl.DataFrame) -> pl.DataFrame:
    """The rows of benchmarks: without those of the tasks of a group, whose items are in the score of the group."""
    return scores.filter(pl.col("subtask").is_null()) if "subtask" in scores.columns else scores


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


def require_one_backend(study: dict, files: list[ResultFile], frame: pl.DataFrame) -> None:
    """Scores of a suite that stand beside each other are of one inference engine, unless the study says `mix_backends`.

    ``frame`` has `_file` and `backend`; null where a file of an earlier version does not say. Raises AtlasError with an example of each.
    """
    first: dict[str, dict[str, ResultFile]] = {}
    for index, backend in frame.select("_file", "backend").drop_nulls().unique().sort("_file").iter_rows():
        first.setdefault(files[index].keys["suite"], {}).setdefault(backend, files[index])
    mixed = {suite: found for suite, found in first.items() if len(found) > 1}
    if mixed and not study.get("mix_backends"):
        suite, found = next(iter(mixed.items()))
        examples = ", ".join(f"{backend} ({file.path})" for backend, file in found.items())
        raise AtlasError(
            f"suite {suite!r} has scores of several inference engines, whose differences are no effects of training: {examples}; state one as "
            f"`suites.{suite}.backend`, so that the others are scored again, or `mix_backends: true` to compare them all the same"
        )
