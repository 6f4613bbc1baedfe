"""Checkpoints that were trained elsewhere, in the study file: what is refused, and what becomes of them in the study."""

import copy
import json
import types

import pytest

from sft_atlas.core.errors import ConfigError
from sft_atlas.data import pin_revisions
from sft_atlas.study import checks
from sft_atlas.study import study as studies
from sft_atlas.study.paths import Paths, checkpoints, result_files
from sft_atlas.study.places import ConfigSources
from sft_atlas.study.runs import BASE
from sft_atlas.train.inputs import TrainInputs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ALONE = {
    "study": "alone",
    "models": {"ant": {"path": "models/ant"}, "bee": {"path": "models/bee"}},
    "benchmarks": {"quiz": {"path": "quiz.jsonl", "task": "quiz.yaml"}},
    "suites": {"short": {"benchmarks": ["quiz"]}},
    "checkpoints": {
        "mine": {"model": "ant", "path": "out/full"},
        "zephyr": {
            "model": "bee",
            "hub": "team/zephyr",
            "revision": COMMIT,
            "method": "lora",
            "dataset": "ultrachat",
            "rows": 9,
            "seed": 3,
        },
    },
}
TRAINED = {
    "datasets": {"red": {"path": "red.jsonl"}},
    "recipes": {"full": {"method": "full", "rows": 8, "epochs": 2, "learning_rate": 1e-3, "batch_size": 4}},
    "blocks": {"single": {"models": ["ant"], "datasets": "*", "recipes": ["full"]}},
}


def study(checkpoints=None, **more):
    config = copy.deepcopy(ALONE) | copy.deepcopy(more)
    config["checkpoints"] = config["checkpoints"] if checkpoints is None else checkpoints
    return studies.from_config(config, "mine.yaml")


def one(**entry):
    return {"zephyr": {"model": "bee", "hub": "team/zephyr", "revision": COMMIT, "method": "full"} | entry}


def test_a_study_may_have_nothing_but_base_models_and_outside_checkpoints():
    alone = study()
    assert not alone.runs and [each.key for each in alone.outside.values()] == [("ant", "unknown", "mine"), ("bee", "ultrachat", "zephyr")]
    places = [(each.model, each.dataset, each.recipe, each.epoch) for each in alone.checkpoints]
    assert places == [("ant", BASE, BASE, 0), ("bee", BASE, BASE, 0), ("ant", "unknown", "mine", 1), ("bee", "ultrachat", "zephyr", 1)]
    assert not alone.is_adapter("mine") and alone.is_adapter("zephyr")


def test_unknown_facts_are_null_in_the_resolved_study_and_its_files_are_those_of_a_run():
    resolved = json.loads(json.dumps(study().resolved()))
    mine, zephyr = resolved["runs"]
    assert [mine[key] for key in ("rows", "epochs", "seed", "schedule")] == [None] * 4 and mine["settings"] == {"method": "full"}
    assert (zephyr["rows"], zephyr["epochs"], zephyr["seed"]) == (9, None, 3)
    assert zephyr["outside"] == {"hub": "team/zephyr", "revision": COMMIT}
    assert checkpoints(resolved) == list(study().checkpoints)
    assert not result_files(resolved, "history", "results") and not result_files(resolved, "perplexity", "results")
    (first, second) = result_files(resolved, "runs", "results")
    assert (
        str(second.path) == Paths("results").fill("results/runs/{model}/ultrachat/zephyr/train.json", model="bee")
        and first.keys["dataset"] == "unknown"
    )
    assert resolved["datasets"]["unknown"]["foreign"] and resolved["recipes"]["zephyr"]["method"] == "lora"


def test_trained_runs_and_outside_checkpoints_are_selected_alike():
    assert not study(**TRAINED, select={"blocks": ["single"]}).outside
    other = study(**TRAINED, select={"models": ["bee"]})
    assert not other.runs and list(other.outside) == [("bee", "ultrachat", "zephyr")] and other.models == ("bee",)
    assert [key[2] for key in study(select={"seeds": [3]}).outside] == ["zephyr"]
    assert [key[2] for key in study(select={"without": ["ant/unknown/mine"]}).outside] == ["zephyr"]


def test_a_release_leaves_out_what_others_trained_unless_the_study_says_otherwise():
    plain, outside, atlas = (
        TrainInputs(study(**TRAINED, release=says), Paths("results"))
        for says in ({}, {"outside": True}, {"checkpoints": False, "space": "me/atlas"})
    )
    assert [each.recipe for each in plain.released] == ["full"] and plain.not_released == ["mine", "zephyr"]
    assert [each.recipe for each in outside.released] == ["full", "mine", "zephyr"] and outside.not_released == []
    assert atlas.released == [] == atlas.not_released


