"""Base models and checkpoints as they are loaded: merged adapters, full weights, missing files, padding."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder, is_adapter, load_model, load_tokenizer


@pytest.fixture(scope="module")
def base(tiny_base):
    return ModelFolder.read(tiny_base)


@pytest.fixture(scope="module")
def model(base):
    return load_model(base)


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter with random factors, and the logits of base and adapter unmerged."""
    folder, ids = tmp_path_factory.mktemp("adapter"), torch.arange(3, 40)[None]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        tuned = get_peft_model(load_model(base), settings)
    tuned.save_pretrained(folder)
    unmerged = PeftModel.from_pretrained(load_model(base), folder).eval()
    with torch.no_grad():
        return folder, ids, unmerged(ids).logits


def test_an_adapter_merged_for_scoring_gives_the_logits_of_the_unmerged_one(base, model, adapter):
    folder, ids, expected = adapter
    assert is_adapter(folder)
    merged = load_model(base, folder)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    with torch.no_grad():
        assert (merged(ids).logits - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (model(ids).logits - expected).abs().max() > 0.1


def test_the_difference_that_merging_makes_is_measured(base, adapter):
    folder, _, _ = adapter
    exact, rounded = {}, {}
    load_model(base, folder, facts=exact)
    load_model(base, folder, dtype="bfloat16", facts=rounded)
    assert 0 <= exact["merge_logit_difference"] < 1e-4 and exact["merge_and_cast_logit_difference"] < 1e-4
    assert rounded["merge_logit_difference"] == exact["merge_logit_difference"]
    assert 1e-3 < rounded["merge_and_cast_logit_difference"] < 1
    facts = {}
    load_model(base, facts=facts)
    assert facts == {}


def test_an_adapter_is_merged_in_float32_whatever_the_type_of_the_base(base, adapter):
    folder, _, _ = adapter
    exact, found = (dict(load_model(base, folder, dtype=kind).named_parameters()) for kind in ("float32", "bfloat16"))
    assert all(torch.equal(found[name], exact[name].to(torch.bfloat16)) for name in exact)


def test_full_weights_replace_those_of_the_base(base, model, tmp_path):
    changed = load_model(base)
    with torch.no_grad():
        changed.lm_head.weight.zero_()
    changed.save_pretrained(tmp_path)
    loaded = load_model(base, tmp_path)
    assert not is_adapter(tmp_path)
    assert loaded.lm_head.weight.abs().max() == 0
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert not loaded.training


def test_weights_that_are_gone_are_an_error_with_the_way_out(tmp_path):
    manifest = tmp_path / "model.json"
    manifest.write_text(json.dumps({"name": "gone", "path": str(tmp_path / "gone"), "dtype": "float32", "trust_remote_code": False}))
    with pytest.raises(AtlasError, match=r"there is no config\.json; delete .*model\.json and run again"):
        ModelFolder.read(manifest)


@pytest.mark.parametrize("missing", ["pad_token", "eos_token"])
def test_a_tokenizer_without_pad_uses_eos_and_without_eos_is_refused(tmp_path, base, missing):
    tokenizer = load_tokenizer(base)
    setattr(tokenizer, missing, None)
    tokenizer.save_pretrained(tmp_path)
    bare = ModelFolder("bare", tmp_path, "float32", False)
    if missing == "pad_token":
        assert load_tokenizer(bare).pad_token_id == tokenizer.eos_token_id
    else:
        with pytest.raises(AtlasError, match=r"the tokenizer of bare in .* has no EOS token"):
            load_tokenizer(bare)
