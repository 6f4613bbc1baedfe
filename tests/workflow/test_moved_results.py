"""Finished results stay finished where they are copied, moved, packed and unpacked; what was changed does not."""

import copy
import gzip
import json
import shutil
import subprocess

import polars as pl

from helpers.folders import fresh

STAGES = ("all", "data", "train", "scores", "tables", "figures")
SCORES = "runs/llama-strings/spelling/lora/epoch-2/scores/tasks.parquet"


def cp(source, target):
    """What people do: new time stamps, in the order of copying."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)


def test_a_copied_clone_needs_nothing_and_scores_with_its_own_weights(finished, tmp_path):
    cp(finished.path, tmp_path / "first")
    cp(tmp_path / "first", tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    second = finished.at(tmp_path / "second")
    assert "results/small was copied or moved here: restored the time stamps of" in second.run("-n", *STAGES)
    assert not second.planned(*STAGES)
    before = pl.read_parquet(second.result(SCORES))
    second.result(SCORES).unlink()
    second.run(f"results/small/{SCORES}")
    assert pl.read_parquet(second.result(SCORES)).drop("seconds", strict=False).equals(before.drop("seconds", strict=False))


def test_a_file_that_was_edited_in_a_copy_makes_what_it_makes_in_the_original(finished, tmp_path):
    cp(finished.path, tmp_path / "new-times")
    planned = []
    for folder in (finished.at(tmp_path / "new-times"), finished.copy(tmp_path / "old-times")):
        sample = folder.result("data/spelling/24/train.parquet")
        pl.read_parquet(sample).reverse().write_parquet(sample)
        planned.append(folder.planned())
    assert planned[0] == planned[1] and planned[0]["measure_dataset"] == 1 and planned[0]["merge_datasets"] == 2
    assert "prepare_dataset" not in planned[0] and "pretrain_demo_model" not in planned[0]


def test_results_alone_can_be_moved_into_another_clone(finished, tmp_path):
    clone = fresh(tmp_path / "clone", copy.deepcopy(finished.study))
    (clone.path / "results").mkdir()
    cp(finished.result(""), tmp_path / "sent")
    (tmp_path / "sent").rename(clone.result(""))
    assert not clone.planned(*STAGES)
    clone.study["recipes"]["lora"]["learning_rate"] = 1e-3  # settings are compared as before
    clone.write(clone.study)
    assert clone.planned("train") == {"train_lora": 4}


def test_an_archive_without_weights_is_unpacked_elsewhere_and_needs_nothing(finished, tmp_path):
    cp(finished.path, tmp_path / "packed")
    packed = finished.at(tmp_path / "packed")
    printed = packed.run("pack", "--config", "pack={weights: false}")
    assert "Not in it: weights" in printed and "results/small.tar: " in printed
    clone = fresh(tmp_path / "clone", finished.study)
    subprocess.run(["tar", "-xf", packed.path / "results/small.tar"], cwd=clone.path, check=True)
    shutil.copy(clone.result("study.yaml"), clone.path / "study.yaml")
    assert not list(clone.result("").rglob("*.safetensors"))
    assert not clone.planned()


def test_no_result_names_the_folder_in_which_it_was_made(finished):
    """Logs do: they say where a job ran."""
    named = []
    for path in finished.result("").rglob("*"):
        if path.is_dir() or path.is_relative_to(finished.result("logs")):
            continue
        if path.suffix == ".parquet":
            content = json.dumps(pl.read_parquet(path).to_dicts(), default=str).encode()
        else:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if any(str(folder).encode() in content for folder in (finished.path, finished.path.resolve())):
            named.append(str(path))
    assert not named
    assert json.loads(finished.result("models/llama-strings/model.json").read_text())["path"] == "weights"
