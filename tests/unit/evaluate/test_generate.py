"""Answers of a checkpoint to judged questions."""

import polars as pl


def test_answers_have_two_turns_where_an_item_has_them(answered):
    frame = pl.read_parquet(answered[0] / "answers.parquet")
    assert frame.filter(benchmark="mt").select("item", "turn").rows() == [(i, turn) for i in range(3) for turn in (1, 2)]
    assert frame.filter(benchmark="ae")["turn"].to_list() == [1] * 4
    first, second = frame.filter(benchmark="mt", item=0).iter_rows(named=True)
    assert second["prompt"] == f"{first['prompt']} {first['output'].strip()}\n\n###Question: Write {{another}}.\n###Answer:"
    assert frame["truncated"].null_count() == 0
