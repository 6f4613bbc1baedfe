"""Training sets: cleaned and sampled."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256
from sft_atlas.data import fetch_dataset, prepare_dataset
from sft_atlas.study.schema import Dataset


def pairs(*rows, source=None):
    """A frame of instruction, response and source from (instruction, response) tuples."""
    schema = {"instruction": pl.String, "response": pl.String, "source": pl.String}
    return pl.DataFrame([(*row, source) for row in rows], schema=schema, orient="row")


def numbered(count):
    return pairs(*((f"question {i}", f"answer {i}") for i in range(count)))


def dataset(**settings):
    return Dataset(path="rows.jsonl", **settings)


def test_rows_are_dropped_with_the_count_of_each_reason():
    frame = pairs((" a ", " b\n"), ("", "b"), (None, "b"), ("a", "  "), ("a", None), ("a", "None"), ("x", "none"), ("a", "b"), ("a", "c"))
    kept, dropped = prepare_dataset.clean(frame, dataset(drop_responses=["NONE "]))
    assert kept.select("instruction", "response").rows() == [("a", "b"), ("a", "c")]
    assert dropped == {"empty instruction": 2, "empty response": 2, "unwanted response": 2, "repeated row": 1}


def test_no_response_is_dropped_unless_the_study_says_so():
    kept, dropped = prepare_dataset.clean(pairs(("a", "none")), dataset())
    assert len(kept) == 1
    assert dropped["unwanted response"] == 0


def test_a_smaller_sample_is_part_of_a_larger_one_and_starts_it():
    frame = numbered(100)
    small, large = (prepare_dataset.sample(frame, rows, seed=3, allow_fewer=False, name="x", dropped={}) for rows in (10, 60))
    assert small.equals(large[:10])
    assert large["instruction"].n_unique() == 60


def test_a_sample_depends_on_the_seed_alone():
    frame = numbered(100)
    first, again, other = (prepare_dataset.sample(frame, 20, seed, False, "x", {})["instruction"].to_list() for seed in (0, 0, 1))
    assert first == again != other
    assert first != frame["instruction"].to_list()[:20]


def test_too_few_rows_are_an_error_with_both_numbers_the_reasons_and_two_remedies():
    message = (
        r"datasets\.x: 6 rows are needed, 5 are left after cleaning \(dropped: 3 repeated row\); lower `rows` or set `allow_fewer: true`"
    )
    with pytest.raises(AtlasError, match=message):
        prepare_dataset.sample(numbered(5), 6, 0, allow_fewer=False, name="datasets.x", dropped={"empty response": 0, "repeated row": 3})


@pytest.mark.parametrize("allow_fewer", [False, True])
def test_no_row_at_all_is_always_an_error_that_says_why_rows_were_dropped(allow_fewer):
    kept, dropped = prepare_dataset.clean(pairs(("", "b"), (None, "b"), ("a", "None")), dataset(drop_responses=["none"]))
    with pytest.raises(AtlasError, match=r"x: no row is left .*\(dropped: 2 empty instruction, 1 unwanted response\); check `columns`"):
        prepare_dataset.sample(kept, 4, 0, allow_fewer, "datasets.x", dropped)


def test_allow_fewer_takes_all_there_are():
    found = prepare_dataset.sample(numbered(5), 6, 0, allow_fewer=True, name="datasets.x", dropped={})
    assert sorted(found["instruction"]) == sorted(numbered(5)["instruction"])


def test_a_file_becomes_a_sample_with_its_provenance(tmp_path, run_script):
    source, rows = tmp_path / "rows.jsonl", [{"q": f"q{i % 7}", "a": "None" if i == 3 else f"a{i % 7}"} for i in range(9)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = dataset(columns={"instruction": "q", "response": "a"}, drop_responses=["none"]).model_dump_json(exclude_defaults=True)
    raw, sample = tmp_path / "toy/source.parquet", tmp_path / "toy/4/train.parquet"
    run_script(fetch_dataset, name="toy", entry=entry, path=source, output=raw)
    run_script(prepare_dataset, name="toy", rows=4, entry=entry, input=raw, output=sample)
    assert len(pl.read_parquet(sample)) == 4
    manifest = json.loads((sample.parent / "manifest.json").read_text())
    assert manifest["dropped"] == {"empty instruction": 0, "empty response": 0, "unwanted response": 1, "repeated row": 2}
    assert (manifest["rows"], manifest["rows_available"], manifest["sources"]) == (4, 6, {"unknown": 4})
    assert manifest["sha256"] == sha256(sample)
    assert manifest["inputs"]["toy"]["sha256"] == sha256(raw)
