"""What the page of a checkpoint is made of: samples with their mask, settings in order, seeds apart, neighbours by distance."""

import pytest

from helpers import atlas as atlases
from helpers import synthetic
from sft_atlas.atlas import write_atlas
from sft_atlas.atlas.pages import checkpoint
from sft_atlas.tables.collect import collect


def test_a_preflight_is_cut_into_text_and_what_carries_the_loss():
    text = "Preflight of a/b/c.\n\nsamples  2\n\n--- row 0: 5 tokens\n<bos>Q: 1 + 1 =[[ 2<eos>]]\nscored prompt: the same tokens\n\n--- row 7: 3 tokens\nA[[b]]C[[d]]\n"
    assert checkpoint.preflight(text) == {
        "head": "Preflight of a/b/c.\n\nsamples  2",
        "samples": [
            ["row 0: 5 tokens", [["<bos>Q: 1 + 1 =", False], [" 2<eos>", True], ["\nscored prompt: the same tokens", False]]],
            ["row 7: 3 tokens", [["A", False], ["b", True], ["C", False], ["d", True]]],
        ],
    }


def test_settings_are_flat_and_what_is_not_set_is_left_out():
    assert checkpoint.flat({"rows": 1000, "lora": {"rank": 8, "dora": False}, "gpus": None, "dropped": []}) == [
        ["rows", "1,000"],
        ["lora rank", "8"],
        ["lora dora", "False"],
    ]


def test_every_seed_is_a_checkpoint_of_its_own(tmp_path):
    study = synthetic.study_json(models=1, datasets=2, lora=False, trajectories=False, leave_one_out=False, merged=False)
    study = synthetic.with_seeds(study, "full-256", "arith", (0, 1))
    synthetic.write(tmp_path, study)
    each_seed = {name: collect(study, name, tmp_path).frame for name in ("scores", "gains", "runs", "history", "layers", "likelihood")}
    shown = write_atlas.contents.Contents(study, each_seed, each_seed, write_atlas.contents.expected(study), root=str(tmp_path))
    table = shown.checkpoints
    place = {name: table["address"].index(f"alder-1b/arith/{name}/3") for name in ("full-256", "full-256-seed-1")}
    assert [table["seed"][i] for i in place.values()] == [0, 1] and {table["recipe"][i] for i in place.values()} == {"full-256"}
    gains = [[entry["gain"][i] for entry in table["scores"].values()] for i in place.values()]
    assert gains[0] != gains[1] and None not in gains[0] + gains[1]
    keys = ("alder-1b", "arith", "full-256-seed-1", 3)
    near = checkpoint.nearest(shown)[keys]
    assert "alder-1b/arith/full-256-seed-1/3" not in [name for name, _ in near]
    assert [distance for _, distance in near] == sorted(distance for _, distance in near)
    own = checkpoint.Files(shown).of(keys, None, None)
    assert own["command"] == "snakemake results/synthetic/runs/alder-1b/arith/full-256-seed-1/train.json"


def test_a_card_is_written_from_what_is_there_or_says_what_is_not(tmp_path):
    study = synthetic.study_json(models=1, datasets=2, trajectories=False, leave_one_out=False)
    synthetic.write(tmp_path, study)
    shown = write_atlas.contents.Contents(study, {}, {}, root=str(tmp_path))
    files = checkpoint.Files(shown)
    files.records[files.paths.fill(files.paths.model, model="alder-1b")] = {"name": "alder-1b", "provenance": {"settings": {}}}
    own = files.of(("alder-1b", "arith", "full-256", 3), None, None)
    assert "The card cannot be written: train.json or model.json lacks" in own["card"]
    assert own["preflight"] is None and ["method", "full"] in own["settings"]


@pytest.mark.parametrize("text", [*atlases.HOSTILE, "![x](http://a.b/c.png)", "[x](javascript:alert(1))", "<http://a.b>"])
def test_markdown_of_names_brings_no_markup_pictures_or_links(text):
    from sft_atlas.atlas.pages.findings import html

    made = html(f"- {text} is best")
    assert not any(f"<{name}" in made for name in ("img", "script", "svg", "a ", "b>"))
