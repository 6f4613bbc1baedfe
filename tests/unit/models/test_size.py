"""Parameters of models and adapters, estimated from what a study states."""

import pytest

from sft_atlas.models import size


@pytest.mark.parametrize(("parameters", "rank", "true"), [(8.03e9, 16, 41.9e6), (134.5e6, 8, 2.44e6), (70.6e9, 16, 207.1e6)])
def test_an_adapters_size_follows_from_the_models(parameters, rank, true):
    assert size.adapter_parameters(parameters, rank) == pytest.approx(true, rel=1 / 3)  # Llama 3 8B, SmolLM2 135M, Llama 3 70B


def test_the_size_of_a_tiny_model_is_about_right():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1024,
        tie_word_embeddings=True,
    )
    true = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    assert size.tiny_parameters(128, 6, 1024) == pytest.approx(true, rel=0.02)
