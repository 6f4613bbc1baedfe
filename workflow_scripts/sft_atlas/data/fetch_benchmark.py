"""Fetch a benchmark's items from their file, the hub or their generator, in one form for every source (may use the network)."""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_text
from sft_atlas.data.columns import is_nested_name
from sft_atlas.data.local_files import as_text, shown
from sft_atlas.data.options import fetch_options
from sft_atlas.data.records import ROW, at_commit, fetched, read_rows, require_columns, row_numbers, to_pairs, write_manifest
from sft_atlas.study import lm_eval_registry
from sft_atlas.study.paths import MANIFEST
from sft_atlas.study.rendering import TaskRenderer, check_rows
from sft_atlas.study.schema import Benchmark, BenchmarkColumns, Columns, Source
from sft_atlas.study.task_files import task_file

NETWORK = True
ANSWER = "right option"  # column with the text of the right option, while items are made


def main(args: argparse.Namespace) -> None:
    asked, key, record = Benchmark.model_validate_json(args.entry), f"benchmarks.{args.name}", args.output.parent / MANIFEST
    entry = at_commit(asked, record, key)
    if entry.lm_eval:
        items = registry_items(entry, args.path, key)
    else:
        items = benchmark_items(read_rows(entry, args.path, "benchmark"), entry, key)
        check_rows(entry.task, items)
    text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    facts = fetched(asked, entry, text, record, key)
    write_text(args.output, text)
    frame = pl.DataFrame({"source": [str(item.get("task", "unknown")) for item in items]})
    write_manifest(args.output, frame, entry.model_dump(exclude_defaults=True), {"source": args.path} if args.path else {}, **facts)


def benchmark_items(frame: pl.DataFrame, benchmark: Benchmark, name: str) -> list[dict[str, object]]:
    """Items for lm-eval: the source's own fields with ``instruction`` and ``answer``, and for multiple choice ``choices`` and ``label``.

    A seeded sample of ``benchmark.items`` rows (default: all), in the order of the source. ``name``: for messages. Raises AtlasError where
    an item lacks instruction or answer, or the source has too few rows.
    """
    frame, pairs = _normalised(frame, benchmark.columns, benchmark.tasks is None, name)
    numbered = zip(row_numbers(frame), pairs, strict=True)
    empty = [number for number, pair in numbered if pair["instruction"] is None or pair["response"] is None]
    if empty:
        raise AtlasError(f"{name}: {len(empty)} items lack instruction or answer, the first is row {empty[0]}; remove them")
    left_out = {"response", ANSWER, ROW, *(column for column in frame.columns if is_nested_name(column, frame))}
    fields = [{key: value for key, value in row.items() if key not in left_out} for row in frame.to_dicts()]
    rows = [{**row, "instruction": a["instruction"].strip(), "answer": a["response"].strip()} for row, a in zip(fields, pairs, strict=True)]
    if benchmark.items is not None and benchmark.items > len(rows):
        raise AtlasError(f"{name}: `items` is {benchmark.items}, the source has {len(rows)} rows; lower it or leave it out")
    chosen = sorted(random.Random(benchmark.seed).sample(range(len(rows)), benchmark.items)) if benchmark.items else range(len(rows))
    return [rows[i] for i in chosen]


def registry_items(benchmark: Benchmark, path: Path | None, name: str) -> list[dict[str, object]]:
    """Items of a task or group of lm-eval's registry: ``doc``, a row of the task's own data, ``task``, and ``instruction`` and ``answer`` to compare.

    A seeded sample of ``benchmark.items`` rows of all tasks together (default: all), in lm-eval's order. Where only a function of the task
    could say what the question is, ``instruction`` is every text of the row.
    """
    rows = registry_rows(benchmark, path, lm_eval_registry.data_of)
    for task, file in benchmark.registered.tasks.items():
        check_rows(file, [row["doc"] for row in rows if row["task"] == task])
    if benchmark.items is not None and benchmark.items > len(rows):
        raise AtlasError(f"{name}: `items` is {benchmark.items}, the source has {len(rows)} rows; lower it or leave it out")
    chosen = sorted(random.Random(benchmark.seed).sample(range(len(rows)), benchmark.items)) if benchmark.items else range(len(rows))
    return [rows[i] for i in chosen]


def registry_rows(benchmark: Benchmark, path: Path | None, data_of: Callable[[str], lm_eval_registry.TaskData]) -> list[dict[str, object]]:
    """Rows of each task of the registry that a benchmark names: those of ``path``, or where ``data_of`` its task file says they are."""
    rows = []
    for task, file in benchmark.registered.tasks.items():
        data = lm_eval_registry.TaskData(benchmark.split, path=str(path)) if path else data_of(file)
        source = {"hub": data.hub, "revision": benchmark.revision} if data.hub else {"path": data.path}
        frame = read_rows(Source(**source, subset=data.subset, split=data.split), data.path and Path(data.path), "benchmark").drop(ROW)
        renderer = TaskRenderer(task_file(file), file)
        rows += [{**_pair(renderer, doc), "task": task, "doc": doc} for doc in map(dict, frame.to_dicts())]
    return rows


