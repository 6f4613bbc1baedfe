"""Fetch a benchmark's items from their file, the hub or their generator, in one form for every source (may use the network)."""

import argparse
import json
import random

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_text
from sft_atlas.data.options import fetch_options
from sft_atlas.data.records import ROW, at_commit, read_rows, require_columns, to_pairs, write_manifest
from sft_atlas.study.schema import Benchmark, BenchmarkColumns, Columns

NETWORK = True
ANSWER = "right option"  # column with the text of the right option, while items are made


def main(args: argparse.Namespace) -> None:
    entry = at_commit(Benchmark.model_validate_json(args.entry))
    items = benchmark_items(read_rows(entry, args.path, "benchmark"), entry, f"benchmarks.{args.name}")
    write_text(args.output, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    frame = pl.DataFrame({"source": [str(item.get("task", "unknown")) for item in items]})
    write_manifest(args.output, frame, entry.model_dump(exclude_defaults=True), {"source": args.path} if args.path else {})


def benchmark_items(frame: pl.DataFrame, benchmark: Benchmark, name: str) -> list[dict[str, object]]:
    """Items for lm-eval: the source's own fields with ``instruction`` and ``answer``, and for multiple choice ``choices`` and ``label``.

    A seeded sample of ``benchmark.items`` rows (default: all), in the order of the source. ``name``: for messages. Raises AtlasError where
    an item lacks instruction or answer, or the source has too few rows.
    """
    frame, pairs = _normalised(frame, benchmark.columns, benchmark.tasks is None, name)
    empty = [i for i, pair in enumerate(pairs) if pair["instruction"] is None or pair["response"] is None]
    if empty:
        raise AtlasError(f"{name}: {len(empty)} items lack instruction or answer, the first is item {empty[0]}; remove them")
    fields = [{key: value for key, value in row.items() if key not in ("response", ANSWER, ROW)} for row in frame.to_dicts()]
    rows = [{**row, "instruction": a["instruction"].strip(), "answer": a["response"].strip()} for row, a in zip(fields, pairs, strict=True)]
    if benchmark.items is not None and benchmark.items > len(rows):
        raise AtlasError(f"{name}: `items` is {benchmark.items}, the source has {len(rows)} rows; lower it or leave it out")
    chosen = sorted(random.Random(benchmark.seed).sample(range(len(rows)), benchmark.items)) if benchmark.items else range(len(rows))
    return [rows[i] for i in chosen]


def _normalised(frame: pl.DataFrame, columns: BenchmarkColumns, from_source: bool, name: str) -> tuple[pl.DataFrame, list[dict]]:
    """The source's fields, with choices, label, turns and answers where it has them; and each row's instruction and response."""
    if from_source and columns.choices is not None:
        frame = _with_choices(frame, columns, name)
    chosen = {"instruction": columns.instruction, "response": ANSWER if ANSWER in frame.columns else columns.response}
    if chosen["response"] is None:  # a judged benchmark has no right answer
        frame = frame.with_columns(pl.lit("").alias(ANSWER))
        chosen["response"] = ANSWER
    for key, several in (("instruction", "turns"), ("response", "answers")):
        if frame.schema.get(chosen[key]) == pl.List(pl.String):  # several turns, or several right answers: the first one stands for them
            frame = frame.with_columns(pl.col(chosen[key]).alias(several), pl.col(chosen[key]).list.first().alias(f"first of {several}"))
            chosen[key] = f"first of {several}"
    pairs = to_pairs(frame, Columns(input=columns.input, **chosen), name)
    return frame.drop("first of turns", "first of answers", strict=False), pairs.to_dicts()


def _with_choices(frame: pl.DataFrame, columns: BenchmarkColumns, name: str) -> pl.DataFrame:
    """The frame with the columns choices (list of text), label (index) and ANSWER, made from the columns that the source has."""
    options = [columns.choices] if isinstance(columns.choices, str) else columns.choices
    require_columns(frame, [*options, columns.label], name)
    if isinstance(columns.choices, str) and not isinstance(frame.schema[columns.choices], pl.List | pl.Array):
        raise AtlasError(f"{name}: column {columns.choices!r} holds {frame.schema[columns.choices]}, not lists; name one column per choice")
    texts = [list(map(str, (row[0] or []) if isinstance(columns.choices, str) else row)) for row in frame.select(options).iter_rows()]
    labels = [_position(value) for value in frame[columns.label]]
    bad = next((i for i, (text, label) in enumerate(zip(texts, labels, strict=True)) if not 0 <= label < len(text)), None)
    if bad is not None:
        raise AtlasError(
            f"{name}: item {bad} has {len(texts[bad])} choices and the label {frame[columns.label][bad]!r},"
            " which is not the index (from 0) or letter (from A) of one of them"
        )
    answers = [text[label] for text, label in zip(texts, labels, strict=True)]
    return frame.with_columns(pl.Series("choices", texts), pl.Series("label", labels), pl.Series(ANSWER, answers))


def _position(label: object) -> int:
    """Index of the right option from an index or a letter; -1 where it is neither."""
    text = str(label).strip()
    if len(text) == 1 and text.isalpha():
        return ord(text.upper()) - ord("A")
    try:
        return int(label)
    except (TypeError, ValueError):
        return -1


def add_options(p: argparse.ArgumentParser) -> None:
    fetch_options(p, "benchmark", "test.jsonl")
