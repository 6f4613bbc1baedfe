"""Measure properties of a training set that need no model: lengths, lexical diversity, near-duplicates."""

import argparse
import re
from collections import Counter
from pathlib import Path

from sft_atlas.core.files import read_table, write_table
from sft_atlas.core.log import progress
from sft_atlas.models.arguments import add_keys, key_columns

CJK = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"  # kana and ideographs, each of which counts as a word
WORD = re.compile(rf"{CJK}|(?:(?!{CJK})\w)+")
WINDOW = 50  # words, of the moving-average type-token ratio
SHINGLE = 3  # words
NEAR = 0.8  # Jaccard similarity of shingles from which two rows count as near-duplicates
PERMUTATIONS = 128


def main(args: argparse.Namespace) -> None:
    """Write one row."""
    import polars as pl

    row = properties(read_table(args.data, columns=["instruction", "response"]).rows())
    frame = pl.DataFrame([row], schema=dict.fromkeys(row, pl.Float64) | {"n": pl.Int64})
    write_table(args.output, frame.select(*key_columns(args, "dataset", "rows"), pl.all()))
    progress(f"{row}")


def words(text: str) -> list[str]:
    """Lower-case words; numbers are words, and so is each CJK character."""
    return WORD.findall(text.lower())


def lexical_diversity(tokens: list[str], window: int = WINDOW) -> float | None:
    """Moving-average type-token ratio (Covington and McFall 2010, doi:10.1080/09296171003643098), between 1/window and 1.

    Unlike the plain ratio it does not fall with the length of the text. None for a text shorter than the window.
    """
    if len(tokens) < window:
        return None
    counts = Counter(tokens[:window])
    total = types = len(counts)
    for old, new in zip(tokens, tokens[window:], strict=False):
        counts[old] -= 1
        types -= counts[old] == 0
        types += counts[new] == 0
        counts[new] += 1
        total += types
    return total / (len(tokens) - window + 1) / window


def shingles(text: str, size: int = SHINGLE) -> set[str]:
    """Runs of ``size`` words (Broder 1997); a shorter text is one shingle."""
    tokens = words(text)
    return {" ".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


def near_duplicates(texts: list[str], threshold: float = NEAR) -> list[bool]:
    """Whether each text has another whose shingles overlap by Jaccard >= ``threshold``.

    Candidates come from MinHash and locality-sensitive hashing (datasketch) and are checked exactly, so there are no false pairs;
    a pair right at the threshold may be missed.
    """
    import xxhash
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(text) for text in texts]
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    sketches = MinHash.bulk([[s.encode() for s in each] for each in sets], num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
    near = [False] * len(texts)
    for i, sketch in enumerate(sketches):
        for j in index.query(sketch):
            # Where both are known to be near-duplicates, the pair adds nothing.
            if not (near[i] and near[j]) and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]):
                near[i] = near[j] = True
        index.insert(i, sketch)
    return near


def properties(rows: list[tuple[str, str]]) -> dict[str, float | int | None]:
    """Properties of the rows (instruction, response) of a training set.

    n; instruction_words and response_words (mean words per row); response_characters (mean); lexical_diversity of the responses, one
    after the other; near_duplicates (share of rows that have a near-duplicate, instruction and response together).
    """
    instructions, responses = [words(a) for a, _ in rows], [words(b) for _, b in rows]
    return {
        "n": len(rows),
        "instruction_words": sum(map(len, instructions)) / len(rows),
        "response_words": sum(map(len, responses)) / len(rows),
        "response_characters": sum(len(b) for _, b in rows) / len(rows),
        "lexical_diversity": lexical_diversity([word for tokens in responses for word in tokens]),
        "near_duplicates": sum(near_duplicates([f"{a}\n{b}" for a, b in rows])) / len(rows),
    }


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", type=Path, required=True, help="training set: Parquet with the columns instruction and response")
    add_keys(p, "dataset", "rows")
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row")
