"""A training set from a local file, as the jobs after it read it."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, sha256
from sft_atlas.data import fetch_benchmark, fetch_dataset, hub, records

ROWS = [{"question": f"{i} + {i}?", "answer": 2 * i, "kind": "sums" if i % 2 else "other"} for i in range(6)]


@pytest.fixture
def fetch(tmp_path, run_script):
    """Fetch the rows from a file; gives the table and its manifest."""
    source, output = tmp_path / "rows.jsonl", tmp_path / "toy/source.parquet"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(**entry):
        run_script(fetch_dataset, name="toy", entry=json.dumps({"path": "rows.jsonl", **entry}), path=source, output=output)
        return pl.read_parquet(output), json.loads((output.parent / "manifest.json").read_text()), source

    return call


def test_columns_are_normalised_and_the_source_is_recorded(fetch):
    columns = {"instruction": "question", "response": "answer"}
    frame, manifest, source = fetch(columns=columns, filter={"kind": ["sums"]}, split="train[:4]")
    assert frame.rows() == [("1 + 1?", "2", None), ("3 + 3?", "6", None)]
    assert frame.columns == ["instruction", "response", "source"]
    assert manifest["rows"] == 2 and manifest["settings"]["columns"] == columns
    assert manifest["inputs"]["source"]["sha256"] == sha256(source)


def test_a_missing_column_is_an_error_that_names_the_key_of_the_study_file(fetch):
    with pytest.raises(AtlasError, match=r"^datasets\.toy: no column 'instruction'; the columns are question, answer, kind"):
        fetch()


def test_a_saved_dataset_is_a_source_with_a_hash_of_its_files(tmp_path, run_script):
    from datasets import Dataset

    def fetch(rows):
        Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
        run_script(fetch_dataset, name="toy", entry='{"path": "saved"}', path=tmp_path / "saved", output=tmp_path / "toy/source.parquet")
        return json.loads((tmp_path / "toy/manifest.json").read_text())["inputs"]["source"]["sha256"]

    hashes = [fetch([{"instruction": "a", "response": text}]) for text in ("b", "c")]
    assert pl.read_parquet(tmp_path / "toy/source.parquet").rows() == [("a", "c", None)]
    assert hashes[0] != hashes[1]


@pytest.fixture
def hub_dataset(tmp_path, run_script, monkeypatch):
    """A function that fetches rows of a hub whose `main` is a commit, both given."""

    def fetch(rows, commit="a" * 40, revision="main", job=fetch_dataset, output="toy/source.parquet", **entry):
        monkeypatch.setattr(hub, "resolve_commit", lambda kind, repository, asked: commit if asked == "main" else asked)
        monkeypatch.setattr(records, "_from_hub", lambda source: pl.DataFrame(rows))
        entry = {"hub": "team/toy", "revision": revision, **entry}
        run_script(job, name="toy", entry=json.dumps(entry), output=tmp_path / output)
        return tmp_path / output

    return fetch


@pytest.mark.parametrize(
    ("job", "output", "entry"),
    [(fetch_dataset, "toy/source.parquet", {}), (fetch_benchmark, "toy/test.jsonl", {"task": "config/benchmarks/generate.yaml", "columns": {"response": "response"}})],
    ids=["dataset", "benchmark"],
)  # fmt: skip
def test_what_the_hub_gives_again_is_what_it_gave_before_or_an_error(hub_dataset, job, output, entry):
    rows, other = ([{"instruction": "1 + 1", "response": answer}] for answer in ("2", "3"))
    kind = {"job": job, "output": output, **entry}
    written = hub_dataset(rows, **kind)
    record = written.with_name("manifest.json")
    before = read_json(record)["fetched"]
    assert (before["hub"], before["revision"], before["commit"]) == ("team/toy", "main", "a" * 40)
    hub_dataset(rows, **kind)
    content = written.read_bytes()
    with pytest.raises(
        AtlasError, match=r"toy: content \(\w+\) of team/toy at a{40} is not what was fetched before .* delete that of `datasets`"
    ):
        hub_dataset(other, **kind)
    with pytest.raises(
        AtlasError, match=rf"main of team/toy was commit a{{40}} when it was fetched before, and is b{{40}} now.*delete {record}"
    ):
        hub_dataset(other, commit="b" * 40, **kind)
    assert written.read_bytes() == content
    hub_dataset(other, revision="b" * 40, **kind)  # the study names another commit
