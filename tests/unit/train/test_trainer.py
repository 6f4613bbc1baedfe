"""Training on a tiny model: steps, schedules and kept epochs, and that it is the same every time."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from transformers import LlamaConfig

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import dataset as sampling
from sft_atlas.train import trainer

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [
    {"instruction": f"Spell the word backward: {word}.", "response": word[::-1]}
    for word in ("lemon", "apple", "dog", "fox", "quick", "brown", "lazy", "over")
]


def settings(**changes):
    return Hyperparameters(**({"method": "full", "rows": 8, "epochs": 2, "learning_rate": 1e-3, "batch_size": 4} | changes))


@pytest.fixture(scope="module")
def samples(tokenizer):
    return sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256)


def train(base, samples, tokenizer, folder, **changes):
    folder.mkdir(exist_ok=True)
    facts = trainer.fine_tune(base, samples, tokenizer, settings(**changes), folder, "test")
    return facts, {int(path.name.split("-")[1]): path for path in folder.glob("epoch-*")}


def tensors(folder):
    return load_file(next(folder.glob("*.safetensors")))


def equal(one, other):
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


@pytest.mark.parametrize(("rows", "batch", "micro", "steps"), [(8, 4, None, 4), (8, 4, 2, 4), (8, 3, 1, 6), (5, 4, 1, 4)])
def test_steps_follow_the_effective_batch_size(base, samples, tokenizer, tmp_path, rows, batch, micro, steps):
    part = sampling.Samples(samples.kept[:rows], [])
    facts, _ = train(base, part, tokenizer, tmp_path / "state", batch_size=batch, micro_batch_size=micro)
    assert facts["steps"] == len([entry for entry in facts["log"] if "loss" in entry]) == steps
    assert facts["log"][-2]["epoch"] == pytest.approx(2.0)


def test_schedules_and_warm_up(base, samples, tokenizer, tmp_path):
    def rates(name, **changes):
        facts, _ = train(base, samples, tokenizer, tmp_path / name, batch_size=2, epochs=1, learning_rate=1.0e-3, **changes)
        return [float(entry["learning_rate"]) for entry in facts["log"] if "loss" in entry]

    assert rates("constant", lr_scheduler_type="constant") == pytest.approx([1e-3] * 4)
    assert rates("cosine", lr_scheduler_type="cosine") == pytest.approx([1e-3, 8.5355e-4, 5e-4, 1.4645e-4], rel=1e-3)
    assert rates("warm", lr_scheduler_type="constant", warmup_ratio=0.5) == pytest.approx([0, 5e-4, 1e-3, 1e-3])


def test_kept_epochs_are_kept_and_differ(base, samples, tokenizer, tmp_path):
    _, epochs = train(base, samples, tokenizer, tmp_path / "state", epochs=3, save_epochs=[1, 3])
    assert set(epochs) == {1, 3}
    assert not equal(tensors(epochs[1]), tensors(epochs[3]))


def test_the_kept_first_epoch_of_a_longer_constant_run_is_the_shorter_run(base, samples, tokenizer, tmp_path):
    _, longer = train(base, samples, tokenizer, tmp_path / "longer", epochs=3, save_epochs="all", lr_scheduler_type="constant")
    _, shorter = train(base, samples, tokenizer, tmp_path / "shorter", epochs=1, lr_scheduler_type="constant")
    assert equal(tensors(longer[1]), tensors(shorter[1]))


def test_adapters_are_saved_as_adapters(base, samples, tokenizer, tmp_path):
    facts, epochs = train(base, samples, tokenizer, tmp_path / "state", method="lora", lora={"rank": 2, "alpha": 4})
    saved = tensors(epochs[2])
    assert saved and all("lora_" in key for key in saved)
    assert json.loads((epochs[2] / "adapter_config.json").read_text())["r"] == 2
    assert facts["trainable_parameters"] == sum(tensor.numel() for tensor in saved.values())


def test_dora_trains_magnitudes_beside_the_factors(base, samples, tokenizer, tmp_path):
    def lora(name, **more):
        folder = train(base, samples, tokenizer, tmp_path / name, method="lora", lora={"rank": 2, "alpha": 4} | more)[1][2]
        return json.loads((folder / "adapter_config.json").read_text()), tensors(folder)

    (plain, factors), (dora, with_magnitudes) = lora("plain"), lora("dora", dora=True)
    assert not plain["use_dora"] and dora["use_dora"]
    magnitudes = with_magnitudes.keys() - factors.keys()
    assert len(magnitudes) == 14 and all("lora_magnitude_vector" in key for key in magnitudes)  # seven matrices in each of two layers
    stored = tensors(base.path)
    for key in magnitudes:  # they start as the norms of the rows, and have moved
        name = key.removeprefix("base_model.model.").replace("lora_magnitude_vector", "weight")
        moved = (with_magnitudes[key] - stored[name].float().norm(dim=1)).abs().max()
        assert 0 < moved < 0.1, key


def test_neftune_adds_noise_to_the_embeddings_in_training_only(base, samples, tokenizer, tmp_path):
    import torch
    from transformers.integrations.neftune import activate_neftune

    from sft_atlas.train.micro_batch import BatchPlan

    recipe = settings(neftune_noise_alpha=5.0)
    made, _ = trainer.build(base, samples.kept, tokenizer, recipe, BatchPlan.of_recipe(recipe), tmp_path, "test")
    activate_neftune(made.model, made.neftune_noise_alpha)  # as the trainer does when it starts
    embedding = made.model.train().get_input_embeddings()
    ids = torch.arange(3, 19)[None]
    noise = (embedding(ids) - embedding.weight[ids]).abs().max().item()
    assert 0 < noise <= 5.0 / (16 * embedding.embedding_dim) ** 0.5  # alpha / sqrt(tokens x width), the paper's equation
    made.model.eval()
    assert torch.equal(embedding(ids), embedding.weight[ids])
    noisy, plain = (
        train(base, samples, tokenizer, tmp_path / name, **more) for name, more in (("noisy", {"neftune_noise_alpha": 5.0}), ("plain", {}))
    )
    assert noisy[0]["log"][0]["loss"] != plain[0]["log"][0]["loss"]
    assert tensors(noisy[1][2]).keys() == tensors(plain[1][2]).keys()


def test_full_weights_reload_with_the_settings_of_the_base(base, samples, tokenizer, tmp_path):
    from transformers import AutoConfig

    _, epochs = train(base, samples, tokenizer, tmp_path / "state")
    config, original = AutoConfig.from_pretrained(epochs[2]), AutoConfig.from_pretrained(base.path)
    assert config.use_cache == original.use_cache and config.dtype == original.dtype
    assert tensors(epochs[2]).keys() == tensors(base.path).keys()


def test_deterministic_asks_torch_and_its_libraries_for_it_and_changes_nothing_on_a_cpu(base, samples, tokenizer, tmp_path, monkeypatch):
    import os

    import torch

    variables = (
        "CUDA_LAUNCH_BLOCKING",
        "CUBLAS_WORKSPACE_CONFIG",
        "FLASH_ATTENTION_DETERMINISTIC",
        "ASCEND_LAUNCH_BLOCKING",
        "HCCL_DETERMINISTIC",
    )
    for variable in variables:
        monkeypatch.setenv(variable, "")  # to be restored
    plain = tensors(train(base, samples, tokenizer, tmp_path / "plain")[1][2])
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        deterministic = tensors(train(base, samples, tokenizer, tmp_path / "deterministic", deterministic=True)[1][2])
        assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8" and os.environ["FLASH_ATTENTION_DETERMINISTIC"] == "1"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
    assert equal(plain, deterministic)


# ---------------------------------------------------------------- runs that diverge


def test_a_loss_that_is_not_finite_ends_the_run(base, samples, tokenizer, tmp_path):
    """Without the check, transformers logs NaN as a loss of 0.0 and trains to the end."""
    with pytest.raises(AtlasError, match=r"test: the loss is nan at optimiser step 2 of 3 \(learning rate 7.5e\+29\)") as caught:
        train(base, samples, tokenizer, tmp_path / "state", epochs=3, batch_size=8, save_epochs="all", learning_rate=1e30)
    assert f"The last good kept epoch is {tmp_path}/state/epoch-1. Lower learning_rate" in str(caught.value)
    assert "For the results of all other runs, add --config select='{without: [test]}'" in str(caught.value)
    assert not (tmp_path / "state/epoch-2").exists()


def test_a_gradient_norm_that_is_not_finite_ends_the_run(base, samples, tokenizer, tmp_path, monkeypatch):
    from trl import SFTTrainer

    monkeypatch.setattr(SFTTrainer, "_get_grad_norm", lambda *_, **__: float("inf"))
    with pytest.raises(AtlasError, match=r"the gradient norm is inf at optimiser step 1 of 4 .* No epoch was kept before\."):
        train(base, samples, tokenizer, tmp_path / "state")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_last_update_that_is_not_finite_ends_the_run(base, samples, tokenizer, tmp_path, method):
    """It shows in the weights only: loss and gradient were those before the update."""
    with pytest.raises(AtlasError, match=r"a weight is not finite after optimiser step 1 of 1 "):
        train(base, samples, tokenizer, tmp_path / "state", method=method, epochs=1, batch_size=8, learning_rate=1e39)
    assert not list((tmp_path / "state").glob("epoch-*"))


def test_a_generation_config_that_cannot_be_saved_is_reduced_to_its_ids_before_training(base, samples, tokenizer, tmp_path):
    from transformers import GenerationConfig

    shutil.copytree(base.path, tmp_path / "base")
    (tmp_path / "base/generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7], "temperature": 0.9, "top_p": 0.6}))
    facts, epochs = train(ModelFolder("warm", tmp_path / "base", "float32", False), samples, tokenizer, tmp_path / "state", epochs=1)
    saved = GenerationConfig.from_pretrained(epochs[1])
    assert set(saved.eos_token_id) == {2, 7} and saved.temperature is saved.top_p is None
    assert facts["generation_config"]["eos_token_id"] == saved.eos_token_id and "temperature" not in facts["generation_config"]
    saved.validate(strict=True)


def test_a_valid_generation_config_of_the_base_is_published_with_the_weights(base, samples, tokenizer, tmp_path):
    shutil.copytree(base.path, tmp_path / "base")
    own = {"bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "do_sample": True, "temperature": 0.9, "max_new_tokens": 99}
    (tmp_path / "base/generation_config.json").write_text(json.dumps(own))
    facts, epochs = train(ModelFolder("warm", tmp_path / "base", "float32", False), samples, tokenizer, tmp_path / "state", epochs=1)
    assert own.items() <= json.loads((epochs[1] / "generation_config.json").read_text()).items()
    assert own.items() <= facts["generation_config"].items()


def test_only_the_first_process_holds_the_base_model(tmp_path):
    """Another has parameters of the right shapes, in memory that is not written, and with the embedding as the head where they are tied."""
    sizes = {"vocab_size": 20_000, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaConfig(**sizes, tie_word_embeddings=True).save_pretrained(tmp_path)  # without weights, so that nothing can be read
    base = ModelFolder("large", tmp_path, "float32", False)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    model = trainer.load_to_train(base, settings(gpus=2), "float32", False, None, SimpleNamespace(process_index=1))
    size = sum(parameter.nbytes for parameter in model.parameters())
    assert size > 40e6 and resident() - before < size / 4
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with pytest.raises(OSError, match="safetensors"):
        trainer.load_to_train(base, settings(gpus=2), "float32", False, None, SimpleNamespace(process_index=0))
