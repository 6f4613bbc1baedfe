"""Forecasts of memory and disk against what autograd holds, what files are written, and sizes that are known."""

import json
import random
import shutil
from types import SimpleNamespace

import pytest
import torch

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import memory
from sft_atlas.train.memory import GIB, DecoderShape
from sft_atlas.train.micro_batch import BatchPlan
from sft_atlas.train.step_batches import useful_share

LLAMA_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
SIZES = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 448, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def settings(**changes):
    return Hyperparameters(**({"method": "full", "rows": 8, "epochs": 3, "learning_rate": 1e-3, "batch_size": 8} | changes))


def config(family, layers):
    import transformers

    name, more = {
        "llama": ("LlamaConfig", {}),
        "qwen3": ("Qwen3Config", {"head_dim": 32}),
        "gemma2": ("Gemma2Config", {"head_dim": 32}),
        "gemma3": ("Gemma3TextConfig", {"head_dim": 32}),
        "olmo2": ("Olmo2Config", {}),
        "olmo": ("OlmoConfig", {}),
    }[family]
    return getattr(transformers, name)(**SIZES, **more, num_hidden_layers=layers)


def held(family, layers, recipe, autocast, packed, rows=2, length=96):
    """Bytes that autograd keeps after a forward pass of the decoder, without parameters."""
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config(family, layers)).to(getattr(torch, recipe.weights))
    if recipe.method == "lora":
        model = model.to(torch.bfloat16 if autocast else torch.float32)
        model = get_peft_model(model, LoraConfig(r=recipe.lora.rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    own, kept = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # held, so that its address is not given away again
        return tensor

    ids = torch.randint(3, 320, (rows, length))
    mask = torch.ones_like(ids)
    if not packed:
        mask[0, -1] = 0
    decoder = model.get_base_model().model if recipe.method == "lora" else model.model
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = decoder(input_ids=ids, attention_mask=mask, use_cache=False)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    return total


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("method", ["full", "full-bfloat16", "lora"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3", "olmo2", "olmo"])
def test_activations_are_what_autograd_holds(family, method, autocast):
    name, _, held_in = method.partition("-")
    if held_in and not autocast:
        return  # weights in bfloat16 are computed with in bfloat16
    for packed in (True, False):
        recipe = settings(method=name, padding_free=packed, weights=held_in or "float32")
        shape = DecoderShape.of(config(family, 2).to_dict())
        measured = held(family, 4, recipe, autocast, packed) - held(family, 2, recipe, autocast, packed)
        if autocast and method == "full":
            measured -= 2 * 2 * shape.matrices  # the casts of the weights
        dtype = "bfloat16" if autocast and method != "full" else "float32"
        forecast = 2 * 2 * 96 * memory.activations_per_token(shape, recipe, dtype, autocast, 96)
        assert forecast == pytest.approx(measured, rel=0.15), f"packed {packed}: {forecast / measured:.3f}"


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "olmo"])
def test_parameters_are_counted(family):
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(family, 3))
    assert DecoderShape.of(model.config.to_dict()).parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.01)


def test_an_8b_model_is_counted_and_forecast():
    shape = DecoderShape.of(LLAMA_8B)
    assert shape.parameters == pytest.approx(8.03e9, rel=1e-3)
    full = memory.forecast(shape, settings(batch_size=32), BatchPlan(1, 32, True), "float32", True, 2048)
    assert full.weights / GIB == pytest.approx(29.9, abs=0.1) and full.optimizer == pytest.approx(2 * full.weights)
    assert 119 < full.total / GIB < 140  # sixteen bytes a parameter, and the casts: it just fits on 139 GiB, with nothing else
    half = memory.forecast(shape, settings(batch_size=32, weights="bfloat16"), BatchPlan(4, 8, True), "bfloat16", True, 2048)
    assert 60 < half.total / GIB < 80
    lora = memory.forecast(shape, settings(method="lora", batch_size=32), BatchPlan(4, 8, False), "bfloat16", True, 2048)
    assert lora.weights / GIB == pytest.approx(15.0, abs=0.2) and lora.optimizer / GIB < 0.2


