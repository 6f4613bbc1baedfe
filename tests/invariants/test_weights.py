"""The weights: equal for equal seeds, changed only where the recipe trains, and unaffected by merging, checkpointing and kills."""

import random
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from helpers.tiny import distance, weights
from helpers.waiting import HANG
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.measure import weight_change
from sft_atlas.models.base_model import load_model
from sft_atlas.train import resume_state

METHODS = ("full", "lora")
LORA = {"method": "lora", "learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8}}


def test_the_seed_decides(case, tmp_path):
    """The same seed gives bitwise identical weights, another seed different ones."""
    first, again, other = (
        weights(case.train(tmp_path / name, batch_size=4, seed=seed)[1]) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert distance(first, again) == 0 < distance(first, other)


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_equals_unmerged(case, tmp_path, rslora):
    """A LoRA adapter merged in float32 gives the logits of the unmerged one."""
    from peft import PeftModel

    recipe = LORA | {"lora": LORA["lora"] | {"rslora": rslora}}
    _, folder = case.train(tmp_path / "run", batch_size=4, **recipe)
    ids = torch.tensor([case.samples.kept[0].ids])
    with torch.no_grad():
        base, merged = load_model(case.base), load_model(case.base, folder)
        plain, together = base(ids).logits, merged(ids).logits
        apart = PeftModel.from_pretrained(base, folder).eval()(ids).logits
    assert (together - apart).abs().max() < 1e-4 < 1e-2 < (plain - apart).abs().max()


@pytest.mark.parametrize("method", METHODS)
def test_only_the_chosen_depth_is_trained(cases, tmp_path, method):
    """`layers: [low, high]` changes the layers in that range and nothing else, full and LoRA."""
    case = cases("llama")
    _, folder = case.train(tmp_path / "run", **(LORA if method == "lora" else {}), layers=[0.6, 1.0])
    rows = weight_change.layer_changes(case.base.path, folder)
    moved = {(row["layer"], row["component"]) for row in rows if row["relative_change"] > 0}
    assert {layer for layer, _ in moved} == {1}
    assert {component for _, component in moved} >= {"q", "k", "v", "o", "gate", "up", "down", "all"}


def test_a_range_without_layers_is_refused(cases, tmp_path):
    """A range of depths without a layer is refused before training."""
    with pytest.raises(AtlasError, match=r"layers: \[0.3, 0.7\] holds none of the model's 2 layers"):
        cases("llama").train(tmp_path / "run", layers=[0.3, 0.7])


def test_frozen_embeddings_stay(case, tmp_path):
    """`freeze_embeddings` leaves the input embedding and the head unchanged and trains the rest."""
    _, folder = case.train(tmp_path / "run", freeze_embeddings=True)
    rows = weight_change.layer_changes(case.base.path, folder)
    still = {row["component"] for row in rows if row["mean_abs_change"] == 0}
    assert still == {row["component"] for row in rows} & {"embedding", "head"}


def test_activation_checkpointing_changes_nothing(case, tmp_path):
    """Activation checkpointing does not change the weights."""
    kept, recomputed = (weights(case.train(tmp_path / f"{on}", activation_checkpointing=on)[1]) for on in (False, True))
    assert distance(kept, recomputed) < 1e-6


# ---------------------------------------------------------------- kills

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from transformers import TrainerCallback
torch.set_num_threads(1)
sys.path[:0] = [{scripts!r}, {tests!r}]
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.train import checkpointing, dataset
from helpers.tiny import ROWS, TEMPLATE, Case

checkpointing.TIME_SHARE = 1e9  # a checkpoint after every epoch, also where epochs last a few milliseconds
step_end = checkpointing.CheckpointCallback.on_step_end

def killing(self, args, state, control, **more):
    if state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step_end(self, args, state, control, **more)

checkpointing.CheckpointCallback.on_step_end = killing
base = ModelFolder.read(Path({manifest!r}))
tokenizer = load_tokenizer(base)
case = Case(base, tokenizer, dataset.tokenize(ROWS, tokenizer, TEMPLATE, 256))
case.train(Path({folder!r}), **{recipe!r})
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(cases, tmp_path, method):
    """After `kill -9` at a random step, a resumed run ends with the weights of an undisturbed one, dropout and schedule included."""
    case = cases("llama")
    recipe = {"epochs": 5, "save_epochs": "all", "batch_size": 2, "weight_decay": 0.1, "warmup_ratio": 0.1}
    if method == "lora":
        recipe |= LORA | {"lora": LORA["lora"] | {"dropout": 0.2}}
    step = random.randrange(5, 20)  # 4 steps an epoch: after the first whole epoch, before the last
    folder = tmp_path / "killed"
    program = KILLED.format(
        scripts=str(ROOT / "workflow_scripts"), tests=str(ROOT / "tests"), step=step,
        manifest=str(case.base.path.parent / "llama.json"), folder=str(folder), recipe=recipe,
    )  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    assert resume_state.complete_checkpoints(folder / "trainer")[-1].name == f"checkpoint-{(step - 1) // 4 * 4}"

    resumed, last = case.train(folder, **recipe)
    whole, undisturbed = case.train(tmp_path / "undisturbed", **recipe)
    assert resumed["resumed"] and not whole["resumed"], step
    assert distance(weights(last), weights(undisturbed)) == 0, step
    rates = [[entry["learning_rate"] for entry in facts["log"] if "loss" in entry] for facts in (resumed, whole)]
    assert rates[0] == rates[1], step


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU; there is no g++ here")
def test_compiled_equals_plain(cases, tmp_path):
    """`torch.compile` gives the weights of the uncompiled run, within rounding."""
    compiled, plain = (weights(cases("llama").train(tmp_path / f"{on}", compile=on)[1]) for on in (True, False))
    assert distance(compiled, plain) < 1e-4
