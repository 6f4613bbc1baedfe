"""Rows that are held out are never trained, whatever the order, the number and the seed of those that are."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.data import hold_out, prepare_dataset


def source(path, rows):
    schema = {"instruction": pl.String, "response": pl.String, "source": pl.String}
    pl.DataFrame([(*row, None) for row in rows], schema=schema, orient="row").write_parquet(path)
    return path


def both(run_script, folder, rows, entry, size=100, file=None):
    """The training rows and the held-out rows of a source."""
    given = {
        "name": "x",
        "rows": size,
        "entry": json.dumps({"path": "x", "allow_fewer": True} | entry),
        "input": source(folder / "s.parquet", rows),
    }
    run_script(prepare_dataset, **given, **({"holdout": file} if file else {}), output=folder / "train.parquet")
    run_script(hold_out, **given, **({"file": file} if file else {}), output=folder / "holdout.parquet")
    return pl.read_parquet(folder / "train.parquet"), pl.read_parquet(folder / "holdout.parquet")


ROWS = [(f"question {i}", f"answer {i}") for i in range(1000)]


def test_a_share_is_held_out_by_content_and_duplicates_stay_together(run_script, tmp_path):
    variants = [(f" QUESTION  {i}", f"another answer {i}") for i in range(1000)]
    train, held = both(run_script, tmp_path, ROWS + variants, {"holdout": 0.1}, size=2000)
    assert 150 <= len(held) <= 200 and len(train) >= 1600
    numbers = [{text.split()[1] for text in frame["instruction"]} for frame in (train, held)]
    assert not numbers[0] & numbers[1]
    assert json.loads((tmp_path / "manifest.json").read_text())["dropped"]["held out"] == 2000 - len(train)
    again, same = both(run_script, tmp_path, ROWS[::-1] + variants, {"holdout": 0.1, "seed": 7}, size=2000)
    assert {text.split()[1] for text in same["instruction"]} <= numbers[1] | {str(i) for i in range(1000)} - numbers[0]
    assert set(again["instruction"]) == set(train["instruction"])
    larger, _ = both(run_script, tmp_path, ROWS + variants, {"holdout": 0.2}, size=2000)
    assert set(larger["instruction"]) < set(train["instruction"])


def test_no_more_rows_are_held_out_for_the_loss_than_the_share_of_the_sample(run_script, tmp_path):
    train, held = both(run_script, tmp_path, ROWS, {"holdout": 0.1}, size=50)
    assert (len(train), len(held)) == (50, 5) and not set(train["instruction"]) & set(held["instruction"])


def test_a_file_is_used_whole_and_its_instructions_are_not_trained(run_script, tmp_path):
    file = tmp_path / "held.jsonl"
    listed = [{"instruction": "Question 3", "response": "x"}, {"instruction": "new", "response": "y"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in listed))
    train, held = both(run_script, tmp_path, ROWS[:10], {"holdout": str(file)}, file=file)
    assert held["instruction"].to_list() == ["Question 3", "new"]
    assert len(train) == 9 and "question 3" not in set(train["instruction"])
    record = json.loads((tmp_path / "holdout.json").read_text())
    assert record["rows"] == 2 and record["inputs"]["file"]["path"] == str(file)


def test_a_holdout_without_rows_is_an_error(run_script, tmp_path):
    with pytest.raises(AtlasError, match=r"datasets\.x\.holdout: 1e-06 of the rows leaves no row to validate on"):
        both(run_script, tmp_path, ROWS[:5], {"holdout": 1e-6})


def test_a_holdout_that_leaves_nothing_to_train_is_an_error(run_script, tmp_path):
    with pytest.raises(AtlasError, match=r"no row is left after cleaning \(dropped: 5 held out\)"):
        both(run_script, tmp_path, ROWS[:5], {"holdout": 0.999999})


def test_nothing_is_different_without_a_holdout(run_script, tmp_path):
    given = {"name": "x", "rows": 20, "entry": json.dumps({"path": "x"}), "input": source(tmp_path / "s.parquet", ROWS)}
    run_script(prepare_dataset, **given, output=tmp_path / "train.parquet")
    assert "held out" not in json.loads((tmp_path / "manifest.json").read_text())["dropped"]
