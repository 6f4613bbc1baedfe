"""Turn the CSV of published scores into one row per score, with units; a file that cannot be trusted ends here.

Every oddity of the file is dealt with here and nowhere else.
"""

import argparse
import hashlib
import io
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_table
from sft_atlas.core.log import LOG
from sft_atlas.published import columns

META = ("model_name", "data_name", "lora", "epoch", "data_size", "lr_strategy")
RUN = ["model", "dataset", "method", "rows", "schedule"]  # a training run; with epoch, a checkpoint
NOTHING = ("", "none", "nan", "null", "na", "n/a")
TRUE, FALSE = ("true", "1", "1.0", "yes", "lora"), ("false", "0", "0.0", "no", "full")
BASE = "pretrain"
# Content of the authors' file, whatever its order and encoding: of its base rows, and of all rows.
AUTHORS_BASE = "43559dff377172a84000d20f61303a1b98b645e7db13f3c820d1ab1267538c64"
AUTHORS_ALL = "30b38d27d9b0358c929a58ba7678994701d2ec6fd8e58e9f1670cb5cc6177741"


def tidy(content: bytes, where: str = "the CSV") -> pl.DataFrame:
    """One row per score that is there: model, dataset, method, rows, schedule, epoch, benchmark, shots, score, scale, row, task.

    ``score`` is in the unit that ``scale`` names (percent, fraction, judge 1-10), ``row`` is the file's first column. Base models are
    epoch 0, method ``base``, schedule null. Rows that repeat another one entirely are dropped. Raises AtlasError for a file that
    cannot be read so: cut lines, missing columns, text in a column of scores, scores off their scale, one run with two results,
    models without a base row, and a file that holds the authors' rows but not all of them as they were.
    """
    wide = _metadata(_read(content, where), where)
    scores = [name for name in wide.columns if name not in (*META, "row", *_KEYS)]
    if not scores:
        raise AtlasError(f"{where}: no column of scores beside {', '.join(META)}")
    wide = _numbers(wide, scores, where)
    wide = _once(wide, scores, where)
    _check_authors(wide, scores, where)
    entries = {name: columns.column(name) for name in scores}
    clash = [name for name in scores if sum(entry.task == entries[name].task for entry in entries.values()) > 1]
    if clash:
        raise AtlasError(f"{where}: columns {', '.join(clash)} are the same benchmark at the same number of shots; keep one")
    facts = pl.DataFrame([(name, e.benchmark, e.shots, e.scale, e.task) for name, e in entries.items()], schema=_FACTS, orient="row")
    long = wide.unpivot(index=["row", *_KEYS], on=scores, variable_name="column", value_name="score").drop_nulls("score")
    long = long.join(facts, on="column").sort("row", "task")
    return _on_scale(long, where).select(*RUN, "epoch", "benchmark", "shots", "score", "scale", "row", "task")


_KEYS = (*RUN, "epoch")
_FACTS = {"column": pl.String, "benchmark": pl.String, "shots": pl.Int64, "scale": pl.String, "task": pl.String}


