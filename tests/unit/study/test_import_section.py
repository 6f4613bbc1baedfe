"""The section `imported_scores`: mistakes end the call before any job, and names of checkpoints mean what they say."""

import json

import pytest

from helpers.plan_study import STUDY
from sft_atlas.core.errors import ConfigError
from sft_atlas.study import imports
from sft_atlas.study import study as studies


def study(**entry):
    return studies.from_config({**STUDY, "imported_scores": {"theirs": {"file": "theirs.csv", "format": "csv", **entry}}}, "small.yaml")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "xlsx"}, r"imported_scores\.theirs\.format: .*'xlsx'"),
        ({"unit": "percents"}, r"imported_scores\.theirs\.unit"),
        ({"checkpoint": "x", "format": "lm-eval"}, r"checkpoint: format lm-eval has no such columns"),
        ({"facts": {"model": "base"}, "format": "leaderboard"}, r"facts: format leaderboard has no such columns"),
        ({"facts": {"dataset": "set"}}, r"facts: model is missing"),
        ({"facts": {"model": "base"}, "checkpoints": {"x": "ant"}}, r"exactly one of facts, checkpoints"),
        ({"benchmarks": {"a": {"benchmark": "a", "filter": "none"}}}, r"benchmarks\.a\.filter: only lm-eval's files"),
        ({"benchmarks": {"a": {"metric": "acc"}}}, r"benchmarks\.a\.benchmark"),
        ({"checkpoints": {"x": "ent"}}, r"checkpoints\.x: 'ent' is no checkpoint of this study; did you mean 'ant'\?"),
        ({"checkpoints": {"x": "ant/red/full/epoch-4"}}, r"'ant/red/full/epoch-4' is no checkpoint of this study"),
        ({"checkpoints": {"x": {"run": "ant", "dataset": "red"}}}, r"run says everything"),
        ({"checkpoints": {"x": {"dataset": "red"}}}, r"exactly one of run, model"),
        ({"checkpoints": {"x": {"model": "ant", "epoch": 3}}}, r"dataset: say what it was trained on"),
        ({"colour": "red"}, r"colour: unknown key"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_key(entry, message):
    with pytest.raises(ConfigError, match=message):
        study(**entry)


def test_names_of_checkpoints_mean_base_models_runs_and_others(tmp_path, monkeypatch):
    known = {
        "a": "ant", "b": "ant/red/full", "c": "ant/red/full/epoch-5", "d": {"model": "bee", "dataset": "honey", "method": "lora", "seed": 3}, "e": {"model": "bee"},
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.yaml").write_text("metric_list: [{metric: !function metrics.judged}]\nfilter_list: [{name: strict}]\n")
    made = study(checkpoints=known)
    stated = json.loads(imports.settings(made))["theirs"]
    assert stated["metrics"] == {"quiz": {"text": "judged", "metric": "judged", "filter": "strict"}}
    found = stated["checkpoints"]
    assert found["a"] == {"model": "ant", "dataset": "base", "recipe": "base", "epoch": 0}
    assert found["b"] == {"model": "ant", "dataset": "red", "recipe": "full", "epoch": 10}
    assert found["c"] == {"model": "ant", "dataset": "red", "recipe": "full", "epoch": 5}
    assert found["d"] == {
        "model": "bee",
        "dataset": "honey",
        "recipe": "imported-lora",
        "method": "lora",
        "rows": None,
        "epoch": 1,
        "seed": 3,
    }
    assert found["e"]["dataset"] == "base" and found["e"]["method"] == "base"


ELSEWHERE = {
    "zephyr": {"model": "ant", "path": "out/zephyr", "method": "lora", "dataset": "ultrachat", "recipe": "theirs", "seed": 3},
    "plain": {"model": "ant", "path": "out/plain", "method": "full"},
}


def test_a_name_of_a_checkpoint_that_was_trained_elsewhere_means_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.yaml").write_text("metric_list: [{metric: acc}]\n")
    known = {"org/zephyr": "zephyr", "org/same": {"run": "ant/ultrachat/zephyr/epoch-1"}, "org/plain": "ant/unknown/plain"}
    config = {**STUDY, "checkpoints": ELSEWHERE, "imported_scores": {"theirs": {"file": "x.csv", "format": "csv", "checkpoints": known}}}
    found = json.loads(imports.settings(studies.from_config(config, "small.yaml")))["theirs"]["checkpoints"]
    assert found["org/zephyr"] == found["org/same"] == {"model": "ant", "dataset": "ultrachat", "recipe": "zephyr", "epoch": 1}
    assert found["org/plain"] == {"model": "ant", "dataset": "unknown", "recipe": "plain", "epoch": 1}
    config["imported_scores"] = {"theirs": {"file": "x.csv", "format": "csv"}}  # names of the file that are those of the study
    assert json.loads(imports.settings(studies.from_config(config, "small.yaml")))["theirs"]["own"]["zephyr"] == found["org/zephyr"]
    config["imported_scores"]["theirs"]["checkpoints"] = {"org/zephyr": "zefyr"}
    with pytest.raises(ConfigError, match=r"checkpoints\.org/zephyr: 'zefyr' is no checkpoint of this study; did you mean 'zephyr'\?"):
        studies.from_config(config, "small.yaml")


def test_a_name_that_is_a_base_model_and_a_checkpoint_is_refused_where_it_is_used():
    theirs = {"theirs": {"file": "x.csv", "format": "csv", "checkpoints": {"x": "ant"}}}
    config = {**STUDY, "checkpoints": {"ant": ELSEWHERE["plain"]}, "imported_scores": theirs}
    with pytest.raises(ConfigError, match="'ant' is a base model and an entry of `checkpoints`; write ant/base/base or ant/unknown/ant"):
        studies.from_config(config, "small.yaml")
    theirs["theirs"]["checkpoints"] = {"x": "ant/unknown/ant", "y": "ant/base/base"}
    studies.from_config(config, "small.yaml")


def test_a_checkpoint_that_select_leaves_out_keeps_its_facts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.yaml").write_text("metric_list: [{metric: acc}]\n")
    known = {"a": "ant", "b": "ant/red/full", "c": "zephyr"}
    config = {**STUDY, "checkpoints": ELSEWHERE, "imported_scores": {"theirs": {"file": "x.csv", "format": "csv", "checkpoints": known}}}
    config |= {"models": {**STUDY["models"], "bee": {"path": "models/bee"}}, "select": {"models": ["bee"]}}
    found = json.loads(imports.settings(studies.from_config(config, "small.yaml")))["theirs"]["checkpoints"]
    assert found["a"]["method"] == "base"
    assert found["b"].items() >= {"recipe": "full", "method": "full", "epoch": 10}.items() and found["b"]["rows"] is not None
    assert found["c"] == {"model": "ant", "dataset": "ultrachat", "recipe": "theirs", "epoch": 1, "method": "lora", "rows": None, "seed": 3}


def test_files_that_are_not_there_are_named(tmp_path):
    made = study(file=str(tmp_path / "theirs.csv"))
    assert imports.absent(made.file, made.path) == [
        f"imported_scores.theirs.file: there is no {tmp_path}/theirs.csv; correct the path, or put it there"
    ]
    (tmp_path / "theirs.csv").mkdir()
    assert "is a folder; name the file" in imports.absent(made.file, made.path)[0]
    made = study(file=str(tmp_path / "theirs.csv"), format="lm-eval")
    assert "holds no results*.json of lm-eval" in imports.absent(made.file, made.path)[0]


def test_the_files_of_one_results_file_are_its_own_samples(tmp_path):
    for name in ("results_1.json", "samples_a_1.jsonl", "results_2.json", "samples_a_2.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    entry = study(format="lm-eval").file.imported_scores["theirs"]
    assert imports.files(str(tmp_path / "results_1.json"), entry) == [
        str(tmp_path / name) for name in ("results_1.json", "samples_a_1.jsonl")
    ]
    assert len(imports.files(str(tmp_path), entry)) == 4


def test_a_change_of_an_import_leaves_the_settings_of_runs_alone():
    plain, with_import = studies.from_config(STUDY, "small.yaml"), study()
    assert plain.runs == with_import.runs and plain.checkpoints == with_import.checkpoints


def test_a_study_needs_something_to_train_or_to_import_and_what_that_uses():
    only = {"study": "only", "imported_scores": {"theirs": {"file": "theirs.csv", "format": "csv"}}}
    made = studies.from_config(only, "only.yaml")
    assert made.runs == {} and made.checkpoints == () and made.resolved()["models"] == {}
    with pytest.raises(ConfigError, match="blocks: this key is required and missing; state what is trained, `checkpoints`"):
        studies.from_config({"study": "only"}, "only.yaml")
    for part, missing in (("blocks", "recipes"), ("models", "suites")):
        with pytest.raises(ConfigError, match=f"{missing}: this key is required and missing; `{part}` use what it defines"):
            studies.from_config({key: value for key, value in STUDY.items() if key != missing}, "small.yaml")
