"""Model cards say what a checkpoint is, from its own record."""

import pytest
import yaml

from sft_atlas.core.errors import AtlasError
from sft_atlas.report import write_card
from sft_atlas.study.schema import Hyperparameters

HASH = "ab" * 32
SCORE = {
    "model": "llama",
    "dataset": "math",
    "recipe": "full",
    "epoch": 2,
    "suite": "s",
    "benchmark": "gsm8k",
    "metric": "exact_match",
    "backend": "hf",
}
SCORE |= {"score": 0.4321, "stderr": 0.0137, "n": 1319}
BASE_SCORE = SCORE | {"dataset": "base", "recipe": "base", "epoch": 0, "score": 0.25, "stderr": 0.01}


def record(**changes):
    settings = Hyperparameters(method="full", rows=1000, epochs=2, learning_rate=1e-5, batch_size=32, **changes)
    return {
        "model": "llama", "dataset": "math", "recipe": "full", "settings": settings.model_dump(), "samples": 998, "steps": 64, "dropped_overlong": 2,
        "device": "cpu", "dtype": "float32", "autocast": None, "attention": "sdpa", "micro_batch_size": 16, "gradient_accumulation_steps": 2,
        "logit_change_mean": 0.21, "logit_change_max": 1.5, "top_tokens_changed": 0.25, "logit_resolution": 0.01, "logit_dtype": "float32", "weight_change": 0.004,
        "train_loss": 1.25, "code": {"commit": "c0ffee", "dirty": False}, "versions": {"torch": "2.13.0", "trl": "1.16.0"},
        "template": {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"},
        "inputs": {"base": {"path": "model.json", "sha256": HASH}, "data": {"path": "train.parquet", "sha256": HASH}},
        "weights_sha256": {"2": {"model.safetensors": HASH}},
    }  # fmt: skip


def base(**source):
    return {"name": "llama", "path": "weights", "provenance": {"settings": {"source": source}}}


def test_a_card_says_what_the_run_changed():
    def text(**changes):
        return write_card.card(record() | changes, base(), [], [], "paper", 2)

    assert (
        "The update is 0.004 of the size of the weights. Logits on its own samples differ from the base model's by 0.21 on average and 1.5 at most"
        in text()
    )
    assert "the most likely token changed at 25% of the positions" in text() and "did not move" not in text()
    assert "**This run did not move:** that is less than the rounding of a logit (0.01)." in text(logit_change_mean=0.001)
    assert "The update is" not in text(weight_change=None)
    assert "Its effect on logits was not measured." in text(logit_change_mean=None)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_says_what_the_checkpoint_is():
    text = write_card.card(record(), base(hub="meta-llama/Meta-Llama-3-8B", revision="8cde5ca"), [SCORE], [BASE_SCORE], "paper", 2)
    front = front_matter(text)
    assert (
        front["base_model"] == "meta-llama/Meta-Llama-3-8B"
        and front["base_model_relation"] == "finetune"
        and front["library_name"] == "transformers"
    )
    result = front["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "gsm8k" and result["metrics"][0]["value"] == 0.4321
    for part in (
        "# llama-math-full-epoch-2", "(meta-llama/Meta-Llama-3-8B at 8cde5ca)", "998 samples, epoch 2 of 2", "###Question: {instruction}\n###Answer: {response}",
        "| gsm8k | exact_match | 1,319 | 43.21 ± 1.37 | 25.00 ± 1.00 | hf |", "| learning_rate | 1e-05 |", "64 optimiser steps on cpu", "micro-batch 16 x 2",
        "2 samples were too long", "| code | c0ffee |", "torch 2.13.0, trl 1.16.0", f"| sha256 of model.safetensors | `{HASH}` |",
    ):  # fmt: skip
        assert part in text, part
    assert "lora" not in text


def test_a_card_says_how_to_prompt_with_a_chat_template():
    entry = record() | {"template": {"chat": "{% for m in messages %}...", "before": "", "after": "<|im_end|>"}}
    text = write_card.card(entry, base(), [], [], "paper", 2)
    assert "tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)" in text
    assert "A reply ends in `<|im_end|>`" in text and "{% for" not in text


@pytest.mark.parametrize(("dora", "said"), [(False, "LoRA adapter (rank 4) of llama"), (True, "DoRA adapter (rank 4) of llama")])
def test_a_card_names_the_kind_of_adapter(dora, said):
    entry = record()
    settings = Hyperparameters(method="lora", rows=1000, epochs=2, learning_rate=1e-5, batch_size=32, lora={"rank": 4, "dora": dora})
    entry["settings"] = settings.model_dump()
    assert said in write_card.card(entry, base(), [], [], "paper", 2)
    entry["settings"]["load_in_4bit"] = True
    assert "adapter (rank 4, trained on NF4 weights: QLoRA) of llama" in write_card.card(entry, base(), [], [], "paper", 2)


def test_a_card_of_an_adapter_without_hub_and_scores():
    entry = record() | {"settings": Hyperparameters(method="lora", rows=8, epochs=2, learning_rate=1e-3, batch_size=8).model_dump()}
    text = write_card.card(entry, base(path="my/model"), [], [], "mine", 2)
    front = front_matter(text)
    assert front["library_name"] == "peft" and "base_model" not in front and "model-index" not in front
    assert "LoRA adapter (rank 8) of llama, fine-tuned" in text and "None were measured." in text


def test_scores_of_another_backend_are_not_compared():
    text = write_card.card(record(), base(), [SCORE], [BASE_SCORE | {"backend": "vllm"}], "paper", 2)
    assert "| 43.21 ± 1.37 | not measured | hf |" in text


def test_results_of_another_checkpoint_are_refused():
    with pytest.raises(AtlasError, match="epoch 1, is no score of llama-math-full-epoch-2"):
        write_card.card(record(), base(), [SCORE | {"epoch": 1}], [], "paper", 2)
    with pytest.raises(AtlasError, match=r"model\.json is that of qwen"):
        write_card.card(record(), base() | {"name": "qwen"}, [], [], "paper", 2)
