"""Renamed parts of a study take over their results, with Snakemake's records, and a dry run undoes it."""

import copy
import hashlib
import json

import polars as pl
import pytest

from sft_atlas.core import snakemake_records
from sft_atlas.core.files import write_json
from sft_atlas.study import study as studies
from sft_atlas.study import takeover
from sft_atlas.study.paths import Paths

PRETRAIN = {"architecture": "llama", "mixture": {"prose": 1}}
STUDY = {
    "study": "s",
    "models": {"m": {"label": "M", "pretrain": PRETRAIN}},
    "datasets": {
        "a": {"tasks": {"prose": 1}, "size": 9},
        "b": {"tasks": {"prose": 1}, "size": 9, "seed": 1},
        "both": {"merge": ["a", "b"]},
    },
    "benchmarks": {"t": {"task": "config/benchmarks/generate.yaml", "tasks": {"prose": 1}, "size": 4}},
    "suites": {"one": {"benchmarks": ["t"]}},
    "recipes": {"full": {"method": "full", "rows": 4, "epochs": 1, "learning_rate": 1e-3, "batch_size": 2}},
    "blocks": {
        "merged": {"models": "*", "datasets": ["both"], "recipes": ["full"]},
        "single": {"models": "*", "datasets": "*", "recipes": ["full"]},
        "out": {"models": "*", "datasets": ["both"], "recipes": ["full"], "leave_one_out": True},
    },
}


def edited(*renames, **changes):
    """The study with other names, ``("recipes", "full", "new")``, and in a recipe other settings."""
    study = copy.deepcopy(STUDY)
    for kind, old, new in renames:
        study[kind] = {new if name == old else name: entry for name, entry in study[kind].items()}
        for block in study["blocks"].values():
            if kind in block and block[kind] != "*":
                block[kind] = [new if name == old else name for name in block[kind]]
        if kind == "datasets":
            for entry in study["datasets"].values():
                entry |= {"merge": [new if name == old else name for name in entry["merge"]]} if "merge" in entry else {}
    for recipe in study["recipes"].values():
        recipe |= changes
    return studies.from_config(study, "study")


FORMER = studies.from_config(STUDY, "study").resolved()


@pytest.mark.parametrize(
    ("study", "names"),
    [
        (edited(), {}),
        (edited(("recipes", "full", "new")), {"recipes": {"full": "new"}}),
        (edited(("recipes", "full", "new"), label="New"), {"recipes": {"full": "new"}}),
        (edited(("recipes", "full", "new"), micro_batch_size=1), {"recipes": {"full": "new"}}),
        (edited(("recipes", "full", "new"), learning_rate=2e-3), {}),
        (edited(("models", "m", "n"), ("suites", "one", "two")), {"models": {"m": "n"}, "suites": {"one": "two"}}),
        (
            edited(("datasets", "a", "c"), ("datasets", "both", "all")),
            {"datasets": {"a": "c", "both": "all", "without-a": "without-c"}},
        ),
    ],
    ids=["same", "recipe", "and label", "and memory", "and rate", "model, suite", "member, merge"],
)
def test_a_new_name_with_the_settings_of_one_that_is_gone_is_a_rename(study, names):
    assert takeover.renames(FORMER, study) == names


NAMES = {"models": {"m": "n"}, "datasets": {"a": "c"}, "recipes": {"full": "new"}, "suites": {"one": "two"}}


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ("runs/m/a/full/epoch-1/scores/one.parquet", "runs/n/c/new/epoch-1/scores/two.parquet"),
        ("runs/m/a/full/epoch-1/weights", "runs/n/c/new/epoch-1/weights"),
        ("runs/one/full/a/train.json", "runs/one/full/a/train.json"),
        ("runs/m/base/base/epoch-0/samples/one.parquet", "runs/n/base/base/epoch-0/samples/two.parquet"),
        ("data/a/4/train.parquet", "data/c/4/train.parquet"),
        ("perplexity/m/a.parquet", "perplexity/n/c.parquet"),
        ("suites/one.json", "suites/two.json"),
        ("state/judgements/m/a/full/epoch-1/one.jsonl", "state/judgements/n/c/new/epoch-1/two.jsonl"),
        ("benchmarks/one/test.jsonl", "benchmarks/one/test.jsonl"),
        ("tables/full.parquet", "tables/full.parquet"),
    ],
)
def test_a_result_has_its_place_under_the_names_of_today(former, today):
    assert takeover.place(former, NAMES) == today


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A finished run on `a`, its scores, a merge of which `a` is a member, and a table, with records."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "results/s"
    frames = {
        "data/a/4/train.parquet": {"instruction": ["m"], "response": ["a"]},
        "data/both/4/train.parquet": {"instruction": ["m"], "response": ["a"]},
        "runs/m/a/full/epoch-1/scores/one.parquet": {
            "model": ["m"],
            "dataset": ["a"],
            "recipe": ["full"],
            "suite": ["one"],
            "score": [0.5],
        },
        "tables/overlap.parquet": {"dataset": ["a/4"]},
    }
    for path, frame in frames.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(frame).write_parquet(root / path)
    run = root / "runs/m/a/full"
    data = {"path": "results/s/data/a/4/train.parquet"}
    write_json(run / "train.json", {"model": "m", "dataset": "a", "recipe": "full", "inputs": {"data": data}})
    (run / "preflight.txt").write_text("m/a/full: 3 samples\n")
    (run / "epoch-1/weights").mkdir()
    (run / "epoch-1/weights/model.safetensors").write_bytes(b"weights")
    (root / "study.json").write_text(json.dumps(FORMER))
    known = f"sha256:{hashlib.sha256((run / 'train.json').read_bytes()).hexdigest()}"

    def record(*inputs, **more):
        return {"rule": "any", "input": sorted(f"results/s/{path}" for path in inputs), "params": [], "log": [], **more}

    trained = record("data/a/4/train.parquet")
    snakemake_records.write(
        {
            f"results/s/{path}": made
            for path, made in {
                "data/a/4/train.parquet": record("data/a/source.parquet"),
                "data/both/4/train.parquet": record("data/a/4/train.parquet", "data/b/4/train.parquet"),
                "runs/m/a/full/train.json": trained,
                "runs/m/a/full/preflight.txt": trained,
                "runs/m/a/full/epoch-1/weights": trained,
                "runs/m/a/full/epoch-1/scores/one.parquet": record(
                    "runs/m/a/full/train.json", input_checksums={"results/s/runs/m/a/full/train.json": known}
                ),
                "tables/overlap.parquet": record("data/a/4/train.parquet"),
            }.items()
        }
    )
    return root


