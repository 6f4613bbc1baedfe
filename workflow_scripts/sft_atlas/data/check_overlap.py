"""Look for benchmark items in training sets and for sets that are one under two names, by content, before anything is trained."""

import argparse
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table, text_hash, write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data import leaks
from sft_atlas.data.records import turns_by_speaker
from sft_atlas.study.items import SHARED, read_items

EXAMPLES = 3


def main(args: argparse.Namespace) -> None:
    training = {f"{path.parent.parent.name}/{path.parent.name}": read_table(path) for path in args.training}
    items = {path.parent.name: read_items(path) for path in args.benchmarks}
    table = overlap(training, items)
    lines = [
        f"{dataset} x {benchmark}: {shared} of {n} items" + (f", and the answers of {answers}" if answers else "")
        for dataset, benchmark, _, n, shared, answers, _ in table.iter_rows()
        if shared or answers
    ]
    lines += [f"shots of {name}: {count} of its items" for name, count in shots_that_are_items(args.shots, items).items()]
    text = "benchmark items in training sets or examples:\n  " + "\n  ".join(lines)
    if lines and args.policy == "error":
        raise AtlasError(
            f"{text}\nRemove them from the training set or the benchmark, or set `on_overlap: report` in the study file to list them and continue"
        )
    between, same = leaks.shared_between(items), same_sources(args.sources)
    inputs = {f"{path.parent.parent.name}/{path.parent.name}": path for path in [*args.training, *args.benchmarks]}
    inputs |= {f"{path.parent.name}.{path.stem}": path for path in [*args.sources, *args.shots]}
    facts = {"pairs": len(table), "pairs_with_overlap": len(lines), SHARED: between, "training_sets_with_the_same_rows": same}
    write_json(args.output.with_suffix(".json"), record_provenance({"policy": args.policy}, inputs, **facts))
    write_table(args.output, table)
    for one, other, shared, n in same:
        LOG.warning(
            "training sets %s and %s share %d of %d rows: they are one set under two names; comparing them compares nothing, and a merge trains"
            " on the rows twice", one, other, shared, n,
        )  # fmt: skip
    if between:
        named = ", ".join(f"{one} and {other} ({shared} of {n})" for one, other, shared, n in between)
        LOG.warning("benchmarks that share items: %s; a mean over benchmarks counts these items more than once", named)
    if lines:
        LOG.warning("%s", text)
    else:
        LOG.info("no benchmark item in the training sets, in %d pairs of training set and benchmark", len(table))


def overlap(training: dict[str, pl.DataFrame], items: dict[str, list[dict]]) -> pl.DataFrame:
    """Benchmark items that are in training sets, as :mod:`sft_atlas.data.leaks` defines it, for every training set x benchmark.

    ``training``: rows by name; ``items``: rows with instruction and answer by name. Columns dataset, benchmark, train_items and
    benchmark_items (distinct instructions), shared (items whose question is in the training set), answers (items of which only the answer
    is), examples (hashes of up to EXAMPLES shared questions).
    """
    known, found = leaks.Items(items), []
    counts = {name: len({leaks.plain(item["instruction"]) for item in listed}) for name, listed in items.items()}
    for dataset, frame in training.items():
        rows = list(turns_by_speaker(frame))
        questions, answers = known.found_in(rows)
        distinct = len({leaks.plain(text) for instructions, _ in rows for text in instructions})
        for benchmark, listed in items.items():
            shared = {listed[number]["instruction"] for name, number in questions if name == benchmark}
            alone = sum(name == benchmark for name, _ in answers - questions)
            examples = sorted(map(text_hash, shared))[:EXAMPLES]
            number = len({leaks.plain(text) for text in shared})
            found.append((dataset, benchmark, distinct, counts[benchmark], number, alone, examples))
    numbers = dict.fromkeys(("train_items", "benchmark_items", "shared", "answers"), pl.Int64)
    schema = {"dataset": pl.String, "benchmark": pl.String, **numbers, "examples": pl.List(pl.String)}
    return pl.DataFrame(found, schema=schema, orient="row")


def shots_that_are_items(shots: list[Path], items: dict[str, list[dict]]) -> dict[str, int]:
    """How many items of a benchmark are among its own examples, by name; those without any are left out."""
    count = {}
    for path in shots:
        tested = {leaks.identity(item) for item in items.get(path.parent.name, [])}
        count[path.parent.name] = sum(leaks.identity(shot) in tested for shot in read_items(path))
    return {name: number for name, number in count.items() if number}


def same_sources(sources: list[Path]) -> list[tuple[str, str, int, int]]:
    """(training set, training set, shared rows, rows of the smaller one) of those that are one, as far as their cleaned rows say."""
    rows = {}
    for path in sources:
        frame = read_table(path, columns=["instruction", "response"]).drop_nulls()
        rows[path.parent.name] = {text_hash(f"{instruction}\n{response}") for instruction, response in frame.iter_rows()}
    return [pair for pair in leaks.shared(rows) if pair[2] >= leaks.SAME_ROWS * pair[3]]


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--training", type=Path, nargs="*", default=[], help="train.parquet files, {dataset}/{rows}/train.parquet")
    p.add_argument("--sources", type=Path, nargs="*", default=[], help="source.parquet files, {dataset}/source.parquet")
    p.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="test.jsonl files, {benchmark}/test.jsonl")
    p.add_argument("--shots", type=Path, nargs="*", default=[], help="shots.jsonl files, {benchmark}/shots.jsonl")
    p.add_argument("--policy", choices=("error", "report"), default="error")
    p.add_argument("--output", type=Path, required=True)
