"""Turn the CSV of published scores into one row per score, with its unit; a CSV that cannot be trusted is an error.

All peculiarities of the CSV format are handled here and nowhere else.
"""

import argparse
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_table
from sft_atlas.core.log import LOG
from sft_atlas.published import columns
from sft_atlas.published.arguments import add_arguments
from sft_atlas.study import paper
from sft_atlas.study.runs import WITHOUT

META = ("model_name", "data_name", "lora", "epoch", "data_size", "lr_strategy")
RUN = ["model", "dataset", "method", "rows", "schedule"]  # the keys of a training run
_KEYS = (*RUN, "epoch")  # of a checkpoint
MISSING = ("", "none", "nan", "null", "na", "n/a")
TRUE, FALSE = ("true", "1", "1.0", "yes", "lora"), ("false", "0", "0.0", "no", "full")
BASE = "pretrain"
# Hashes of the authors' table, independent of order and encoding: of its base rows, and of all rows.
AUTHORS_BASE = "43559dff377172a84000d20f61303a1b98b645e7db13f3c820d1ab1267538c64"
AUTHORS_ALL = "30b38d27d9b0358c929a58ba7678994701d2ec6fd8e58e9f1670cb5cc6177741"


def tidy(content: bytes, where: str = "the CSV") -> pl.DataFrame:
    """One row per score: model, dataset, method, rows, schedule, epoch, benchmark, shots, score, scale, unit, row, task.

    ``score`` is in the unit that ``scale`` names (percent, fraction, judge 1-10), ``unit`` is that of the CSV (:func:`_units`); ``row`` is
    the first column of the CSV. Base models have epoch 0, method ``base`` and no schedule. Rows that are identical but for their number are
    dropped. Raises AtlasError for truncated lines, missing columns,
    text in a column of scores, scores outside their scale, two results for one checkpoint, models without a base row, and a changed or
    truncated copy of the authors' table. ``where`` names the CSV in errors.
    """
    wide = _metadata(_read(content, where), where)
    scores = [name for name in wide.columns if name not in (*META, "row", *_KEYS)]
    if not scores:
        raise AtlasError(f"{where}: no columns of scores, only {', '.join(META)}")
    wide = _numbers(wide, scores, where)
    wide = _once(wide, scores, where)
    _check_authors(wide, scores, where)
    entries = {name: columns.column(name) for name in scores}
    clash = [name for name in scores if sum(entry.task == entries[name].task for entry in entries.values()) > 1]
    if clash:
        raise AtlasError(f"{where}: columns {', '.join(clash)} hold the same benchmark with the same number of shots; keep one")
    units = {name: _unit(wide[name].drop_nulls(), entry) for name, entry in entries.items()}
    wide = wide.with_columns(
        pl.col(name) * FACTORS[units[name], entry.scale] for name, entry in entries.items() if units[name] != entry.scale
    )
    facts = pl.DataFrame(
        [
            {"column": n, "benchmark": e.benchmark, "shots": e.shots, "scale": e.scale, "unit": units[n], "task": e.task}
            for n, e in entries.items()
        ]
    )
    long = wide.unpivot(index=["row", *_KEYS], on=scores, variable_name="column", value_name="score").drop_nulls("score")
    long = long.join(facts, on="column").sort("row", "task")
    return _on_scale(long, where).select(*RUN, "epoch", "benchmark", "shots", "score", "scale", "unit", "row", "task")