def _read(content: bytes, where: str) -> pl.DataFrame:
    """All cells as text; lines of the wrong length and unreadable bytes are errors."""
    bom = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    encoding = next((name for mark, name in bom.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise AtlasError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1]:
        raise AtlasError(f"{where}: the last line has no end; the file was cut. Get it again")
    lines = [line for line in lines if line.strip()]
    if len(lines) < 2:
        raise AtlasError(f"{where}: no rows")
    mark = max(",;\t", key=lines[0].count)
    try:
        frame = pl.read_csv(io.StringIO("\n".join(lines)), separator=mark, infer_schema=False, truncate_ragged_lines=False)
    except pl.exceptions.PolarsError as error:
        raise AtlasError(f"{where}: not a table of {lines[0].count(mark) + 1} columns: {str(error).splitlines()[0]}") from None
    width = lines[0].count(mark)
    short = [number for number, line in enumerate(lines, 1) if '"' not in line and line.count(mark) != width]
    if short:
        raise AtlasError(
            f"{where}: line {short[0]} has {lines[short[0] - 1].count(mark) + 1} cells, not {width + 1}; the file was cut or edited"
        )
    return frame


def _metadata(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Add row and the keys, typed; ``None``, ``nan`` and empty cells of base rows are no values."""
    absent = [name for name in META if name not in frame.columns]
    if absent:
        raise AtlasError(f"{where}: no column {', '.join(absent)}; needed are {', '.join(META)} and columns of scores")
    ids = next((name for name in frame.columns if name.strip() == "" or name in ("row", "index", "Unnamed: 0")), None)
    frame = frame.rename({ids: "row"}) if ids is not None else frame.with_row_index("row")
    text = {name: pl.col(name).cast(pl.String).str.strip_chars() for name in ("row", *META)}
    frame = frame.with_columns(pl.when(~cell.str.to_lowercase().is_in(NOTHING)).then(cell).alias(name) for name, cell in text.items())
    base, tuned_without = pl.col("data_name") == BASE, {}
    for name in ("model_name", "data_name", "row"):
        tuned_without[name] = pl.col(name).is_null()
    for name in ("lora", "epoch", "data_size", "lr_strategy"):
        tuned_without[name] = pl.col(name).is_null() & ~base
    for name, is_absent in tuned_without.items():
        bad = frame.filter(is_absent)
        if bad.height:
            raise AtlasError(f"{where}: row {bad['row'][0]} has no {name}; only base models ({BASE}) may leave out training settings")
    lora = pl.col("lora").str.to_lowercase()
    method = pl.when(base).then(pl.lit("base")).when(lora.is_in(TRUE)).then(pl.lit("lora")).when(lora.is_in(FALSE)).then(pl.lit("full"))
    names = {name: columns.model(name)[0] for name in frame["model_name"].unique()}
    sets = {name: "base" if name == BASE else columns.dataset(name) for name in frame["data_name"].unique()}
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
            raise AtlasError(
                f"{where}: row {bad['row'][0]}: {shown} is {bad.row(0, named=True).get(shown)!r}, not a value that is known here"
            )
    return frame


def _numbers(frame: pl.DataFrame, scores: list[str], where: str) -> pl.DataFrame:
    cell = {name: pl.col(name).str.strip_chars() for name in scores}
    frame = frame.with_columns(pl.when(~text.str.to_lowercase().is_in(NOTHING)).then(text).alias(name) for name, text in cell.items())
    numbers = frame.select(pl.col(name).cast(pl.Float64, strict=False) for name in scores)
    for name in scores:
        bad = frame.filter(
            (frame[name].is_not_null() & (numbers[name].is_null() | ~numbers[name].is_finite())).fill_null(True) & frame[name].is_not_null()
        )
        if bad.height:
            raise AtlasError(f"{where}: row {bad['row'][0]}, column {name}: {bad[name][0]!r} is no number; write decimals with a point")
    return frame.with_columns(numbers)


def _once(frame: pl.DataFrame, scores: list[str], where: str) -> pl.DataFrame:
    """Drop rows that repeat another; two results of one checkpoint, or one id for two, are errors."""
    unique = frame.unique(["row", *_KEYS, *scores], keep="first", maintain_order=True)
    if unique.height < frame.height:
        LOG.warning("%s: %d rows repeat another one entirely and were dropped", where, frame.height - unique.height)
    for keys, what in ((list(_KEYS), "the same checkpoint"), (["row"], "the same id in the first column")):
        twice = unique.filter(pl.len().over(keys) > 1)
        if twice.height:
            first = twice.filter(pl.struct(keys) == pl.struct(keys).first())
            told = ", ".join(f"{key} {twice[key][0]}" for key in keys)
            raise AtlasError(
                f"{where}: rows {first['row'][0]} and {first['row'][1]} are {what} ({told}) with different contents; keep the right one"
            )
    return unique


def _check_authors(frame: pl.DataFrame, scores: list[str], where: str) -> None:
    """Refuse a changed copy of the authors' file; tell of models without a base row."""
    base = frame.filter(pl.col("method") == "base")
    if digest(base, scores) == AUTHORS_BASE and digest(frame, scores) != AUTHORS_ALL:
        raise AtlasError(
            f"{where}: this is the authors' table, but changed or cut: {frame.height} rows (1,027 expected) or other values. Get it again, "
            "or remove published_csv to have it downloaded"
        )
    alone = sorted(set(frame["model"]) - set(base["model"]))
    if alone:
        raise AtlasError(f"{where}: no row of the base model (data_name {BASE}) for {', '.join(alone)}; was the file cut? Add the rows")


def digest(frame: pl.DataFrame, scores: list[str]) -> str:
    """Hash of the content of a table that does not depend on the order of rows and columns."""
    ordered = frame.sort("row").select("row", *_KEYS, *sorted(scores))
    return hashlib.sha256(ordered.write_csv().encode()).hexdigest()


def _on_scale(long: pl.DataFrame, where: str) -> pl.DataFrame:
    ends = {columns.PERCENT: (0, 100), columns.FRACTION: (0, 1), columns.JUDGE: (1, 10)}
    for scale, (low, high) in ends.items():
        bad = long.filter(pl.col("scale") == scale, ~pl.col("score").is_between(low, high))
        if bad.height:
            told = f"row {bad['row'][0]}, {bad['column'][0]}: {bad['score'][0]}"
            raise AtlasError(f"{where}: {told} is off the scale of that column ({scale}: {low} to {high}); check the unit")
    return long


def points(frame: pl.DataFrame) -> pl.Expr:
    """Scores of a tidy frame in percentage points of their range: percent as it is, fractions x 100, (judge - 1) / 9 x 100."""
    score, scale = pl.col("score"), pl.col("scale")
    return pl.when(scale == columns.FRACTION).then(100 * score).when(scale == columns.JUDGE).then((score - 1) / 9 * 100).otherwise(score)


def main(args: argparse.Namespace) -> None:
    """Write scores.parquet."""
    frame = tidy(args.input.read_bytes(), str(args.input))
    write_table(args.output, frame)
    LOG.info("%d scores of %d checkpoints", frame.height, frame["row"].n_unique())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="CSV file")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file")
    return parser
