"""Benchmark items and few-shot examples: one form for every source, whatever its columns are called."""

import random

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.data.records import item_hash, require_columns, to_pairs
from sft_atlas.study.schema import Benchmark, BenchmarkColumns, Columns

ANSWER = "right option"  # column of the text of the right option, while items are made


def benchmark_items(frame: pl.DataFrame, benchmark: Benchmark, where: str) -> list[dict[str, object]]:
    """Rows for lm-eval: the source's own fields, with `instruction` and `answer`, and for multiple choice `choices` and `label`.

    Takes a seeded sample of ``items`` rows, in the order of the source.
    """
    frame, pairs = _normalised(frame, benchmark.columns, benchmark.tasks is None, where)
    empty = [i for i, pair in enumerate(pairs) if pair["instruction"] is None or pair["response"] is None]
    if empty:
        raise AtlasError(
            f"{where}: {len(empty)} items lack instruction or answer, the first is item {empty[0]}; remove them from the source"
        )
    own = [{key: value for key, value in row.items() if key not in ("response", ANSWER)} for row in frame.to_dicts()]
    rows = [
        {**row, "instruction": pair["instruction"].strip(), "answer": pair["response"].strip()}
        for row, pair in zip(own, pairs, strict=True)
    ]
    if benchmark.items is not None and benchmark.items > len(rows):
        raise AtlasError(f"{where}: {benchmark.items} items are asked for, the source has {len(rows)}; lower `items` or leave it out")
    chosen = sorted(random.Random(benchmark.seed).sample(range(len(rows)), benchmark.items)) if benchmark.items else range(len(rows))
    return [rows[i] for i in chosen]


def _normalised(frame: pl.DataFrame, columns: BenchmarkColumns, from_source: bool, where: str) -> tuple[pl.DataFrame, list[dict]]:
    """The source's fields with choices, label, turns and answers where it has them, and each row's instruction and response."""
    if from_source and columns.choices is not None:
        frame = with_choices(frame, columns, where)
    chosen = {"instruction": columns.instruction, "response": ANSWER if ANSWER in frame.columns else columns.response}
    if chosen["response"] is None:  # a judged benchmark has no right answer
        frame = frame.with_columns(pl.lit("").alias(ANSWER))
        chosen["response"] = ANSWER
    for key, several in (("instruction", "turns"), ("response", "answers")):
        if frame.schema.get(chosen[key]) == pl.List(pl.String):  # several turns, or several right answers: the first one stands for them
            frame = frame.with_columns(pl.col(chosen[key]).alias(several), pl.col(chosen[key]).list.first().alias(f"first of {several}"))
            chosen[key] = f"first of {several}"
    pairs = to_pairs(frame, Columns(input=columns.input, **chosen), where)
    return frame.drop("first of turns", "first of answers", strict=False), pairs.to_dicts()


def draw_shots(rows: list[dict[str, object]], count: int, by: str | None, seed: int, items: list[dict[str, object]], where: str):
    """Few-shot examples from the rows of a train or dev split: a seeded draw of ``count``, for each value of the field ``by`` if given.

    Rows that are benchmark items are left out, which may leave a value of ``by`` with fewer (MMLU's dev split shares questions with its
    test split). Raises AtlasError where the split itself has too few. Returns (examples, rows left out).
    """
    tested = {_identity(item) for item in items}
    groups: dict[object, list[dict]] = {}
    for row in rows:
        if by and by not in row:
            raise AtlasError(f"{where}: shots.by names {by!r}, which its examples lack; they have {', '.join(row)}")
        groups.setdefault(row[by] if by else None, []).append(row)
    wanted = dict.fromkeys(item.get(by) for item in items) if by else [None]
    chosen, left_out = [], 0
    for group in wanted:
        pool = groups.get(group, [])
        place = f" of {by} {group!r}" if by else ""
        if len(pool) < count:
            raise AtlasError(
                f"{where}: {count} examples{place} are asked for, the split has {len(pool)}; lower shots.count or name another split"
            )
        free = [row for row in pool if _identity(row) not in tested]
        if not free:
            raise AtlasError(f"{where}: every example{place} is a benchmark item; name another split")
        order = list(range(len(free)))
        random.Random(f"{seed} {group}").shuffle(order)
        chosen += [free[i] for i in order[:count]]
        left_out += len(pool) - len(free)
    return chosen, left_out


def _identity(item: dict[str, object]) -> str:
    """An item's hash with its answer: many questions of MMLU share their words and differ in their options."""
    return item_hash(f"{item['instruction']}\n{item['answer']}")


def with_choices(frame: pl.DataFrame, columns: BenchmarkColumns, where: str) -> pl.DataFrame:
    """Columns choices (list of text), label (index) and the right option's text from the source's own way to state them."""
    options = [columns.choices] if isinstance(columns.choices, str) else columns.choices
    require_columns(frame, [*options, columns.label], where)
    if isinstance(columns.choices, str) and not isinstance(frame.schema[columns.choices], pl.List | pl.Array):
        found = frame.schema[columns.choices]
        raise AtlasError(f"{where}: column {columns.choices!r} holds {found}, not lists; name one column per choice instead")
    texts = [list(map(str, (row[0] or []) if isinstance(columns.choices, str) else row)) for row in frame.select(options).iter_rows()]
    labels = [_position(value) for value in frame[columns.label]]
    bad = next((i for i, (text, label) in enumerate(zip(texts, labels, strict=True)) if not 0 <= label < len(text)), None)
    if bad is not None:
        found = f"{len(texts[bad])} choices and the label {frame[columns.label][bad]!r}"
        raise AtlasError(f"{where}: item {bad} has {found}, which is not the index (from 0) or letter (from A) of one of them")
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
