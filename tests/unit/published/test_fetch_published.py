"""The CSV of published scores: downloaded and checked, or a local file."""

import hashlib
import json

import pytest
import yaml

from sft_atlas.core.errors import AtlasError, ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.published import fetch_published, inputs
from sft_atlas.study.study import from_config


def test_an_unreachable_address_says_which_key_to_set(tmp_path):
    with pytest.raises(AtlasError, match="published_csv: path/to"):
        fetch_published.download(f"file://{tmp_path}/nothing.csv", wait=0)


def test_a_changed_download_is_an_error(tmp_path):
    (tmp_path / "changed.csv").write_text("a,b\n")
    with pytest.raises(AtlasError, match="sha256"):
        fetch_published.download(f"file://{tmp_path}/changed.csv", wait=0)
    right = hashlib.sha256(b"a,b\n").hexdigest()
    assert fetch_published.download(f"file://{tmp_path}/changed.csv", right, wait=0) == b"a,b\n"


def test_a_local_file_that_is_absent_is_an_error():
    assert inputs.local_csv(None) == []
    assert inputs.absent_csv(None) == inputs.absent_csv(__file__) == []
    assert inputs.absent_csv("no/such.csv")[0].startswith("published_csv: there is no file no/such.csv")


def test_the_key_is_no_part_of_the_resolved_study():
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    plain, named = from_config(config, "demo"), from_config(config | {"published_csv": "some.csv"}, "demo")
    assert named.file.published_csv == "some.csv"
    assert plain.resolved() == named.resolved() and plain.file.model_dump_json() == named.file.model_dump_json()
    with pytest.raises(ConfigError, match="results/published"):
        from_config(config | {"study": "published"}, "demo")


def test_a_local_file_is_copied_and_said_to_be_another_than_the_authors(run_script, tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    run_script(fetch_published, path=tmp_path / "mine.csv", output=tmp_path / "out/scores.csv")
    assert (tmp_path / "out/scores.csv").read_text() == "a,b\n1,2\n"
    record = json.loads((tmp_path / "out/scores.json").read_text())
    assert (record["source"], record["authors_file"]) == (str(tmp_path / "mine.csv"), False)
    assert record["sha256"] == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
