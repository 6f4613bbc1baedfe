"""Training sets: read, normalise to {instruction, response}, sample, and prove that no benchmark item is among them."""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256, write_json
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data import hub, procedural
from sft_atlas.study.schema import Columns, Dataset, Source

# ---------------------------------------------------------------- sources


def at_commit(source: Source) -> Source:
    """The same source with its revision resolved to a commit, where it is on the hub."""
    return source.model_copy(update={"revision": hub.commit_of("dataset", source.hub, source.revision)}) if source.hub else source


def read_rows(source: Source, path: Path | None, wanted: str) -> pl.DataFrame:
    """All rows of a source with its own columns; generated ones with instruction, response, task (choices, label).

    ``wanted`` is the side of generated items: ``train`` or ``benchmark``. Raises AtlasError for a source that is absent or empty.
    """
    if source.tasks is not None:
        frame = pl.DataFrame(procedural.generate(source.tasks, source.size, source.seed, wanted), infer_schema_length=None)
    elif source.hub is not None:
        frame = _from_hub(source)
    else:
        frame = read_file(path)
        frame = sliced(frame, source.split, path)
    if frame.is_empty():
        raise AtlasError(f"{path or source.hub or 'tasks'}: no rows")
    return chosen_rows(frame, source.filter, str(path or source.hub))


def chosen_rows(frame: pl.DataFrame, filter: dict[str, list[str]], name: str) -> pl.DataFrame:
    """Rows whose columns hold the values of ``filter``; every value must occur, so that a misspelt one is noticed."""
    require_columns(frame, list(filter), name)
    for column, values in filter.items():
        found = frame[column].cast(pl.String).unique().sort().drop_nulls().to_list()
        absent = sorted(set(values) - set(found))
        if absent:
            raise AtlasError(
                f"{name}: column {column!r} never holds {', '.join(absent)}; it holds {', '.join(found[:12])}{', ...' * (len(found) > 12)}"
            )
    conditions = [pl.col(column).cast(pl.String).is_in(values) for column, values in filter.items()]
    chosen = frame.filter(*conditions) if conditions else frame
    if chosen.is_empty():
        raise AtlasError(f"{name}: no row has all the values of `filter`")
    return chosen


def require_columns(frame: pl.DataFrame, wanted: list[str], name: str) -> None:
    """Raise AtlasError for the first column that is not there."""
    absent = [column for column in wanted if column not in frame.columns]
    if absent:
        raise AtlasError(
            f"{name}: no column {absent[0]!r}; the columns are {', '.join(frame.columns)}. Name them with `columns: {{instruction: ..., response: ...}}` (or `where:`)"
        )


def read_file(path: Path) -> pl.DataFrame:
    """A .jsonl, .jsonl.gz or .parquet file."""
    if not path.exists():
        raise AtlasError(f"{path}: there is no such file (relative paths start at `data_root`, or the current directory)")
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AtlasError(f"{path}: not readable as {'Parquet' if path.suffix == '.parquet' else 'JSON lines'}: {error}") from None


def sliced(frame: pl.DataFrame, split: str, path: Path) -> pl.DataFrame:
    """The rows that a slice such as ``train[10:510]`` names, as the datasets library reads it; all where it names none."""
    found = re.search(r"\[(\d*):(\d*)\]$", split)
    if "[" in split and not found:
        raise AtlasError(f"{path}: split {split!r} is not of the form name[first:last]; first counts from 0, last is left out")
    return frame[slice(*(int(text) if text else None for text in found.groups()))] if found else frame


def _from_hub(source: Source) -> pl.DataFrame:
    from datasets import load_dataset

    def load():
        return load_dataset(source.hub, source.subset, data_files=source.files, split=source.split, revision=source.revision)

    return hub.ask(load, "dataset", source.hub, source.revision).to_polars()


def to_pairs(frame: pl.DataFrame, columns: Columns, where: str) -> pl.DataFrame:
    """Columns instruction, response and source (null where unknown), nothing dropped yet."""
    if columns.conversation:
        frame, columns = first_exchange(frame, columns.conversation, where), Columns()
    wanted = [columns.instruction, columns.response, *([columns.input] if columns.input else [])]
    require_columns(frame, wanted, where)
    nested = [name for name in wanted if frame.schema[name].is_nested()]
    if nested:
        raise AtlasError(f"{where}: column {nested[0]!r} holds {frame.schema[nested[0]]}, not text; prepare a file with one text per row")
    instruction = pl.col(columns.instruction).cast(pl.String)
    if columns.input:
        extra = pl.col(columns.input).cast(pl.String).fill_null("").str.strip_chars()
        instruction = pl.when(extra == "").then(instruction).otherwise(instruction + "\n" + extra)
    labels = [pl.col(name).cast(pl.String) for name in ("source", "task") if name in frame.columns and not frame.schema[name].is_nested()]
    label = labels[0] if labels else pl.lit(None, pl.String)
    return frame.select(instruction.alias("instruction"), pl.col(columns.response).cast(pl.String).alias("response"), label.alias("source"))


