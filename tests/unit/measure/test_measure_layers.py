"""Weight changes: against torch on merged weights, every storage layout, and values by hand."""

import json
import math
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.measure import measure_layers
from sft_atlas.measure.weight_change import adapter_changes, compare, compare_factors, full_changes, layer_changes, scaling, tensors
from sft_atlas.models.base_model import load_model


def save(folder, arrays, name="model"):
    """Write arrays or torch tensors as ``{name}.safetensors``."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: torch.as_tensor(value).contiguous() for key, value in arrays.items()}, folder / f"{name}.safetensors")
    return folder


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_values_by_hand(tmp_path):
    before = save(tmp_path / "a", {"layers.0.mlp.up_proj.weight": np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)})
    after = save(tmp_path / "b", {"layers.0.mlp.up_proj.weight": np.array([[3.0, 1.0], [0.0, 2.0]], np.float32)})
    up, whole = sorted(layer_changes(before, after), key=lambda row: row["component"] == "all")
    assert up["relative_change"] == pytest.approx(math.sqrt(5) / 5)
    assert up["mean_abs_change"] == pytest.approx(3 / 4)
    assert up["cosine"] == pytest.approx((9 + 8) / (5 * math.sqrt(14)))
    assert up["unchanged"] == 0.5 and up["parameters"] == 4 and up["depth"] == 0.0
    assert {**whole, "component": "up"} == up


def test_every_parameter_matches_torch_and_parts_add_up(base, tmp_path):
    import torch

    old, new = load_model(base), load_model(base)
    generator = torch.Generator().manual_seed(0)
    for parameter in new.parameters():
        parameter.data += 1e-3 * torch.randn(parameter.shape, generator=generator)
    new.save_pretrained(tmp_path / "full")
    changes, after = full_changes(base.path, tmp_path / "full"), dict(new.state_dict())
    assert changes.keys() == after.keys()
    for name, weight in old.state_dict().items():
        measured, wide, delta = changes[name].measures(), weight.double(), (after[name] - weight).double()
        assert measured["relative_change"] == pytest.approx((delta.norm() / wide.norm()).item(), rel=1e-5)
        assert measured["mean_abs_change"] == pytest.approx(delta.abs().mean().item(), rel=1e-5)
        exact = torch.nn.functional.cosine_similarity(wide.flatten(), after[name].double().flatten(), dim=0).item()
        assert 1 - measured["cosine"] == pytest.approx(1 - exact, rel=1e-3, abs=1e-12)
    rows = layer_changes(base.path, tmp_path / "full")
    whole = next(row for row in rows if row["layer"] == 1 and row["component"] == "all")
    names = [name for name in changes if ".layers.1." in name]
    squares = [sum(getattr(changes[name], field) for name in names) for field in ("change", "base")]
    assert whole["relative_change"] == pytest.approx(math.sqrt(squares[0] / squares[1]))
    assert whole["depth"] == 1.0 and whole["parameters"] == sum(changes[name].parameters for name in names)
    assert {row["component"] for row in rows if row["layer"] is None} == {"embedding", "head", "norm"}


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_factors_equal_the_merged_difference(base, tmp_path, rslora):
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"modules_to_save": ["lm_head"], "alpha_pattern": {"k_proj": 5}, "rank_pattern": {"v_proj": 2}, "use_rslora": rslora}
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]
        tuned = get_peft_model(load_model(base), LoraConfig(r=4, lora_alpha=6, target_modules=targets, **options))
        for name, parameter in tuned.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.data += 0.02 * torch.randn(parameter.shape)
    tuned.save_pretrained(tmp_path / "adapter")
    load_model(base, tmp_path / "adapter").save_pretrained(tmp_path / "merged")
    factors, merged = adapter_changes(base.path, tmp_path / "adapter"), full_changes(base.path, tmp_path / "merged")
    assert factors.keys() == merged.keys()
    for name, change in factors.items():
        left, right = change.measures(), merged[name].measures()
        assert left["relative_change"] == pytest.approx(right["relative_change"], abs=1e-5, rel=1e-5), name
        assert left["cosine"] == pytest.approx(right["cosine"], abs=1e-5)
        assert left["parameters"] == right["parameters"]
    assert factors["model.layers.0.self_attn.q_proj.weight"].measures()["unchanged"] is None
    assert factors["lm_head.weight"].measures() == merged["lm_head.weight"].measures()  # saved whole, so compared exactly
    assert factors["model.norm.weight"].measures()["relative_change"] == 0.0
    whole = next(row for row in layer_changes(base.path, tmp_path / "adapter") if row["component"] == "all")
    assert whole["mean_abs_change"] is None and whole["unchanged"] is None and whole["relative_change"] > 0


def test_dora_changes_equal_the_merged_difference(base, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM")
        tuned = get_peft_model(load_model(base), settings)
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:  # magnitudes too
                parameter.data += 0.02 * torch.randn(parameter.shape)
    tuned.save_pretrained(tmp_path / "adapter")
    load_model(base, tmp_path / "adapter").save_pretrained(tmp_path / "merged")
    changes, merged = (f(base.path, tmp_path / name, spectra=True) for f, name in ((adapter_changes, "adapter"), (full_changes, "merged")))
    assert changes.keys() == merged.keys()
    for name, change in changes.items():
        left, right = change.measures(), merged[name].measures()
        for key in ("relative_change", "mean_abs_change", "cosine"):
            assert left[key] == pytest.approx(right[key], abs=1e-6, rel=1e-4), (name, key)
        if right["stable_rank"] is not None:
            assert left["stable_rank"] == pytest.approx(right["stable_rank"], rel=1e-3), name
    magnitudes = [key for key in tensors(tmp_path / "adapter", "adapter_model") if "magnitude" in key]
    assert len(magnitudes) == 14  # seven matrices in each of two layers
    save(
        tmp_path / "lost",
        {key: value.read() for key, value in tensors(tmp_path / "adapter", "adapter_model").items() if key != magnitudes[0]},
        "adapter_model",
    )
    (tmp_path / "lost" / "adapter_config.json").write_text((tmp_path / "adapter" / "adapter_config.json").read_text())
    with pytest.raises(AtlasError, match="lacks a factor or a magnitude"):
        adapter_changes(base.path, tmp_path / "lost")


def test_adapters_that_are_not_plain_are_refused(base, tmp_path):
    folder = save(tmp_path, {"base_model.model.model.layers.0.odd.weight": random(2, 2)}, "adapter_model")
    plain = {"peft_type": "LORA", "lora_alpha": 4, "r": 2}
    for config, message in [
        (plain | {"fan_in_fan_out": True}, "fan_in_fan_out"),
        (plain | {"bias": "all"}, "bias all"),
        (plain | {"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "IA3"}, "IA3"),
        (plain, "neither a LoRA factor"),
    ]:
        (folder / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(AtlasError, match=message):
            layer_changes(base.path, folder)


def test_ranks_by_hand_and_from_factors(tmp_path):
    name = "layers.0.mlp.up_proj.weight"
    delta = np.diag([3.0, 3.0, 1.0]).astype(np.float32)
    before = save(
        tmp_path / "a", {name: random(3, 3), "layers.0.input_layernorm.weight": random(3), "model.embed_tokens.weight": random(4, 3)}
    )
    old = {key: tensor.read().astype(np.float32) for key, tensor in tensors(before).items()}
    after = save(tmp_path / "b", old | {name: old[name] + delta})
    rows = {row["component"]: row for row in layer_changes(before, after, spectra=True)}
    share = np.array([3, 3, 1]) / 7
    assert rows["up"]["stable_rank"] == pytest.approx(19 / 9, rel=1e-5)
    assert rows["up"]["effective_rank"] == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-5)
    assert [rows[component]["stable_rank"] for component in ("all", "norm", "embedding")] == [None] * 3
    assert {row["stable_rank"] for row in layer_changes(before, after)} == {None}
    down, up = random(2, 3, seed=1).astype(float), random(3, 2, seed=2).astype(float)
    result = compare_factors(tensors(before)[name], down, up, 0.5, spectra=True).spectrum
    assert result == pytest.approx(np.linalg.svd(0.5 * up @ down, compute_uv=False)[:2])


def test_memory_is_bounded_by_two_tensors_and_shards_are_read_as_they_come(tmp_path):
    import tracemalloc

    size = 1 << 20
    arrays = {f"layers.{i}.mlp.up_proj.weight": random(size // 1024, 1024, seed=i) for i in range(6)}
    before, after = save(tmp_path / "a", arrays), save(tmp_path / "b", {name: array + 1 for name, array in arrays.items()})
    tracemalloc.start()
    layer_changes(before, after)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 4 * size  # the two files hold twelve such tensors


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_windows_that_were_used_count_no_longer_as_memory(tmp_path):
    def shared():
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE

    tensor = tensors(save(tmp_path, {"x": random(1 << 23)}))["x"]
    before, most = shared(), 0
    for window in tensor.windows(tensor.size, 1 << 18):
        assert np.isfinite(window.sum())
        most = max(most, shared() - before)
    assert most < tensor.size  # bytes: a quarter of the file


def test_scaling_follows_peft():
    assert scaling({"lora_alpha": 16}, "model.layers.0.mlp.up_proj", 8) == 2
    assert scaling({"lora_alpha": 16, "use_rslora": True}, "up_proj", 4) == 8
    assert scaling({"lora_alpha": 16, "alpha_pattern": {"layers.0.mlp.up_proj": 4}}, "model.layers.0.mlp.up_proj", 8) == 0.5


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_stored_dtypes_are_read_exactly(tmp_path, dtype):
    import torch

    values = torch.cat([torch.randn(997, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, -0.0, 1e-30, -65504.0])])
    tensor = values.to(getattr(torch, dtype)).reshape(-1, 7)
    read = tensors(save(tmp_path, {"x": tensor, "y": tensor[:1].clone()}))["x"].read()
    assert read.shape == tuple(tensor.shape) and (read == tensor.double().numpy()).all()


@pytest.mark.parametrize("size", [1, 4095, 3 * 65536 + 7])
@pytest.mark.parametrize(
    "dtypes", [("bfloat16", "bfloat16"), ("float32", "float32"), ("float16", "float16"), ("bfloat16", "float32"), ("float16", "float32")]
)
def test_sums_are_those_of_float64(tmp_path, dtypes, size):
    import torch

    old = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtypes[0]))
    new = (old.float() * (1 + 0.01 * (torch.arange(size) % 3 == 0))).to(getattr(torch, dtypes[1]))
    old[-1:], new[-1:] = 0.0, -0.0  # equal numbers
    name = "layers.0.mlp.up_proj.bias"
    pair = [tensors(save(tmp_path / key, {name: value}))[name] for key, value in (("a", old), ("b", new))]
    change, weight, delta = compare(*pair), old.double().numpy(), (new.double() - old.double()).numpy()
    exact = ((weight**2).sum(), (weight * delta).sum(), (delta**2).sum(), np.abs(delta).sum())
    assert (change.base, change.product, change.change, change.absolute) == pytest.approx(exact, rel=1e-6)
    assert (change.unchanged, change.parameters) == (np.count_nonzero(delta == 0), size)


def test_unknown_dtype_and_cut_file_are_errors(tmp_path):
    whole = tensors(save(tmp_path, {"x": np.arange(4), "y": random(2)}))
    with pytest.raises(AtlasError, match="x has dtype I64"):
        compare(whole["x"], whole["x"])
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(AtlasError, match="cut short"):
        tensors(tmp_path)
    for short in (b"", bytes(8), b"\x02\0\0"):  # what is left where a disk was full
        file.write_bytes(short)
        with pytest.raises(AtlasError, match=r"model.safetensors is no complete safetensors file"):
            tensors(tmp_path)
    with pytest.raises(AtlasError, match="holds neither"):
        tensors(tmp_path / "empty")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_error_and_no_row(tmp_path, value):
    arrays = {"layers.0.mlp.up_proj.weight": random(3, 3), "layers.1.mlp.up_proj.weight": random(3, 3)}
    before = save(tmp_path / "a", arrays)
    arrays["layers.1.mlp.up_proj.weight"] = np.full((3, 3), value, np.float32)
    with pytest.raises(AtlasError, match=r"b: layers.1.mlp.up_proj.weight \(of 1 such\) holds values that are not finite"):
        layer_changes(before, save(tmp_path / "b", arrays))


def test_blocks_do_not_show(tmp_path, monkeypatch):
    arrays = {"layers.0.mlp.up_proj.weight": random(30, 7), "layers.0.mlp.odd.weight": random(11, seed=1)}
    before = save(tmp_path / "a", arrays)
    after = save(tmp_path / "b", {name: array * np.float32(1.5) for name, array in arrays.items()})
    whole = layer_changes(before, after)
    monkeypatch.setattr("sft_atlas.measure.weight_change.WINDOW", 16)
    monkeypatch.setattr("sft_atlas.measure.weight_change.BLOCK", 16)
    for one, other in zip(whole, layer_changes(before, after), strict=True):
        assert one == pytest.approx(other)
    assert {row["component"] for row in whole} == {"up", "other", "all"}


def test_shards_equal_one_file(base, tmp_path):
    model = load_model(base)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists() and len(list(tmp_path.glob("*.safetensors"))) > 1
    rows = layer_changes(base.path, tmp_path)
    assert {row["relative_change"] for row in rows} == {0.0} and {row["unchanged"] for row in rows} == {1.0}
    assert all(row["cosine"] == pytest.approx(1) for row in rows)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(AtlasError, match="not there"):
        layer_changes(base.path, tmp_path)


def test_workers_do_not_show(base, tmp_path):
    load_model(base).save_pretrained(tmp_path)
    assert layer_changes(base.path, tmp_path, workers=2) == layer_changes(base.path, tmp_path)
    with pytest.raises(AtlasError, match="dtype I64"):  # a worker's error is the job's
        broken = save(tmp_path / "broken", {"x": np.arange(4), "y": np.arange(4)})
        layer_changes(broken, broken, workers=2)


def test_tied_head_is_the_embedding(tmp_path):
    embedding = {"model.embed_tokens.weight": random(6, 3)}
    tied = save(tmp_path / "tied", embedding)
    untied = save(tmp_path / "untied", embedding | {"lm_head.weight": embedding["model.embed_tokens.weight"] * np.float32(2)})
    assert [row["component"] for row in layer_changes(tied, tied)] == ["embedding"]
    head = layer_changes(tied, untied)[-1]
    assert head["component"] == "head" and head["relative_change"] == pytest.approx(1) and head["layer"] is None and head["depth"] is None


def test_resized_vocabulary_is_compared_on_common_rows(tmp_path):
    old = random(6, 3)
    before = save(tmp_path / "a", {"model.embed_tokens.weight": old})
    after = save(tmp_path / "b", {"model.embed_tokens.weight": np.concatenate([old, random(2, 3)])})
    for pair in ((before, after), (after, before)):
        (row,) = layer_changes(*pair)
        assert (row["skipped_rows"], row["parameters"], row["relative_change"], row["unchanged"]) == (2, 18, 0.0, 1.0)
    other = save(tmp_path / "c", {"model.embed_tokens.weight": random(6, 4)})
    with pytest.raises(AtlasError, match="shape"):
        layer_changes(before, other)
    with pytest.raises(AtlasError, match="no counterpart"):
        layer_changes(before, save(tmp_path / "d", {"model.embed_tokens.weight": old, "model.norm.weight": random(3)}))


def test_measure_layers_needs_no_torch(base, tiny_base, tmp_path):
    output = tmp_path / "layers.parquet"
    arguments = f"--base {tiny_base} --weights {base.path} --model tiny --dataset d --recipe r --epoch 3 --output {output}".split()
    code = f"""
import sys
from sft_atlas.core import job
job.run("measure_layers", {arguments!r})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    frame = pl.read_parquet(output)
    assert frame.columns == ["model", "dataset", "recipe", "epoch", *measure_layers.COLUMNS]
    assert frame.select("model", "dataset", "recipe", "epoch").unique().rows() == [("tiny", "d", "r", 3)]
    assert frame.filter(component="all")["layer"].to_list() == [0, 1]