def snapshot(root):
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    return files, snakemake_records.read()


RENAMED = (("datasets", "a", "c"), ("recipes", "full", "new"), ("suites", "one", "two"))


def test_results_and_records_are_at_the_new_places_and_say_the_new_names(results):
    before = snapshot(results)
    taken = takeover.take_over(edited(*RENAMED), Paths("results/s"))
    assert taken.lines[0] == "dataset c takes over the finished results of a, which has equal settings" and len(taken.lines) == 3
    run = results / "runs/m/c/new"
    scores = pl.read_parquet(run / "epoch-1/scores/two.parquet")
    assert scores.row(0, named=True) == {"model": "m", "dataset": "c", "recipe": "new", "suite": "two", "score": 0.5}
    assert json.loads((run / "train.json").read_text())["inputs"]["data"]["path"] == "results/s/data/c/4/train.parquet"
    assert (run / "preflight.txt").read_text() == "m/c/new: 3 samples\n"
    assert (run / "epoch-1/weights/model.safetensors").samefile(results / "runs/m/a/full/epoch-1/weights/model.safetensors")
    assert (run / "train.json").stat().st_mtime_ns == (results / "runs/m/a/full/train.json").stat().st_mtime_ns
    records = snakemake_records.read()
    assert records["results/s/runs/m/c/new/epoch-1/weights"]["input"] == ["results/s/data/c/4/train.parquet"]
    known = records["results/s/runs/m/c/new/epoch-1/scores/two.parquet"]["input_checksums"]
    assert known == {"results/s/runs/m/c/new/train.json": f"sha256:{hashlib.sha256((run / 'train.json').read_bytes()).hexdigest()}"}
    assert records["results/s/data/both/4/train.parquet"]["input"] == [
        "results/s/data/b/4/train.parquet",
        "results/s/data/c/4/train.parquet",
    ]
    # A table has the former name in it, so it must be made again.
    assert records["results/s/tables/overlap.parquet"] == before[1]["results/s/tables/overlap.parquet"]
    assert before[0].items() <= snapshot(results)[0].items()  # the former results are as they were
    taken.undo()
    assert snapshot(results) == before


def test_finished_it_is_a_move_that_can_be_made_back(results):
    before = snapshot(results)
    takeover.take_over(edited(*RENAMED), Paths("results/s")).finish()
    assert not (results / "runs/m/a").exists() and not (results / "data/a").exists()
    assert not [output for output in snakemake_records.read() if "/a/" in output]
    takeover.take_over(edited(), Paths("results/s")).finish()
    assert json.loads((results / "study.json").read_text())["recipes"] == FORMER["recipes"]
    after = snapshot(results)
    assert before[1] == after[1] and before[0].keys() == after[0].keys()
    assert pl.read_parquet(results / "runs/m/a/full/epoch-1/scores/one.parquet")["dataset"].to_list() == ["a"]


def test_nothing_is_taken_over_where_the_new_place_is_in_use_or_the_result_is_incomplete(results):
    (results / "runs/m/c/new").mkdir(parents=True)
    (results / "runs/m/c/new/train.json").write_text("{}")
    before = snapshot(results)
    assert takeover.take_over(edited(*RENAMED), Paths("results/s")).lines == []
    assert snapshot(results) == before
    snakemake_records._store(snakemake_records.FOLDER)._mark_incomplete("results/s/data/a/4/train.parquet", None)
    takeover.take_over(edited(("datasets", "a", "d")), Paths("results/s"))
    assert not (results / "data/d/4/train.parquet").exists() and (results / "runs/m/d/full/train.json").exists()