def _pair(renderer: TaskRenderer, doc: dict) -> dict[str, str]:
    """Question and right answer of a row as texts, as far as they can be known without the task's functions."""
    whole = "\n".join(str(value) for value in doc.values() if isinstance(value, str))
    if renderer.by_name("process_docs", "doc_to_text", "doc_to_choice", "doc_to_target"):
        return {"instruction": whole, "answer": ""}
    text, target = renderer.text(doc), renderer.target(doc)
    if renderer.kind == "multiple_choice":
        target = renderer.options(doc)[renderer.right_options(doc)[0]]
    target = target[0] if isinstance(target, list) and target else target
    return {"instruction": text.strip() if isinstance(text, str) else whole, "answer": "" if target is None else str(target).strip()}


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
    """The frame with the columns choices (list of text), label (index) and ANSWER, made from the columns that the source has.

    A null is no option: the others move up, and so does the index of the right one. Raises AtlasError with the row where the label names
    no option or a null.
    """
    one_list = isinstance(columns.choices, str)
    options = [columns.choices] if one_list else columns.choices
    require_columns(frame, [*options, columns.label], name)
    if one_list and not isinstance(frame.schema[columns.choices], pl.List | pl.Array | pl.Object):
        raise AtlasError(f"{name}: column {columns.choices!r} holds {frame.schema[columns.choices]}, not lists; name one column per choice")
    named = columns.choice_labels
    if named:
        require_columns(frame, [named], name)
    base = 0 if named else _label_base(frame, columns, name)
    listed = frame[named].to_list() if named else [None] * len(frame)
    choices, labels = [], []
    keys = zip(row_numbers(frame), frame.select(options).iter_rows(), frame[columns.label].to_list(), listed, strict=True)
    for number, values, key, key_names in keys:
        values = (values[0] or []) if one_list else values
        if not isinstance(values, list | tuple) or any(isinstance(value, list | dict) for value in values):
            raise AtlasError(f"{name}: row {number} has the options {shown(values)}; they must be a list of texts")
        position = _position_of_label(key, key_names, len(values), f"{name}: row {number}") if named else _position(key, base)
        if position is None or not 0 <= position < len(values):
            raise AtlasError(
                f"{name}: row {number} has {len(values)} choices and the label {key!r},"
                f" which is not the number (from {base}) or letter (from A) of one of them"
            )
        if values[position] is None:
            raise AtlasError(f"{name}: row {number} has the label {key!r}, and that option is null; correct or remove the row")
        choices.append([as_text(value) for value in values if value is not None])
        labels.append(position - sum(value is None for value in values[:position]))
    answers = [texts[label] for texts, label in zip(choices, labels, strict=True)]
    return frame.with_columns(pl.Series("choices", choices), pl.Series("label", labels), pl.Series(ANSWER, answers))


def _label_base(frame: pl.DataFrame, columns: BenchmarkColumns, name: str) -> int:
    """The number of the first option in the label column: ``columns.label_base``, or 0. AtlasError where it must be stated."""
    if columns.label_base is not None:
        return columns.label_base
    keys = [(number, key) for number, key in zip(row_numbers(frame), frame[columns.label].to_list(), strict=True) if key is not None]
    letters = [(number, key) for number, key in keys if _letter(key)]
    numbers = [(number, key) for number, key in keys if not isinstance(key, bool) and not _letter(key) and _position(key, 0) is not None]
    column = f"{name}: column {columns.label!r}"
    if letters and numbers:
        shown_keys = [f"row {found[0][0]}: {found[0][1]!r}" for found in (letters, numbers)]
        raise AtlasError(
            f"{column} has letters ({shown_keys[0]}) and numbers ({shown_keys[1]});"
            " state whether the numbers begin at 0 or 1 with `columns: {label_base: 1}`"
        )
    if numbers and all(_position(key, 0) > 0 for _, key in numbers):
        raise AtlasError(
            f"{column} has numbers and never 0 (row {numbers[0][0]}: {numbers[0][1]!r}); state whether they begin at 1 or only lack 0,"
            " with `columns: {label_base: 1}` or `label_base: 0`"
        )
    return 0


def _position_of_label(key: object, labels: object, count: int, where: str) -> int:
    """Index of the option whose label is the key. AtlasError where it is not one of them, or each option has not one label."""
    texts = [as_text(label) for label in labels] if isinstance(labels, list) else []
    if len(texts) != count or texts.count(as_text(key)) != 1:
        raise AtlasError(f"{where} has {count} choices with the labels {shown(labels)}; `label` must be one of them, not {key!r}")
    return texts.index(as_text(key))


def _letter(key: object) -> bool:
    return isinstance(key, str) and len(key.strip()) == 1 and key.strip().isalpha()


def _position(key: object, base: int) -> int | None:
    """Index of the right option from its letter, its number (the first is ``base``) or a truth value; None where it is none of them."""
    if _letter(key):
        return ord(key.strip().upper()) - ord("A")
    if isinstance(key, bool):
        return int(key)
    try:
        number = int(key)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if isinstance(key, float) and number != key else number - base


def add_options(p: argparse.ArgumentParser) -> None:
    fetch_options(p, "benchmark", "test.jsonl")
