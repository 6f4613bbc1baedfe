"""Contamination: which benchmark items occur in which training sets, by shared n-grams, and the scores without them."""

import re
from collections.abc import Iterable, Iterator

import polars as pl

from sft_atlas.evaluate.scores import standard_error

NGRAM = 13  # words, as in GPT-3 (Brown et al. 2020, appendix C); a shorter item must occur as a whole
SHORTEST = 5  # words of an item below which an occurrence means nothing
WORDS = re.compile(r"[぀-ヿ㐀-鿿]|[^\W_]+|[^\w\s]")  # Chinese and Japanese by character; marks count: 3 + 4 is not 3 - 4

FLAGS = {"dataset": pl.String, "rows": pl.Int64, "benchmark": pl.String, "item": pl.Int64}
MATRIX = {
    "dataset": pl.String,
    "rows": pl.Int64,
    "benchmark": pl.String,
    "items": pl.Int64,
    "overlapping": pl.Int64,
    "share": pl.Float64,
    "ngram": pl.Int64,
}


def words(text: str) -> tuple[str, ...]:
    """A text's words and marks, without case."""
    return tuple(WORDS.findall(text.lower()))


def grams(tokens: tuple[str, ...], size: int) -> Iterator[int]:
    """Hashes of the runs of ``size`` tokens (64 bits, the same within one process)."""
    return (hash(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


class Items:
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

    def found_in(self, texts: Iterable[str]) -> set[tuple[str, int]]:
        """Items (benchmark, number) of which an n-gram occurs in one of the texts."""
        found: set[tuple[str, int]] = set()
        for text in texts:
            tokens = words(text)
            for size, hashes in self.index.items():
                for gram in grams(tokens, size):
                    if gram in hashes:
                        found |= hashes[gram]
        return found


def measure(training: dict[tuple[str, int], Iterable[str]], benchmarks: dict[str, list[str]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(MATRIX, FLAGS) for training sets ((dataset, rows) -> texts) x benchmarks (name -> questions).

    An item overlaps a training set where a run of NGRAM of its words, or the whole of a shorter question, stands in one training row.
    """
    items = Items(benchmarks)
    matrix, flags = [], []
    for (dataset, rows), texts in training.items():
        found = items.found_in(texts)
        flags += [(dataset, rows, *pair) for pair in sorted(found)]
        for name, size in items.sizes.items():
            count = sum(benchmark == name for benchmark, _ in found)
            matrix.append((dataset, rows, name, size, count, count / size if size else None, NGRAM))
    return pl.DataFrame(matrix, schema=MATRIX, orient="row"), pl.DataFrame(flags, schema=FLAGS, orient="row")


def clean_scores(
    samples: pl.DataFrame, flags: pl.DataFrame, members: dict[str, tuple[str, ...]], rows: dict[tuple[str, str, str], int]
) -> pl.DataFrame:
    """Every checkpoint's score on all items and on those that overlap no set it was trained on, with its base model's on the same items.

    ``samples``: model, dataset, recipe, epoch, suite, benchmark, item, score, cluster. ``members``: source datasets of each training set;
    ``rows``: sample size of each run (model, dataset, recipe). Standard errors are clustered as those of the scores.
    """
    flagged = {
        (dataset, size): set(zip(part["benchmark"], part["item"], strict=True))
        for (dataset, size), part in flags.group_by("dataset", "rows")
    }
    keys = ["model", "dataset", "recipe", "epoch", "suite", "benchmark"]
    base = {
        key: dict(zip(part["item"], part["score"], strict=True))
        for key, part in samples.filter(dataset="base").group_by("model", "suite", "benchmark")
    }
    result = []
    for key, part in samples.group_by(keys, maintain_order=True):
        model, dataset, recipe, _, suite, benchmark = key
        trained = () if dataset == "base" else (members.get(dataset) or (dataset,))
        found = set().union(*(flagged.get((name, rows[model, dataset, recipe]), set()) for name in trained)) if trained else set()
        scored = [row for row in part.iter_rows(named=True) if row["score"] is not None]
        clean = [row for row in scored if (benchmark, row["item"]) not in found]
        reference = [value for row in clean if (value := base.get((model, suite, benchmark), {}).get(row["item"])) is not None]
        stderr = standard_error([row["score"] for row in clean], [row["cluster"] for row in clean])[0] if clean else None
        result.append(
            (
                *key,
                mean([row["score"] for row in scored]),
                len(scored),
                mean([row["score"] for row in clean]),
                stderr,
                len(clean),
                mean(reference),
            )
        )
    numbers = {
        "score": pl.Float64,
        "n": pl.Int64,
        "score_clean": pl.Float64,
        "stderr_clean": pl.Float64,
        "n_clean": pl.Int64,
        "base_score_clean": pl.Float64,
    }
    return pl.DataFrame(result, schema={name: samples.schema[name] for name in keys} | numbers, orient="row")


def mean(values: list[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None
