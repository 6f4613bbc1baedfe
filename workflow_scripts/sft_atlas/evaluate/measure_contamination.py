"""Find the benchmark items that occur in training sets, by shared n-grams."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from sft_atlas.core.files import read_table, write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.study.items import read_items, words

NGRAM = 13  # words, as in GPT-3 (Brown et al. 2020, appendix C); a shorter item must occur as a whole
SHORTEST = 5  # words of an item below which an occurrence means nothing


def main(args: argparse.Namespace) -> None:
    """Write the table of training sets x benchmarks, and the list of items."""
    import polars as pl

    def texts(path: Path) -> Iterator[str]:
        return ("\n".join(text for text in row if text) for row in read_table(path).drop("source", strict=False).iter_rows())

    training = {(path.parent.parent.name, int(path.parent.name)): texts(path) for path in args.training}
    benchmarks = {path.parent.name: [item["instruction"] for item in read_items(path)] for path in args.benchmarks}
    matrix, flags = measure(training, benchmarks)
    inputs = {f"{path.parent.parent.name}/{path.parent.name}": path for path in [*args.training, *args.benchmarks]}
    facts = {"pairs": len(matrix), "pairs_with_overlap": matrix.filter(pl.col("overlapping") > 0).height, "items": len(flags)}
    write_json(args.output.with_suffix(".json"), record_provenance({"ngram": NGRAM, "shortest": SHORTEST}, inputs, **facts))
    write_table(args.output_items, flags)
    write_table(args.output, matrix)
    LOG.info("%s", facts)


def measure(training: dict[tuple[str, int], Iterable[str]], benchmarks: dict[str, list[str]]):
    """``(matrix, flags)`` for training sets ((dataset, rows) -> texts) x benchmarks (name -> questions), as polars frames.

    An item overlaps a training set where a run of NGRAM of its words, or the whole of a shorter question, stands in one training row.
    matrix: dataset, rows, benchmark, items, overlapping (items), share (of the items), ngram. flags, one row per training set and
    overlapping item: dataset, rows, benchmark, item.
    """
    import polars as pl

    index = ItemIndex(benchmarks)
    matrix, flags = [], []
    for (dataset, rows), texts in training.items():
        overlapping = index.items_in(texts)
        flags += [(dataset, rows, *pair) for pair in sorted(overlapping)]
        for name, size in index.sizes.items():
            count = sum(benchmark == name for benchmark, _ in overlapping)
            matrix.append((dataset, rows, name, size, count, count / size if size else None, NGRAM))
    pair = {"dataset": pl.String, "rows": pl.Int64, "benchmark": pl.String}
    counts = {"items": pl.Int64, "overlapping": pl.Int64, "share": pl.Float64, "ngram": pl.Int64}
    return pl.DataFrame(matrix, pair | counts, orient="row"), pl.DataFrame(flags, pair | {"item": pl.Int64}, orient="row")


class ItemIndex:
    """The items of all benchmarks, indexed by their n-grams, so that every training set is read once."""

    def __init__(self, benchmarks: dict[str, list[str]]):
        self.sizes = {name: len(texts) for name, texts in benchmarks.items()}
        self.index: dict[int, dict[int, set[tuple[str, int]]]] = {}  # n-gram size -> hash -> items
        for name, texts in benchmarks.items():
            for number, text in enumerate(texts):
                tokens = words(text)
                size = min(len(tokens), NGRAM)
                if size >= SHORTEST:
                    for gram in grams(tokens, size):
                        self.index.setdefault(size, {}).setdefault(gram, set()).add((name, number))

    def items_in(self, texts: Iterable[str]) -> set[tuple[str, int]]:
        """Items (benchmark, number) of which an n-gram occurs in one of the texts."""
        items: set[tuple[str, int]] = set()
        for text in texts:
            tokens = words(text)
            for size, hashes in self.index.items():
                for gram in grams(tokens, size):
                    if gram in hashes:
                        items |= hashes[gram]
        return items


def grams(tokens: tuple[str, ...], size: int) -> Iterator[int]:
    """Hashes of the runs of ``size`` tokens (64 bits, the same within one process)."""
    return (hash(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--training", type=Path, nargs="*", default=[], help="train.parquet files, {dataset}/{rows}/train.parquet")
    p.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="test.jsonl files, {benchmark}/test.jsonl")
    p.add_argument("--output", type=Path, required=True, help="Parquet, training set x benchmark")
    p.add_argument("--output-items", type=Path, required=True, help="Parquet, one row per training set and overlapping item")