WRONG = {
    "no source": ({"z": {"model": "bee"}}, {}, "checkpoints.z: give exactly one of hub, path"),
    "no model": ({"z": {"path": "p"}}, {}, "checkpoints.z: model is missing; name the base model"),
    "no revision": (one(revision=None), {}, "checkpoints.zephyr: hub and revision belong together"),
    "no method": (one(method=None), {}, "checkpoints.zephyr: method is missing; state full or lora"),
    "unknown base": (one(model="be"), {}, "checkpoints.zephyr.model: there is no model 'be'; did you mean 'bee'?"),
    "unknown key": (one(datset="x"), {}, "checkpoints.zephyr.datset: unknown key; did you mean 'dataset'?"),
    "merged": (
        one(merged=True),
        {},
        "checkpoints.zephyr: merged means that an adapter was merged into full weights; it needs method: lora",
    ),
    "rows": (one(rows=0), {}, "checkpoints.zephyr.rows: "),
    "base": (one(dataset="base"), {}, "checkpoints.zephyr.dataset: the name 'base' is reserved"),
    "a recipe's name": ({"Full": one()["zephyr"]}, TRAINED, "checkpoints.Full: the name is that of a recipe; choose another"),
    "another's name": (
        {**one(), "b": {"model": "bee", "path": "p", "recipe": "zephyr"}},
        {},
        "checkpoints.b.recipe: the name is that of another",
    ),
    "another method": (
        {"a": {**one(recipe="r", dataset="x")["zephyr"]}, "b": {**one(recipe="r", dataset="y", method="lora")["zephyr"]}},
        {},
        "checkpoints.b.method: is lora, but checkpoints.a, of the same recipe, has full; correct one",
    ),
    "same run": (
        {name: one(recipe="r", dataset="x", seed=seed)["zephyr"] for name, seed in (("a", 1), ("b", None))},
        {},
        "checkpoints.b: has base model, dataset and recipe of checkpoints.a; state a different `seed` for each",
    ),
    "a trained run": (
        {"z": {"model": "ant", "path": "p", "method": "full", "recipe": "full", "dataset": "red"}},
        TRAINED,
        "checkpoints.z.recipe: the name is that of a recipe of this study; choose another",
    ),
    "reserved set": (
        {"z": {"model": "ant", "path": "p"}},
        TRAINED | {"datasets": {"unknown": {"path": "x"}, "red": {"path": "y"}}},
        "datasets.unknown: the name is that",
    ),
    "nothing at all": (
        {},
        {},
        "blocks: this key is required and missing; state what is trained, `checkpoints` that were trained elsewhere",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_entries_that_cannot_be_meant_are_refused(kind):
    given, more, said = WRONG[kind]
    given = {name: {key: value for key, value in entry.items() if value is not None} for name, entry in given.items()}
    with pytest.raises(ConfigError) as caught:
        study(given, **more)
    assert said in str(caught.value)


def test_a_problem_has_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("study: x\nmodels: {ant: {path: p}}\ncheckpoints:\n  zephyr:\n    model: ant\n    path: q\n    epochs: none\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:7:5: checkpoints.zephyr.epochs: "):
        studies.load(path)


def test_a_stated_method_that_is_not_that_of_the_files_is_refused_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("full", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "full/config.json").write_text("{}")
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    found = study({name: {"model": "ant", "path": name} for name in ("full", "adapter")})
    assert [each.method for each in found.outside.values()] == ["full", "lora"]
    from sft_atlas.study.outside import contradictions

    wrong = study(
        {"full": {"model": "ant", "path": "full", "method": "lora"}, "adapter": {"model": "ant", "path": "adapter", "method": "full"}}
    )
    one, other = contradictions(wrong.file, wrong.path)
    assert "checkpoints.full.method: is lora, but full holds no adapter_config.json; correct it to full, or add `merged: true`" in one
    assert "checkpoints.adapter.method: is full, but adapter holds an adapter" in other


def test_a_branch_is_named_and_can_be_pinned(tmp_path, monkeypatch):
    branch = study(one(revision="main"))
    assert checks.unpinned(branch.file) == ["checkpoints.zephyr"]
    path = tmp_path / "mine.yaml"
    config = copy.deepcopy(ALONE) | {"checkpoints": one(revision="main")}
    path.write_text(json.dumps(config))
    monkeypatch.setattr(pin_revisions.hub, "resolve_commit", lambda kind, repository, revision: COMMIT)
    path.write_text(path.read_text().replace('"', ""))
    pin_revisions.main(types.SimpleNamespace(study=path))
    assert checks.unpinned(studies.load(path).file) == []


# ---------------------------------------------------------------- many at once, from a table


def table(tmp_path, text, **rest):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    return study({"many": {"from": str(tmp_path / "list.csv"), "model": "ant", **rest}})


def test_a_table_stands_for_its_lines_and_the_entry_for_what_they_leave_empty(tmp_path):
    text = "name,path,method,model,rows,learning_rate,merged\na1,out/a,full,,1000,1e-5,\n\nb2,out/b,lora,bee,,,true\n"
    found = table(tmp_path, text, dataset="chat").outside
    assert list(found) == [("ant", "chat", "a1"), ("bee", "chat", "b2")]
    first, second = found.values()
    assert first.facts() == {"method": "full", "rows": 1000, "learning_rate": 1e-5}
    assert second.facts() == {"method": "lora", "merged": True} and not second.is_adapter


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,path,row\na,b,1\n", "list.csv, line 1, column row: unknown column; did you mean 'rows'?"),
        ("path\nb\n", "list.csv, line 1, column name: is required and missing"),
        ("name,path,rows\na,b,1\nc,d,many\n", "list.csv, line 3, column rows: Input should be a valid integer"),
        ("name,path,method\na,b,fully\n", "list.csv, line 2, column method: Input should be 'full' or 'lora'"),
        ("name,path\na,b\na,c\n", "list.csv, line 3, column name: 'a' is there twice (first in line 2)"),
        ("name,path\n../a,b\n", "list.csv, line 2, column name: '../a' is no name"),
        ("name,path\na,b,c\n", "list.csv, line 2, column path: the line has 3 cells, the header 2"),
        ("name,path\na,\n", "list.csv, line 2, column name: give exactly one of hub, path"),
        ("name,path\n", "list.csv has no line below its header"),
        ("", "list.csv, line 1, column name: is required and missing"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_line_and_column(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, text)
    assert said in str(caught.value) and str(caught.value).startswith("mine.yaml: checkpoints.many.from: ")


def test_a_problem_of_a_table_names_the_line_of_the_study_file_too(tmp_path):
    (tmp_path / "list.csv").write_text("name,path\na,b\na,c\n")
    path = tmp_path / "mine.yaml"
    path.write_text(f"study: x\ncheckpoints:\n  many:\n    from: {tmp_path / 'list.csv'}\n    model: ant\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:4:5: checkpoints.many.from: .*list.csv, line 3, column name"):
        studies.load(path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"from": "absent.csv"}, "checkpoints.many.from: there is no absent.csv"),
        ({"from": {"hub": "x"}}, "checkpoints.many.from.hub_collection: this key is required and missing"),
        ({"from": "a.csv", "hub": "team/x", "revision": COMMIT}, "hub belongs to one checkpoint, but from stands for many"),
        ({"from": 3}, "checkpoints.many.from: "),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(entry, said):
    with pytest.raises(ConfigError) as caught:
        study({"many": entry})
    assert said in str(caught.value)


def test_names_of_lists_and_entries_may_not_meet(tmp_path):
    (tmp_path / "list.csv").write_text("name,path\nmine,b\n")
    given = {"mine": {"model": "ant", "path": "p"}, "many": {"from": str(tmp_path / "list.csv"), "model": "ant"}}
    with pytest.raises(ConfigError, match=r"checkpoints.many: the name 'mine' is there twice"):
        studies.from_config(copy.deepcopy(ALONE) | {"checkpoints": given}, ConfigSources([]))


def test_a_packed_study_names_the_checkpoints_of_a_list_one_by_one(tmp_path):
    (tmp_path / "list.csv").write_text("name,path,epochs\nfirst,a,3\nsecond,b,\n")
    given = {"many": {"from": str(tmp_path / "list.csv"), "model": "ant", "method": "full"}}
    made = studies.from_config(copy.deepcopy(ALONE) | {"checkpoints": given}, ConfigSources([]))
    (tmp_path / "list.csv").unlink()  # as in another clone
    again = studies.from_config(json.loads(made.file.model_dump_json(exclude_defaults=True)), ConfigSources([]))
    assert list(again.outside) == [("ant", "unknown", "first"), ("ant", "unknown", "second")] and again.outside == made.outside
