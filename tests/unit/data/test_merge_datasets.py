"""A merged training set is the samples of its members."""

import json

import polars as pl

from sft_atlas.core import job
from sft_atlas.data import merge_datasets


def test_a_merged_set_is_its_members_in_order(tmp_path):
    paths = [tmp_path / name / "2/train.parquet" for name in ("red", "blue")]
    for path, name in zip(paths, ("red", "blue"), strict=True):
        path.parent.mkdir(parents=True)
        pl.DataFrame({"instruction": [f"{name} 0", f"{name} 1"], "response": "x", "source": name}).write_parquet(path)
    output = tmp_path / "both/2/train.parquet"
    words = ["--name", "both", "--rows", "2", "--inputs", *map(str, paths), "--output", str(output)]
    merge_datasets.main(job.parser(merge_datasets).parse_args(words))
    assert pl.read_parquet(output)["instruction"].to_list() == ["red 0", "red 1", "blue 0", "blue 1"]
    manifest = json.loads((output.parent / "manifest.json").read_text())
    assert manifest["sources"] == {"blue": 2, "red": 2}
    assert manifest["settings"]["members"] == ["red", "blue"]


def test_conversations_and_single_exchanges_are_merged(tmp_path):
    paths = [tmp_path / name / "1/train.parquet" for name in ("red", "blue")]
    for path, more in zip(paths, ({}, {"messages": "[]"}), strict=True):
        path.parent.mkdir(parents=True)
        pl.DataFrame({"instruction": ["q"], "response": "x", "source": "s"} | more).write_parquet(path)
    output = tmp_path / "both/1/train.parquet"
    words = ["--name", "both", "--rows", "1", "--inputs", *map(str, paths), "--output", str(output)]
    merge_datasets.main(job.parser(merge_datasets).parse_args(words))
    assert pl.read_parquet(output)["messages"].to_list() == [None, "[]"]
