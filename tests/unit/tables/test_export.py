"""CSV has the same values as Parquet; lists are joined."""

import argparse

import polars as pl
from polars.testing import assert_frame_equal

from sft_atlas.tables import export


def test_csv_has_the_same_values(tmp_path):
    frame = pl.DataFrame({"model": ["a, b", 'say "x"\n=1'], "blocks": [["one", "two"], []], "score": [0.1 + 0.2, None], "n": [3, 4]})
    frame.write_parquet(tmp_path / "scores.parquet")
    export.main(argparse.Namespace(tables=[tmp_path / "scores.parquet"], output=tmp_path / "csv"))
    again = pl.read_csv(tmp_path / "csv" / "scores.csv")
    assert again["blocks"].to_list() == ["one; two", None] or again["blocks"].to_list() == ["one; two", ""]
    assert_frame_equal(again.drop("blocks"), frame.drop("blocks"))
