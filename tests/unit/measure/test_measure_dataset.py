"""Properties of training sets, by hand and on texts made for the purpose."""

import random

import polars as pl
import pytest

from sft_atlas.measure import measure_dataset
from sft_atlas.measure.measure_dataset import lexical_diversity, near_duplicates, properties, shingles, words


def test_words_of_several_scripts():
    assert words("It's 12 Apples, naïve-Größe!") == ["it", "s", "12", "apples", "naïve", "größe"]
    assert words("日本語 text カナ") == ["日", "本", "語", "text", "カ", "ナ"]


def test_lexical_diversity_is_the_mean_over_windows():
    tokens = list("abacccd")
    windows = [tokens[i : i + 3] for i in range(5)]
    assert lexical_diversity(tokens, 3) == pytest.approx(sum(len(set(window)) / 3 for window in windows) / 5)
    assert lexical_diversity(["x"] * 60) == pytest.approx(1 / 50)
    assert lexical_diversity([str(i) for i in range(60)]) == 1
    assert lexical_diversity(["x"] * 49) is None


def test_lexical_diversity_does_not_fall_with_length():
    rng = random.Random(0)
    short, long = (lexical_diversity(rng.choices("abcdefghijklmnopqrstuvwxyz", k=size)) for size in (2000, 40000))
    assert short == pytest.approx(long, rel=0.02)


def test_shingles():
    assert shingles("a b c d") == {"a b c", "b c d"}
    assert shingles("A b") == {"a b"}


def test_near_duplicates_are_found_and_none_is_invented():
    rng = random.Random(1)
    texts = [" ".join(rng.choices([f"w{i}" for i in range(500)], k=40)) for _ in range(300)]
    changed = texts[7].split()
    changed[20] = "other"  # 3 of 38 shingles differ on each side: Jaccard 35 / 41
    result = near_duplicates([*texts, texts[3], " ".join(changed)])
    assert [i for i, near in enumerate(result) if near] == [3, 7, 300, 301]
    half = " ".join(texts[5].split()[:20] + texts[6].split()[20:])
    assert not any(near_duplicates([*texts, half]))


def test_the_row_of_a_training_set(run_script, tmp_path):
    rows = [("one two three", "a b"), ("four", "c d e f"), ("one two three", "a b")]
    pl.DataFrame(rows, schema=["instruction", "response"], orient="row").write_parquet(tmp_path / "train.parquet")
    run_script(measure_dataset, data=tmp_path / "train.parquet", dataset="d", rows=3, output=tmp_path / "properties.parquet")
    row = pl.read_parquet(tmp_path / "properties.parquet").row(0, named=True)
    assert row == {"dataset": "d", "rows": 3, **properties(rows)}
    assert (row["instruction_words"], row["response_words"], row["response_characters"]) == pytest.approx((7 / 3, 8 / 3, 13 / 3))
    assert row["near_duplicates"] == pytest.approx(2 / 3) and row["lexical_diversity"] is None and row["n"] == 3
