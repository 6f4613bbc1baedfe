"""Parameters are known by their names, layers by their depth."""

import pytest

from sft_atlas.models.layout import layer_and_component, layers_in_range


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.self_attn.q_proj.weight", (3, "q")),
        ("model.layers.3.self_attn.q_proj.bias", (3, "q")),
        ("model.layers.11.mlp.gate_proj.weight", (11, "gate")),
        ("model.layers.0.self_attn.q_norm.weight", (0, "norm")),
        ("model.layers.0.pre_feedforward_layernorm.weight", (0, "norm")),
        ("model.layers.0.mlp.experts.gate_up.weight", (0, "other")),
        ("model.norm.weight", (None, "norm")),
        ("model.embed_tokens.weight", (None, "embedding")),
        ("lm_head.weight", (None, "head")),
    ],
)
def test_a_name_gives_layer_and_component(name, expected):
    assert layer_and_component(name) == expected


def test_a_range_of_depths_holds_its_ends():
    assert layers_in_range(None, 3) == [0, 1, 2]
    assert layers_in_range((0.5, 1.0), 5) == [2, 3, 4]
    assert layers_in_range((0.3, 0.7), 2) == []