def first_exchange(frame: pl.DataFrame, column: str, where: str) -> pl.DataFrame:
    """Columns instruction and response: the first user turn and the first reply of each conversation, null where there is none.

    A conversation is a list of texts (user and assistant in turn) or of ``{role, content}`` (a system turn is left out).
    """
    require_columns(frame, [column], where)
    kind = frame.schema[column]
    turns = pl.col(column)
    if not isinstance(kind, pl.List | pl.Array):
        raise AtlasError(f"{where}: column {column!r} holds {kind}, not lists of turns")
    if isinstance(kind.inner, pl.Struct):
        if not {"role", "content"} <= {field.name for field in kind.inner.fields}:
            raise AtlasError(f"{where}: the turns of column {column!r} are {kind.inner}; they need `role` and `content`")
        said = [
            turns.list.eval(pl.element().filter(pl.element().struct.field("role") == role).struct.field("content")).list.get(
                0, null_on_oob=True
            )
            for role in ("user", "assistant")
        ]
    else:
        said = [turns.list.get(position, null_on_oob=True) for position in (0, 1)]
    others = [name for name in ("source", "task") if name in frame.columns and name != column]
    return frame.select(said[0].alias("instruction"), said[1].alias("response"), *others)


# ---------------------------------------------------------------- training sets


def clean(frame: pl.DataFrame, dataset: Dataset) -> tuple[pl.DataFrame, dict[str, int]]:
    """Strip white space; drop empty, unwanted and repeated rows. Returns the rest, in order, and the count of each reason."""
    frame = frame.with_columns(pl.col("instruction", "response").fill_null("").str.strip_chars())
    unwanted = [text.strip().lower() for text in dataset.drop_responses]
    steps = {
        "empty instruction": pl.col("instruction") != "",
        "empty response": pl.col("response") != "",
        "unwanted response": ~pl.col("response").str.to_lowercase().is_in(unwanted),
        "repeated row": pl.struct("instruction", "response").is_first_distinct(),
    }
    dropped = {}
    for reason, keep in steps.items():
        kept = frame.filter(keep)
        dropped[reason], frame = len(frame) - len(kept), kept
    return frame, dropped


def sample(frame: pl.DataFrame, rows: int, seed: int, allow_fewer: bool, where: str) -> pl.DataFrame:
    """The first ``rows`` rows of a seeded shuffle, so that a smaller sample is part of every larger one."""
    if len(frame) < rows and not allow_fewer:
        raise AtlasError(
            f"{where}: {rows} rows are asked for, {len(frame)} are left after cleaning; lower `rows` of the recipe or set `allow_fewer: true`"
        )
    order = list(range(len(frame)))
    random.Random(seed).shuffle(order)
    return frame[order[:rows]]


# ---------------------------------------------------------------- overlap


def item_hash(text: str) -> str:
    """Hash of an instruction without regard to case and white space."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()


def overlap(training: dict[str, Iterable[str]], benchmarks: dict[str, Iterable[str]]) -> pl.DataFrame:
    """For every training set x benchmark: distinct items of each, and how many benchmark items are training instructions.

    Columns dataset, benchmark, train_items, benchmark_items, shared, examples (up to three shared hashes).
    """
    train = {name: {item_hash(text) for text in texts} for name, texts in training.items()}
    bench = {name: {item_hash(text) for text in texts} for name, texts in benchmarks.items()}
    rows = []
    for dataset, left in train.items():
        for benchmark, right in bench.items():
            shared = sorted(left & right)
            rows.append((dataset, benchmark, len(left), len(right), len(shared), shared[:3]))
    names = {
        "dataset": pl.String,
        "benchmark": pl.String,
        "train_items": pl.Int64,
        "benchmark_items": pl.Int64,
        "shared": pl.Int64,
        "examples": pl.List(pl.String),
    }
    return pl.DataFrame(rows, schema=names, orient="row")


def write_manifest(table: Path, frame: pl.DataFrame, settings: object, inputs: dict[str, Path], **facts: object) -> None:
    """Provenance beside a data file, as ``manifest.json`` in its folder, with its rows, their sources and its hash."""
    sources = dict(sorted(Counter(value or "unknown" for value in frame["source"]).items()))
    manifest = record_provenance(settings, inputs, rows=len(frame), sources=sources, sha256=sha256(table), **facts)
    write_json(table.parent / "manifest.json", manifest)
    LOG.info("%s: %d rows %s", table, len(frame), facts or "")
