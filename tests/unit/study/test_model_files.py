"""Width and modules of a base model, read from its files without torch."""

import json

import numpy as np
from safetensors.numpy import save_file

from helpers.tokenizer import make_tokenizer
from sft_atlas.study.model_files import layout
from sft_atlas.study.schema import Model

WEIGHTS = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj")


def test_a_local_folder_and_its_shards(tmp_path):
    tensors = {f"{name}.weight": np.zeros((2, 2), np.float32) for name in WEIGHTS}
    for name, width in {"one": {"hidden_size": 64}, "nested": {"text_config": {"hidden_size": 64}}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(width))
        save_file(tensors, tmp_path / name / "model.safetensors")
        found = layout(Model(path=name), lambda path: str(tmp_path / path))
        assert found.width == 64 and sorted(found.modules) == sorted(WEIGHTS)
    assert (
        found.matches("q_proj")
        and found.matches("self_attn.q_proj")
        and not found.matches("proj")
        and found.leaves == ["q_proj", "up_proj"]
    )
    (tmp_path / "one/model.safetensors").unlink()
    (tmp_path / "one/model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "a.safetensors")}))
    layout.__globals__["_local"].cache_clear()
    assert sorted(layout(Model(path="one"), lambda path: str(tmp_path / path)).modules) == sorted(WEIGHTS)


def test_nothing_is_said_of_a_damaged_folder_or_of_the_hub(tmp_path):
    assert layout(Model(hub="a/b", revision="c"), str) is None
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    assert layout(Model(path="x"), lambda path: str(tmp_path)) is None


def test_the_modules_of_a_model_that_is_pretrained_here_are_those_that_are_built():
    import torch

    from sft_atlas.data.pretrain_demo_model import build

    for architecture in ("llama", "qwen3", "gemma3"):
        entry = Model(pretrain={"architecture": architecture, "mixture": {"prose": 1}, "hidden_size": 32, "layers": 2})
        made = build(entry.pretrain, make_tokenizer())
        linear = {name for name, module in made.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"}
        assert layout(entry, str).width == 32 and set(layout(entry, str).modules) == linear
