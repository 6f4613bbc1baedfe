"""The effect of a run on logits and weights is what the files say, and a run without one is named."""

import dataclasses
import logging

import pytest
import torch

from helpers.processes import forked, shard_on_the_cpu
from helpers.tiny import make, weights
from sft_atlas.measure import weight_change
from sft_atlas.models.base_model import load_model
from sft_atlas.models.size import largest_relative_update
from sft_atlas.train import checkpointing, effect

LORA = {"method": "lora", "learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8}}


@pytest.fixture(scope="module")
def case(tiny_tokenizer, tmp_path_factory):
    return make("llama", tmp_path_factory.mktemp("base") / "llama", tiny_tokenizer)


def change_of_logits(case, folder, dtype="float32"):
    """Mean and largest, from the published checkpoint."""
    base, tuned = load_model(case.base, dtype=dtype), load_model(case.base, folder, dtype=dtype)
    changes = []
    for sample in case.samples.kept:
        ids = torch.tensor([sample.ids[: sample.first + effect.POSITIONS]])
        with torch.no_grad():
            changes.append((tuned(ids).logits - base(ids).logits)[0, -effect.POSITIONS :].abs())
    changes = torch.cat(changes)
    return changes.mean().item(), changes.max().item()


@pytest.mark.parametrize("recipe", [{}, LORA, LORA | {"lora": {"rank": 4, "alpha": 8, "dora": True}}], ids=["full", "lora", "dora"])
def test_the_change_of_logits_is_that_of_the_published_weights(case, tmp_path, recipe):
    facts, folder = case.train(tmp_path / "run", **recipe)
    mean, largest = change_of_logits(case, folder)
    assert facts["logit_change_mean"] == pytest.approx(mean, rel=1e-3) and facts["logit_change_max"] == pytest.approx(largest, rel=1e-3)
    assert facts["logit_dtype"] == "float32" and effect.moved(facts) and mean > 1e-3


@pytest.mark.parametrize("recipe", [{}, LORA], ids=["full", "lora"])
def test_the_change_of_weights_is_that_of_the_published_weights(case, tmp_path, recipe):
    facts, folder = case.train(tmp_path / "run", **recipe, save_epochs="all", lr_scheduler_type="constant")
    base, squares = weights(case.base.path), []
    for epoch in (folder.parent / "epoch-1", folder):
        if recipe:
            names = [name for name in base if name.endswith("_proj.weight")]
            tuned = {name: value for name, value in load_model(case.base, epoch).state_dict().items() if name in names}
        else:
            names, tuned = list(base), weights(epoch)
        squares.append(
            [sum(f(name).square().sum().item() for name in names) for f in (lambda n, t=tuned: t[n] - base[n], lambda n: base[n])]
        )
    first, last = ((update / whole) ** 0.5 for update, whole in squares)
    close = {"rel": 0.1 if not recipe else 1e-3}  # full: from a sample of the elements
    assert facts["weight_change_first_epoch"] == pytest.approx(first, **close) and facts["weight_change"] == pytest.approx(last, **close)
    assert first < last < largest_relative_update(case.settings(**recipe, lr_scheduler_type="constant"), 8, 32) * 2
    assert (facts["weights_changed"] is None) == bool(recipe)
    rows = weight_change.layer_changes(case.base.path, folder)
    assert facts["weight_change"] == pytest.approx(max(row["relative_change"] for row in rows if row["component"] == "all"), rel=0.5)


def test_a_run_that_did_not_move_is_named(case, tmp_path, caplog):
    base = dataclasses.replace(case, base=dataclasses.replace(case.base, dtype="bfloat16"))
    with caplog.at_level(logging.INFO):
        facts, _ = base.train(tmp_path / "still", learning_rate=1e-7)
    assert not effect.moved(facts) and facts["weights_changed"] < 0.05
    assert "still is unlikely to move the model: 2 steps at this learning rate change the weights by at most 5.7e-07" in caplog.text
    assert "still: after the first epoch the weights have changed by" in caplog.text
    assert "still did not move: logits on its own samples changed by" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert effect.moved(base.train(tmp_path / "moves", learning_rate=1e-2)[0])
    assert "move" not in caplog.text.replace("moves", "")


def test_a_base_of_sixteen_bits_is_probed_in_float32_and_left_as_it_was(case, tmp_path):
    from transformers import AutoModelForCausalLM

    half = AutoModelForCausalLM.from_pretrained(case.base.path, dtype=torch.bfloat16)
    whole = AutoModelForCausalLM.from_pretrained(case.base.path, dtype=torch.bfloat16).float()
    ids, before = torch.tensor([case.samples.kept[0].ids]), {name: value.clone() for name, value in half.state_dict().items()}
    with torch.no_grad(), effect.in_float32(half):
        logits = half(ids).logits
    assert torch.equal(logits, whole(ids).logits) and logits.dtype == torch.float32
    assert all(torch.equal(value, before[name]) and value.dtype == torch.bfloat16 for name, value in half.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in half.modules())


def test_a_resumed_run_has_the_effect_of_the_whole(case, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointing, "TIME_SHARE", 1e9)
    whole, _ = case.train(tmp_path / "whole", epochs=3)

    class Stopped(Exception):
        pass

    def stopping(self, args, state, control, **more):
        if state.global_step == 3:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(effect.EffectCallback, "on_step_end", stopping)
        case.train(tmp_path / "again", epochs=3)
    resumed, _ = case.train(tmp_path / "again", epochs=3)
    keys = [key for key in whole if key.startswith(("logit_", "weight_", "weights_", "top_"))]
    assert resumed["resumed"] and len(keys) == 8 and {key: resumed[key] for key in keys} == {key: whole[key] for key in keys}


@pytest.mark.parametrize("recipe", [{}, LORA], ids=["full", "lora"])
def test_processes_that_share_a_model_measure_what_one_measures(case, tmp_path, recipe):
    import json

    def train(rank: int) -> None:
        shard_on_the_cpu()
        facts, _ = case.train(tmp_path / "two", **recipe, gpus=2)
        (tmp_path / f"{rank}.json").write_text(json.dumps({key: facts[key] for key in facts if "change" in key}))

    forked(2, train)
    one, _ = case.train(tmp_path / "one", **recipe)
    for rank in (0, 1):
        two = json.loads((tmp_path / f"{rank}.json").read_text())
        assert two.keys() == {key for key in one if "change" in key}
        assert two == {key: value and pytest.approx(value, rel=1e-3) for key, value in one.items() if "change" in key}
