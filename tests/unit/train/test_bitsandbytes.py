"""QLoRA and the 8-bit optimiser, on bitsandbytes' CPU backend; and what is said where bitsandbytes is missing."""

import importlib.util
import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from helpers import tiny
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.optional_packages import how_to_install
from sft_atlas.models.base_model import load_model, nf4
from sft_atlas.study.checks import bitsandbytes_missing
from sft_atlas.study.schema import Hyperparameters, Recipe
from sft_atlas.train import hardware, memory, trainer
from sft_atlas.train.micro_batch import BatchPlan

needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
LORA = {"method": "lora", "lora": {"rank": 4, "alpha": 8}, "learning_rate": 1e-2}


@pytest.fixture
def case(tiny_tokenizer, tmp_path):
    return tiny.make("llama", tmp_path / "llama", deepcopy(tiny_tokenizer))


@needs_bitsandbytes
def test_qlora_trains_on_four_bits_and_is_scored_on_the_weights_that_it_was_trained_on(case, tmp_path):
    facts, folder = case.train(tmp_path / "state", **LORA, load_in_4bit=True, epochs=3)
    losses = tiny.losses(facts)
    assert losses[-1] < losses[0]
    plain = tiny.losses(case.train(tmp_path / "plain", **LORA, epochs=3)[0])
    assert losses[0] != plain[0]  # the base is rounded
    weights = tmp_path / "run/epoch-3/weights"
    weights.parent.mkdir(parents=True)
    folder.rename(weights)
    (tmp_path / "run/train.json").write_text(json.dumps({"settings": {"load_in_4bit": True}}))
    recipe = case.settings(**LORA, load_in_4bit=True)
    (tmp_path / "fresh").mkdir()
    made, _ = trainer.build(case.base, case.samples.kept, case.tokenizer, recipe, BatchPlan.of_recipe(recipe), tmp_path / "fresh", "x")[:2]
    layer = made.model.base_model.model.model.layers[0].mlp.up_proj.base_layer
    assert type(layer).__name__ == "Linear4bit"
    assert {parameter.dtype for parameter in made.model.parameters() if parameter.requires_grad} == {torch.float32}
    made.model.load_adapter(weights, "trained")
    made.model.set_adapter("trained")
    made.model.eval()
    found = {}
    scored, ids = load_model(case.base, weights, facts=found), torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = made.model(ids).logits
        assert (scored(ids).logits - expected).abs().max() < 1e-4 * expected.abs().max()
    assert found["adapter"] == "merged into the dequantized NF4 base and run in float32" and scored.dtype == torch.float32
    (tmp_path / "run/train.json").write_text(json.dumps({"settings": {"load_in_4bit": False}}))
    with torch.no_grad():
        assert (load_model(case.base, weights)(ids).logits - expected).abs().max() > 1e-2 * expected.abs().max()


@needs_bitsandbytes
def test_the_8_bit_optimiser_has_moments_of_eight_bits(case, tmp_path):
    recipe = case.settings(optim="adamw_8bit")
    made, _ = trainer.build(case.base, case.samples.kept, case.tokenizer, recipe, BatchPlan.of_recipe(recipe), tmp_path, "x")[:2]
    optimizer = made.create_optimizer()
    assert type(optimizer).__name__ == "AdamW" and optimizer.args.optim_bits == 8
    facts, folder = case.train(tmp_path / "eight", optim="adamw_8bit", epochs=3)
    assert tiny.losses(facts)[-1] < tiny.losses(facts)[0]
    before, after = (load_file(next(path.glob("*.safetensors"))) for path in (case.base.path, folder))
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_the_forecast_knows_four_and_eight_bits():
    shape = memory.DecoderShape.of(tiny.config("llama").to_dict())
    base = {"rows": 8, "epochs": 1, "learning_rate": 1e-3, "batch_size": 8}

    def forecast(**recipe):
        settings = Hyperparameters(**base | recipe)
        return memory.forecast(shape, settings, BatchPlan.of_recipe(settings), "bfloat16", True, 64)

    saved = forecast(method="lora").weights - forecast(method="lora", load_in_4bit=True).weights
    assert saved == pytest.approx((2 - 0.516) * shape.layers * shape.matrices, rel=1e-3)
    assert forecast(method="full").optimizer == 2 * forecast(method="full", optim="adamw_8bit").optimizer  # bfloat16 moments


def test_without_bitsandbytes_the_study_and_the_job_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    base = {"rows": 8, "epochs": 1, "learning_rate": 1e-3, "batch_size": 8}

    file = SimpleNamespace(recipes={"plain": Recipe(method="full", **base), "q": Recipe(method="lora", load_in_4bit=True, **base)})

    assert (
        bitsandbytes_missing(file)
        == f"recipes.q.load_in_4bit: bitsandbytes is not installed; {how_to_install('bitsandbytes')}, or remove the key"
    )
    file.recipes = {"e": Recipe(method="full", optim="adamw_8bit", **base)}
    assert bitsandbytes_missing(file).startswith("recipes.e.optim: bitsandbytes is not installed")
    file.recipes = {"plain": Recipe(method="full", **base)}
    assert bitsandbytes_missing(file) is None
    with pytest.raises(
        AtlasError, match=r"optim: adamw_8bit needs bitsandbytes, .*-m pip install --no-deps --require-hashes -r envs/locks/optional"
    ):
        hardware.check_kernels(Hyperparameters(method="full", optim="adamw_8bit", **base), "cpu")
    with pytest.raises(
        AtlasError, match=r"load_in_4bit needs bitsandbytes, .*-m pip install --no-deps --require-hashes -r envs/locks/optional"
    ):
        nf4(torch.float32)