def _read(content: bytes, where: str) -> pl.DataFrame:
    """All cells as text; AtlasError for lines of the wrong length and unreadable bytes."""
    bom = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    encoding = next((name for mark, name in bom.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise AtlasError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1]:
        raise AtlasError(f"{where}: the last line is incomplete, so the file was cut off. Get it again")
    lines = [line for line in lines if line.strip()]
    if len(lines) < 2:
        raise AtlasError(f"{where}: no rows")
    separator = max(",;\t", key=lines[0].count)
    try:
        frame = pl.read_csv(io.StringIO("\n".join(lines)), separator=separator, infer_schema=False, truncate_ragged_lines=False)
    except pl.exceptions.PolarsError as error:
        raise AtlasError(f"{where}: not a CSV of {lines[0].count(separator) + 1} columns: {str(error).splitlines()[0]}") from None
    if separator == ";":
        frame = frame.with_columns(pl.all().str.replace(r"^\s*(-?\d+),(\d+)\s*$", "$1.$2"))
    width = lines[0].count(separator)
    short = [number for number, line in enumerate(lines, 1) if '"' not in line and line.count(separator) != width]
    if short:
        raise AtlasError(
            f"{where}: line {short[0]} has {lines[short[0] - 1].count(separator) + 1} cells instead of {width + 1}; the file was cut off or edited"
        )
    return frame


def _metadata(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Add ``row`` and the keys with their types; ``None``, ``nan`` and empty cells of base rows count as missing."""
    absent = [name for name in META if name not in frame.columns]
    if absent:
        raise AtlasError(f"{where}: no column {', '.join(absent)}; required are {', '.join(META)} and columns of scores")
    ids = next((name for name in frame.columns if name.strip() == "" or name in ("row", "index", "Unnamed: 0")), None)
    frame = frame.rename({ids: "row"}) if ids is not None else frame.with_row_index("row")
    text = {name: pl.col(name).cast(pl.String).str.strip_chars() for name in ("row", *META)}
    frame = frame.with_columns(pl.when(~cell.str.to_lowercase().is_in(MISSING)).then(cell).alias(name) for name, cell in text.items())
    base = pl.col("data_name") == BASE
    for name in ("model_name", "data_name", "row", "lora", "epoch", "data_size", "lr_strategy"):
        optional = base if name in ("lora", "epoch", "data_size", "lr_strategy") else pl.lit(False)
        bad = frame.filter(pl.col(name).is_null() & ~optional)
        if bad.height:
            raise AtlasError(f"{where}: row {bad['row'][0]} has no {name}; only base models ({BASE}) may leave out training settings")
    lora = pl.col("lora").str.to_lowercase()
    method = pl.when(base).then(pl.lit("base")).when(lora.is_in(TRUE)).then(pl.lit("lora")).when(lora.is_in(FALSE)).then(pl.lit("full"))
    names = {name: paper.MODELS.get(name, (name,))[0] for name in frame["model_name"].unique()}
    sets = {name: "base" if name == BASE else re.sub("^w/o-", WITHOUT, name) for name in frame["data_name"].unique()}
    frame = frame.with_columns(
        pl.col("row").cast(pl.Float64, strict=False).cast(pl.Int64),
        pl.col("model_name").replace_strict(names, return_dtype=pl.String).alias("model"),
        pl.col("data_name").replace_strict(sets, return_dtype=pl.String).alias("dataset"),
        method.alias("method"),
        pl.when(base).then(0).otherwise(pl.col("data_size").cast(pl.Float64, strict=False)).cast(pl.Int64).alias("rows"),
        pl.when(~base).then(pl.col("lr_strategy")).alias("schedule"),
        pl.when(base).then(0).otherwise(pl.col("epoch").cast(pl.Float64, strict=False)).cast(pl.Int64).alias("epoch"),
    )
    for name, shown in (("row", "the first column"), ("method", "lora"), ("rows", "data_size"), ("epoch", "epoch")):
        bad = frame.filter(pl.col(name).is_null())
        if bad.height:
            raise AtlasError(f"{where}: row {bad['row'][0]}: {shown} is {bad.row(0, named=True).get(shown)!r}, which is no valid value")
    return frame


def _numbers(frame: pl.DataFrame, scores: list[str], where: str) -> pl.DataFrame:
    """Columns of scores as floats; AtlasError for a cell that is neither missing nor a finite number."""
    cell = {name: pl.col(name).str.strip_chars() for name in scores}
    frame = frame.with_columns(pl.when(~text.str.to_lowercase().is_in(MISSING)).then(text).alias(name) for name, text in cell.items())
    numbers = frame.select(pl.col(name).cast(pl.Float64, strict=False) for name in scores)
    for name in scores:
        bad = frame.filter(frame[name].is_not_null() & ~numbers[name].is_finite().fill_null(False))
        if bad.height:
            raise AtlasError(
                f"{where}: row {bad['row'][0]}, column {name}: {bad[name][0]!r} is not a number. Write scores as numbers with a decimal point; if "
                "the column holds no scores, remove it"
            )
    return frame.with_columns(numbers)


def _once(frame: pl.DataFrame, scores: list[str], where: str) -> pl.DataFrame:
    """Drop rows that are identical but for their number; AtlasError for two results of one checkpoint, or one row number for two checkpoints."""
    unique = frame.unique([*_KEYS, *scores], keep="first", maintain_order=True)
    if unique.height < frame.height:
        LOG.warning("%s: dropped %d rows that repeat another row", where, frame.height - unique.height)
    for keys, what in ((list(_KEYS), "the same checkpoint"), (["row"], "the same row number")):
        twice = unique.filter(pl.len().over(keys) > 1)
        if twice.height:
            same = twice.filter(pl.all_horizontal(pl.col(key).eq_missing(twice[key][0]) for key in keys))
            shared = ", ".join(f"{key} {twice[key][0]}" for key in keys)
            if what == "the same row number":
                raise AtlasError(
                    f"{where}: two rows have {what} ({twice['row'][0]}); number the rows in the first column anew, or remove it"
                )
            other = next(name for name in scores if same[name].n_unique() > 1)
            raise AtlasError(
                f"{where}: rows {same['row'][0]} and {same['row'][1]} have {what} ({shared}) but different scores in column {other}; keep the right one"
            )
    return unique


def _check_authors(frame: pl.DataFrame, scores: list[str], where: str) -> None:
    """AtlasError for a changed or truncated copy of the authors' table, and for models without a base row."""
    base = frame.filter(pl.col("method") == "base")
    if digest(base, scores) == AUTHORS_BASE and digest(frame, scores) != AUTHORS_ALL:
        raise AtlasError(
            f"{where}: this is the authors' table, but changed or cut off: {frame.height} rows (1,027 expected) or other values. Get it "
            "again, or remove published_csv to download it. To analyse a part of it, or other values, on purpose, remove the first column (row numbers)"
        )
    alone = sorted(set(frame["model"]) - set(base["model"]))
    if alone:
        raise AtlasError(
            f"{where}: no row for the base model (data_name {BASE}) of {', '.join(alone)}. Add the row; perhaps the file was cut off"
        )


def digest(frame: pl.DataFrame, scores: list[str]) -> str:
    """Hash of a table's content, independent of the order of rows and columns."""
    ordered = frame.sort("row").select("row", *_KEYS, *sorted(scores))
    return hashlib.sha256(ordered.write_csv().encode()).hexdigest()


FACTORS = {(columns.FRACTION, columns.PERCENT): 100.0, (columns.PERCENT, columns.FRACTION): 0.01}


def _unit(values: pl.Series, entry: columns.Column) -> str:
    """The unit of a column of the CSV, which may be percentages or fractions whatever the benchmark's own scale is.

    Percentages are recognised as fractions if none is above 1, unless all are k / n in percent of the n items of a benchmark without
    options, as those of a model that answers next to nothing are. Fractions are recognised as percentages if most are above 1.
    """
    if entry.scale == columns.PERCENT and len(values) and 0 < values.max() <= 1:
        small = entry.items and entry.chance is None and is_share(values.to_numpy(), entry.items).all()
        return columns.PERCENT if small else columns.FRACTION
    if entry.scale == columns.FRACTION and len(values) and values.median() > 1:
        return columns.PERCENT
    return entry.scale


def is_share(values: np.ndarray, items: int, decimals: int = 2) -> np.ndarray:
    """Whether each percentage is k / ``items``, rounded."""
    k = np.round(values * items / 100)
    with np.errstate(invalid="ignore"):
        if decimals < 2:  # perhaps rounded twice, so that 66.148 is 66.2
            return np.abs(100 * k / items - values) < 0.55 * 10.0**-decimals
        return np.abs(np.round(100 * k / items, decimals) - values) < 0.51 * 10.0**-decimals


def _on_scale(long: pl.DataFrame, where: str) -> pl.DataFrame:
    """``long`` unchanged; AtlasError for a score outside the range of its scale."""
    ends = {columns.PERCENT: (0, 100), columns.FRACTION: (0, 1), columns.JUDGE: (1, 10)}
    for scale, (low, high) in ends.items():
        bad = long.filter(pl.col("scale") == scale, ~pl.col("score").is_between(low, high))
        if bad.height:
            cell = f"row {bad['row'][0]}, column {bad['column'][0]}: {bad['score'][0]}"
            raise AtlasError(f"{where}: {cell} is outside the column's scale ({scale}: {low} to {high}); check the unit")
    return long


def points(frame: pl.DataFrame) -> pl.Expr:
    """Scores of a tidy frame in percentage points: percent unchanged, fraction x 100, (judge - 1) / 9 x 100."""
    score, scale = pl.col("score"), pl.col("scale")
    return pl.when(scale == columns.FRACTION).then(100 * score).when(scale == columns.JUDGE).then((score - 1) / 9 * 100).otherwise(score)


def main(args: argparse.Namespace) -> None:
    """Write scores.parquet."""
    source = json.loads(args.source.read_text(encoding="utf-8"))["source"]
    frame = tidy(args.input.read_bytes(), source)
    for (unit, scale), part in frame.filter(pl.col("unit") != pl.col("scale")).group_by("unit", "scale", maintain_order=True):
        tasks = ", ".join(part["task"].unique(maintain_order=True))
        LOG.warning("%s: these columns are in %ss and are converted to %ss: %s", source, unit, scale, tasks)
    write_table(args.output, frame)
    LOG.info("%d scores of %d checkpoints", frame.height, frame["row"].n_unique())


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--input", type=Path, required=True, help="CSV")
    add_arguments(p, "source")
    p.add_argument("--output", type=Path, required=True, help="output: Parquet")
