"""The resolved study, which every collecting and analysing job reads."""

import io
import json

from helpers.plan_study import STUDY
from sft_atlas.core.files import read_json
from sft_atlas.study import study as studies
from sft_atlas.tables import resolve_study


def test_the_resolved_study_states_what_the_study_file_leaves_out(tmp_path, run_script, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(STUDY)))
    run_script(resolve_study, output=tmp_path / "study.json")
    resolved = read_json(tmp_path / "study.json")
    assert resolved == json.loads(json.dumps(studies.from_config(STUDY, "small.yaml").resolved()))
    assert resolved["datasets"]["all"]["members"] == ["red", "blue"]  # from `merge: "*"`
    runs = {(run["dataset"], run["recipe"]): run for run in resolved["runs"]}
    assert set(runs) == {(dataset, recipe) for dataset in ("red", "blue", "all") for recipe in ("full", "lora")} - {("all", "lora")}
    assert runs["red", "full"]["rows"] == 1000 and runs["all", "full"]["blocks"] == ["merged"]