def test_full_fine_tuning_of_8b_needs_several_gpus():
    """The figures of the comment in config/paper.yaml."""
    result = []
    for gpus in (1, 2, 4):
        recipe = settings(batch_size=32, gpus=gpus)
        result.append(memory.forecast(DecoderShape.of(LLAMA_8B), recipe, BatchPlan.of(recipe, 1, True), "float32", True, 500).total / GIB)
    assert [round(total) for total in result] == [133, 65, 35]


def test_several_gpus_gather_the_head_and_reduce_its_gradient_whatever_the_accumulation():
    shape = DecoderShape.of(LLAMA_8B)
    head = 128256 * 4096

    def shared(micro=1, autocast=True, **changes):
        recipe = settings(batch_size=32, gpus=4, **changes)
        return memory.forecast(shape, recipe, BatchPlan.of(recipe, micro, True), "float32", autocast, 500)

    assert shared().casts == 2 * (2 * shape.matrices + head) and shared().reduction == (2 + 4) * head
    assert shared(autocast=False).casts == 2 * shared().casts and shared(autocast=False).reduction == 8 * head  # float32 is gathered
    assert shared(freeze_embeddings=True).reduction == 6 * shape.matrices and shared(method="lora").reduction < shape.matrices
    assert shared(micro=1).gradients == shared(micro=8).gradients == 4 * shape.parameters / 4  # sharded, also while they accumulate


def test_lora_counts_the_adapter_that_peft_makes():
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config("llama", 3))
    model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    made = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert memory.trained_elements(DecoderShape.of(config("llama", 3).to_dict()), settings(method="lora")) == made


def test_sharding_recomputation_depth_and_packing_need_less():
    shape = DecoderShape.of(LLAMA_8B)

    def total(micro=8, again=False, **changes):
        recipe = settings(batch_size=32, **changes)
        return memory.forecast(shape, recipe, BatchPlan.of(recipe, micro, again), "float32", True, 1024).total

    assert total(again=True) < total() and total(micro=4) < total() and total(gpus=4) < total()
    assert total(layers=[0.5, 1.0]) < total() and total(freeze_embeddings=True) < total() and total(padding_free=True) < total()


def test_the_first_micro_batch_is_the_largest_that_is_forecast_to_fit():
    shape, recipe = DecoderShape.of(LLAMA_8B), settings(method="lora", batch_size=64)

    def first(available):
        return memory.largest_plan_that_fits(shape, recipe, BatchPlan.of(recipe, 64, False), "bfloat16", True, 2048, available * GIB, "x")

    chosen = first(139)
    assert 1 < chosen.micro_batch_size < 64
    assert memory.forecast(shape, recipe, chosen, "bfloat16", True, 2048).total < 139 * GIB * memory.USABLE
    larger = BatchPlan.of(recipe, chosen.micro_batch_size * 2, False)
    assert memory.forecast(shape, recipe, larger, "bfloat16", True, 2048).total > 139 * GIB * memory.USABLE
    assert first(1) == BatchPlan.of(recipe, 1, True)  # tried all the same: the forecast decides nothing but where to begin


def test_a_config_that_is_no_such_decoder_is_said_to_be_none(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "num_attention_heads": 4, "hidden_size": 8, "num_hidden_layers": 1})
    )
    with pytest.raises(AtlasError, match="no 'intermediate_size'"):
        DecoderShape.read(tmp_path)
    base = ModelFolder("gpt2", tmp_path, "float32", False)
    assert memory.describe(base, settings(), 100, "cpu").startswith("not forecast (config.json has no")


