"""Base models and checkpoints as they are loaded: merged adapters, full weights, missing files, padding."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from helpers.damage import cut, empty, invert
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import hash_weights
from sft_atlas.models.base_model import ModelFolder, SharedBase, is_adapter, is_finite, load_model, load_tokenizer


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter with random factors, and the logits of base and adapter unmerged."""
    return make_adapter(base, tmp_path_factory)


def make_adapter(base, tmp_path_factory, **more):
    folder, ids = tmp_path_factory.mktemp("adapter"), torch.arange(3, 40)[None]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        targets = {"target_modules": "all-linear"} | more
        settings = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **targets)
        tuned = get_peft_model(load_model(base), settings)
        for name, parameter in tuned.named_parameters():
            if "magnitude" in name or "modules_to_save" in name:
                parameter.data *= 1 + 0.1 * torch.randn(parameter.shape)
    tuned.save_pretrained(folder)
    unmerged = PeftModel.from_pretrained(load_model(base), folder).eval()
    with torch.no_grad():
        return folder, ids, unmerged(ids).logits


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_merged_for_scoring_gives_the_logits_of_the_unmerged_one(base, model, tmp_path_factory, dora):
    folder, ids, expected = make_adapter(base, tmp_path_factory, use_dora=dora)
    assert is_adapter(folder)
    merged = load_model(base, folder)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    with torch.no_grad():
        assert (merged(ids).logits - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (model(ids).logits - expected).abs().max() > 0.1


def test_adapters_that_follow_one_another_on_one_base_are_each_as_on_a_base_of_their_own(base, tmp_path_factory):
    kinds = [{}, {"use_dora": True}, {"modules_to_save": ["lm_head", "embed_tokens"]}, {"target_modules": ["q_proj"]}]
    folders = [make_adapter(base, tmp_path_factory, **kind)[0] for kind in kinds]
    shared, ids = SharedBase(base, folders[0]), torch.arange(3, 40)[None]
    for number in (0, 1, 2, 3, 1, 0, 2):
        with torch.no_grad():
            one, own = shared.with_adapter(folders[number], facts := {})(ids).logits, load_model(base, folders[number])(ids).logits
        assert torch.equal(one, own) and facts["dtype"] == "float32" and facts["adapter"] == "merged and run in float32"
    shared._restore()
    assert all(
        torch.equal(one, own) for one, own in zip(shared.model.state_dict().values(), load_model(base).state_dict().values(), strict=True)
    )


def test_the_facts_say_how_an_adapter_is_applied(base, adapter):
    facts, plain = {}, {}
    load_model(base, adapter[0], facts=facts)
    assert 0 <= facts.pop("merge_logit_difference") < 1e-4
    assert facts == {"adapter": "merged and run in float32", "dtype": "float32"}
    load_model(base, dtype="bfloat16", facts=plain)
    assert plain == {"dtype": "bfloat16"}


def test_a_small_update_of_a_bfloat16_base_keeps_its_effect(base, tmp_path):
    """Factors as after 80 steps at 2e-6; merged into bfloat16 a third to two thirds of the effect on the logits would be lost."""
    rounded, ids = dataclasses.replace(base, path=tmp_path / "base", dtype="bfloat16"), torch.arange(3, 40)[None]
    load_model(base).to(torch.bfloat16).save_pretrained(rounded.path)
    plain = load_model(rounded, dtype="float32")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        before = plain(ids).logits
        tuned = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, factor in tuned.named_parameters():
            if "lora_B" in name:
                factor.normal_(std=1e-4)
        effect = tuned(ids).logits - before
        tuned.save_pretrained(tmp_path / "adapter")
        scored = load_model(rounded, tmp_path / "adapter")(ids).logits - before
        lost = load_model(rounded, tmp_path / "adapter").to(torch.bfloat16)(ids).logits.float() - load_model(rounded)(ids).logits.float()
    assert (scored - effect).norm() < 0.02 * effect.norm()
    assert (lost - effect).norm() > 0.5 * effect.norm()


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


def test_missing_weights_are_an_error_that_says_what_to_do(tmp_path):
    manifest = tmp_path / "model.json"
    manifest.write_text(json.dumps({"name": "gone", "path": str(tmp_path / "gone"), "dtype": "float32", "trust_remote_code": False}))
    with pytest.raises(AtlasError, match=r"there is no config\.json; delete .*model\.json and run again"):
        ModelFolder.read(manifest)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A function that writes the manifest of a base model in a folder, in a clone that is the current folder; returns the path in it."""
    clone = tmp_path / "clone"
    clone.mkdir()
    monkeypatch.chdir(clone)

    def write(folder):
        manifest = Path("results/s/models/m/model.json")
        for path in (Path(folder), manifest.parent):
            path.mkdir(parents=True, exist_ok=True)
        (Path(folder) / "config.json").write_text("{}")
        ModelFolder("m", Path(folder), "float32", False).write(manifest, {})
        assert ModelFolder.read(manifest).path.samefile(folder)
        return json.loads(manifest.read_text())["path"]

    write.path = clone
    return write


def test_a_manifest_names_folders_in_the_clone_relative_to_itself(clone):
    assert clone("results/s/models/m/weights") == "weights"
    assert clone("my/model") == clone(clone.path / "my/model") == "../../../../my/model"
    assert ModelFolder.read(Path("results/s/models/m/model.json")).path == Path("my/model")
    (clone.path.parent / "link").symlink_to(clone.path)
    assert clone(clone.path.parent / "link/my/model") == "../../../../my/model"


def test_a_manifest_names_folders_of_the_user_elsewhere_as_they_are(clone):
    folder = clone.path.parent / "elsewhere/model"
    assert clone(folder) == str(folder)


def test_results_may_be_a_link_to_another_disk(clone):
    disk = clone.path.parent / "a/long/way/to/another/disk"
    disk.mkdir(parents=True)
    Path("results").symlink_to(disk)
    assert clone("results/s/models/m/weights") == "weights"
    assert clone("my/model") == "../../../../my/model"


def test_a_copied_manifest_leads_to_the_copied_weights_even_where_the_original_named_an_absolute_path(clone):
    clone("results/s/models/m/weights")
    manifest = Path("results/s/models/m/model.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"path": str(clone.path / "results/s/models/m/weights")}))
    copy = clone.path.parent / "copy"
    shutil.copytree(clone.path, copy)
    assert ModelFolder.read(copy / manifest).path == copy / "results/s/models/m/weights"
    shutil.rmtree(copy / "results/s/models/m/weights")
    with pytest.raises(AtlasError, match=r"names .*/copy/results/s/models/m/weights, where there is no config\.json"):
        ModelFolder.read(copy / manifest)


@pytest.fixture
def run(base, adapter, tmp_path):
    """Folder of a run with the manifest of its base model, full weights as epoch 1 and an adapter as epoch 2, all with recorded hashes."""
    shutil.copytree(base.path, tmp_path / "weights")
    ModelFolder("tiny", tmp_path / "weights", "float32", False).write(tmp_path / "model.json", {})
    load_model(base).save_pretrained(tmp_path / "run/epoch-1/weights")
    shutil.copytree(adapter[0], tmp_path / "run/epoch-2/weights")
    hashes = {epoch: hash_weights(tmp_path / f"run/epoch-{epoch}/weights") for epoch in ("1", "2")}
    (tmp_path / "run/train.json").write_text(json.dumps({"weights_sha256": hashes}))
    return tmp_path


@pytest.mark.parametrize("harm", [invert, cut, empty])
@pytest.mark.parametrize(
    ("file", "epoch", "remedy"),
    [
        ("weights/model.safetensors", None, "the model is fetched again"),
        ("weights/model.safetensors", 2, "the model is fetched again"),
        ("weights/config.json", None, "the model is fetched again"),
        ("run/epoch-1/weights/model.safetensors", 1, "the run is trained again"),
        ("run/epoch-2/weights/adapter_model.safetensors", 2, "the run is trained again"),
    ],
)
def test_damaged_weights_are_not_loaded(run, file, epoch, remedy, harm):
    weights = epoch and run / f"run/epoch-{epoch}/weights"
    load_model(ModelFolder.read(run / "model.json"), weights)
    harm(run / file)
    with pytest.raises(AtlasError, match=rf"{file} is (damaged|empty): its SHA-256 is .* was recorded when it was made; delete .*{remedy}"):
        load_model(ModelFolder.read(run / "model.json"), weights)


@pytest.mark.parametrize("harm", [cut, empty])
def test_cut_weights_and_records_are_errors_without_recorded_hashes(run, harm):
    (run / "run/train.json").write_text("{}")
    base, weights = ModelFolder.read(run / "model.json"), run / "run/epoch-1/weights"
    load_model(base, weights)
    harm(weights / "model.safetensors")
    with pytest.raises(AtlasError, match=r"(cut short|empty).*; delete .*train.json and run again"):
        load_model(base, weights)
    harm(run / "model.json")
    with pytest.raises(AtlasError, match=r"model.json is (cut short|empty).*; delete it and run again"):
        ModelFolder.read(run / "model.json")


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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.embed_tokens.weight", float("nan"), "model.embed_tokens.weight has values that are not finite"),
        ("lm_head.weight", float("-inf"), "lm_head.weight has values that are not finite"),
        ("model.layers.1.mlp.up_proj.weight", 3e38, "its logits are not finite"),  # each weight is finite
    ],
)
def test_a_diverged_checkpoint_is_not_loaded(base, tmp_path, name, value, said):
    changed = load_model(base)
    changed.get_parameter(name).data[-1] = value
    changed.save_pretrained(tmp_path / "epoch-1")
    with pytest.raises(AtlasError, match=rf"epoch-1: {said}; .* it diverged"):
        load_model(base, tmp_path / "epoch-1")


def test_a_diverged_adapter_is_not_loaded(base, adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(adapter[0], tmp_path / "adapter")
    factors = load_file(folder / "adapter_model.safetensors")
    next(iter(factors.values()))[0] = float("nan")
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(AtlasError, match=rf"{folder}: .* has values that are not finite"):
        load_model(base, folder)


def test_finite_values_are_recognised_in_every_type():
    values = torch.tensor([[1.0, -2.0]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn):
        assert is_finite(values.to(dtype)) and not is_finite(torch.cat([values, values * math.nan]).to(dtype))
    assert is_finite(torch.arange(3)) and is_finite(torch.empty(0))
