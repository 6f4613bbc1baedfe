"""Answers in the atlas: as they were given, bounded, with what is left out listed, and prompts of the base model once."""

import json

import polars as pl
import pytest

from helpers import atlas as atlases
from helpers import synthetic
from sft_atlas.atlas import contents, site
from sft_atlas.atlas.pages import answers
from sft_atlas.core.errors import AtlasError
from sft_atlas.tables.collect import collect


@pytest.fixture
def study(tmp_path):
    """The contents of a small study on disk, with texts in the answers of a base model and a checkpoint."""
    made = synthetic.study_json(models=1, datasets=2, lora=False, trajectories=False, leave_one_out=False, merged=False)
    root = tmp_path / "study"
    synthetic.write(root, made)
    for checkpoint in ("base/base/epoch-0", "arith/full-256/epoch-3"):
        atlases.with_answers(root, f"alder-1b/{checkpoint}", "short", "sums", atlases.HOSTILE_ANSWERS)
    tables = {name: collect(made, name, root).frame for name in ("scores", "gains")}
    return contents.Contents(made, tables, tables, contents.expected(made), root=str(root))


def written(study, folder):
    with site.Site(folder, "study", []) as made:
        answers.add(made, study)
        made.finish()
    return atlases.unpacked(folder, "answers")


def test_answers_are_those_of_the_samples_and_prompts_are_kept_once(study, tmp_path):
    index = written(study, tmp_path / "atlas")
    assert index["benchmarks"]["sums"]["items"] == index["benchmarks"]["sums"]["shown"] == synthetic.ITEMS
    assert index["absent"] == index["left_out"] == [] and index["benchmarks"]["sums"]["graded"] is False
    place = study.checkpoints["address"].index("alder-1b/arith/full-256/3")
    base, own = (atlases.unpacked(tmp_path / "atlas", f"answers/0/{number}") for number in (0, place))
    samples = pl.read_parquet(f"{study.root}/runs/alder-1b/arith/full-256/epoch-3/samples/short.parquet").filter(
        pl.col("benchmark") == "sums"
    )
    assert own["score"] == samples["score"].to_list() and own["item"] == list(range(synthetic.ITEMS))
    assert own["output"][0] == atlases.HOSTILE_ANSWERS[0] and own["output"][2] == atlases.HOSTILE_ANSWERS[2]
    assert own["output"][4] == ["x" * answers.CHARACTERS, 20_000]
    assert own["truncated"][2] is True and own["parsed"][3] == 0
    assert set(own["prompt"]) == {None} and base["prompt"][0].startswith("Question 0")


@pytest.mark.parametrize(
    ("target", "output", "parsed", "shown"),
    [
        ("2", '{" brother": -20.9, " son": -3.5, " uncle": -22.7}', None, "uncle"),
        ("2", '{" a": -1.0, " b": -2.0}', None, "2"),
        ("2", '{" a": -1.0, " a": -1.0, " b": -2.0}', None, "b"),
        ("0", '{"a": "written by a model"}', 1.0, "0"),
        ("1", "{not JSON", None, "1"),
        ("27", "27", 1.0, "27"),
        (None, None, None, None),
        ("²", '{" a": -1.0, " b": -2.0}', None, "²"),
    ],
)
def test_the_target_of_options_is_the_text_of_the_right_one(target, output, parsed, shown):
    assert answers.target_text(target, output, parsed) == shown


def test_a_data_file_holds_no_text_of_a_model_as_it_is(study, tmp_path):
    written(study, tmp_path / "atlas")
    for path in (tmp_path / "atlas/data/answers").rglob("*.js"):
        assert not set(path.read_text(encoding="utf-8")) & set("<>\u2028\u2029\u202e")


def test_larger_studies_are_bounded_and_say_what_is_left_out(study, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "CHECKPOINTS", 2)
    monkeypatch.setattr(answers, "ITEMS", 7)
    index = written(study, tmp_path / "atlas")
    assert index["benchmarks"]["sums"]["shown"] == 7 and index["benchmarks"]["sums"]["items"] == synthetic.ITEMS
    kept = [study.checkpoints["address"][place] for place in index["benchmarks"]["sums"]["checkpoints"]]
    assert kept == ["alder-1b/base/base/0", "alder-1b/arith/full-256/3"], "base models, then last checkpoints"
    assert sorted([*kept, *index["left_out"]]) == sorted(study.checkpoints["address"])
    items = atlases.unpacked(tmp_path / "atlas", "answers/0/0")["item"]
    assert items[0] == 0 and items[-1] == synthetic.ITEMS - 1 and len(items) == 7


def test_a_lost_file_of_samples_is_listed_and_a_damaged_one_an_error(study, tmp_path):
    root = f"{study.root}/runs/alder-1b/algebra/full-256/epoch-3/samples"
    for suite in ("short", "long"):
        (tmp_path / root / f"{suite}.parquet").unlink()
    assert written(study, tmp_path / "atlas")["absent"] == ["alder-1b/algebra/full-256/3"]
    (tmp_path / root / "short.parquet").write_bytes(b"PAR1")
    with pytest.raises(AtlasError, match=r"short\.parquet"):
        written(study, tmp_path / "again")


def test_without_results_there_are_no_answers(tmp_path):
    study, tables = atlases.paper_grid(models=1, datasets=1, epochs=1)
    shown = contents.Contents(study | {"suites": {}}, tables, tables, contents.expected(study))
    assert written(shown, tmp_path / "atlas")["benchmarks"] == {}


@pytest.mark.parametrize(("count", "most", "places"), [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (0, 3, [])])
def test_items_are_spread_evenly(count, most, places):
    assert answers.spread(count, most) == places


def test_a_prompt_of_its_own_stays():
    base = {"item": [0, 2], "prompt": ["a", "b"], "target": ["1", "2"]}
    own = {"item": [0, 1, 2], "prompt": ["a", "b", "c"], "target": ["1", "2", "2"]}
    assert answers.without_repeats(own, base) == {"item": [0, 1, 2], "prompt": [None, "b", "c"], "target": [None, "2", None]}
    assert json.dumps(answers.cut(None)) == "null"