# ---------------------------------------------------------------- disk


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_written_is_what_was_forecast(tiny_base, tmp_path, monkeypatch, method):
    from sft_atlas.models.base_model import load_tokenizer
    from sft_atlas.train import checkpointing, dataset, trainer

    monkeypatch.setattr(checkpointing, "TIME_SHARE", 1e9)  # a state after every epoch
    base = ModelFolder.read(tiny_base)
    tokenizer = load_tokenizer(base)
    rows = [{"instruction": "a b c", "response": str(i)} for i in range(8)]
    result = dataset.tokenize(rows, tokenizer, {"prompt": "{instruction}", "response": " {response}"}, 256)
    recipe = settings(method=method, save_epochs="all")
    trainer.fine_tune(base, result, tokenizer, recipe, tmp_path, "x")

    def size(pattern):
        return sum(path.stat().st_size for path in tmp_path.glob(pattern))

    epoch, state = size("epoch-2/*.safetensors"), size("trainer/checkpoint-2/*.safetensors") + size("trainer/checkpoint-2/optimizer.*")
    states = sorted(path.name for path in (tmp_path / "trainer").glob("checkpoint-*"))
    assert states == ["checkpoint-1", "checkpoint-2"]  # the newest, and the one before it should that be damaged
    assert memory.resume_checkpoint_bytes(base, recipe) == pytest.approx(state, rel=0.35)
    assert memory.disk_bytes(base, recipe) == pytest.approx(3 * epoch + 2 * state, rel=0.35)


def test_a_full_disk_ends_the_job_before_it_trains(tiny_base, tmp_path, monkeypatch):
    base, recipe = ModelFolder.read(tiny_base), settings(save_epochs="all", epochs=10)
    memory.check_disk(base, recipe, tmp_path, "m/d/r")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(AtlasError, match=r"m/d/r writes up to 2.2 MiB below .*, where there is room for 1000 bytes; make room"):
        memory.check_disk(base, recipe, tmp_path, "m/d/r")
    (tmp_path / "epoch-1").write_bytes(b"x" * 10**7)  # of an interrupted attempt
    memory.check_disk(base, recipe, tmp_path, "m/d/r")


# ---------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("again", [False, True])
def test_the_forecast_is_within_15_percent_of_the_measured_peak(tmp_path, tiny_tokenizer, method, again):
    from transformers import AutoModelForCausalLM, LlamaConfig

    from sft_atlas.train import dataset, trainer

    size = {"hidden_size": 2048, "intermediate_size": 7168, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 4}
    AutoModelForCausalLM.from_config(LlamaConfig(**size, vocab_size=32000)).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    base = ModelFolder("large", tmp_path / "base", "bfloat16", False)
    result = dataset.Samples([dataset.Sample(i, [i + 3, *range(10, 1033)], 512) for i in range(16)], [])
    recipe = settings(method=method, batch_size=8, micro_batch_size=4, epochs=1, activation_checkpointing=again)
    torch.cuda.reset_peak_memory_stats()
    facts = trainer.fine_tune(base, result, tiny_tokenizer, recipe, tmp_path, "x")
    forecast = memory.forecast(DecoderShape.read(base.path), recipe, BatchPlan(4, 2, again), facts["dtype"], True, 1024)
    assert forecast.total / 2**20 == pytest.approx(facts["peak_device_memory_mib"], rel=0.15), str(forecast)


@pytest.mark.parametrize(
    ("recipe", "goal"), [({"method": "full", "batch_size": 32, "gpus": 4}, 0.75), ({"method": "lora", "batch_size": 128}, 0.92)]
)
def test_a_smaller_micro_batch_is_taken_where_much_would_be_padding(recipe, goal):
    """Log-normal lengths, as instruction data has them (sigma 0.8)."""
    rng = random.Random(0)
    lengths = [min(2048, round(120 * rng.lognormvariate(0, 0.8)) + 8) for _ in range(1000)]
    settings = Hyperparameters(rows=1000, epochs=1, learning_rate=1e-5, **recipe)
    largest = BatchPlan.of_recipe(settings)
    plan = memory.with_useful_tokens(largest, settings, lengths)
    share = [useful_share(lengths, settings.batch_size, settings.gpus, one.micro_batch_size) for one in (largest, plan)]
    assert share[0] < goal <= share[1] and plan.micro_batch_size < largest.micro_batch_size
    assert memory.with_useful_tokens(plan, settings, lengths) == plan
    packed = settings.model_copy(update={"padding_free": True})
    assert memory.with_useful_tokens(largest, packed, lengths) == largest
    settings = Hyperparameters(rows=1000, epochs=1, learning_rate=1e-5, method="full", batch_size=32, gpus=4)
    one_long = [2000] + [10] * 31  # three processes wait for it with every micro-batch
    assert memory.with_useful_tokens(BatchPlan(8, 1, False), settings, one_long) == BatchPlan(8, 1, False)
