"""Tiny random base models of the families that the studies train, and training through the project's own functions."""

import json
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import dataset as sampling
from sft_atlas.train import trainer

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "olmo", "olmo2")
TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
# Responses of different lengths: a loss that is averaged over the wrong number of tokens shows only then.
ROWS = [
    {"instruction": f"Spell the word backward: {word}.", "response": " ".join([word[::-1]] * (1 + i % 4))}
    for i, word in enumerate(("lemon", "apple", "dog", "fox", "quick", "brown", "lazy", "over"))
]


def config(family: str):
    """A configuration of two layers; windows are shorter than the samples, so that sliding attention slides."""
    import transformers

    shape = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    sliding = {"head_dim": 8, "sliding_window": 24, "query_pre_attn_scalar": 8}
    name, more = {
        "llama": ("LlamaConfig", {}),
        "mistral": ("MistralConfig", {"sliding_window": 24}),
        "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
        "qwen3": ("Qwen3Config", {"head_dim": 16}),
        "gemma2": ("Gemma2Config", sliding),
        "gemma3": ("Gemma3TextConfig", sliding | {"layer_types": ["sliding_attention", "full_attention"]}),
        "olmo": ("OlmoConfig", {}),
        "olmo2": ("Olmo2Config", {}),
    }[family]
    return getattr(transformers, name)(**shape, **more)


@dataclass(frozen=True)
class Case:
    """A base model with its tokenizer and samples, and short ways to train it."""

    base: ModelFolder
    tokenizer: object
    samples: sampling.Samples

    def settings(self, **changes) -> Hyperparameters:
        return Hyperparameters(**({"method": "full", "rows": 8, "epochs": 2, "learning_rate": 1e-3, "batch_size": 8} | changes))

    def train(self, folder: Path, **changes):
        """Facts and the folder of the last epoch's weights."""
        folder.mkdir(exist_ok=True)
        settings = self.settings(**changes)
        facts = trainer.fine_tune(self.base, self.samples, self.tokenizer, settings, folder, folder.name)
        return facts, folder / f"epoch-{settings.epochs}"


def losses(facts):
    """The loss of every optimiser step."""
    return [float(entry["loss"]) for entry in facts["log"] if "loss" in entry]


def weights(folder):
    """The tensors of a checkpoint."""
    from safetensors.torch import load_file

    return load_file(next(Path(folder).glob("*.safetensors")))


def distance(one, other):
    """Largest difference of two checkpoints' elements."""
    assert one.keys() == other.keys()
    return max((one[key].float() - other[key].float()).abs().max().item() for key in one)


def make(family: str, folder: Path, tokenizer) -> Case:
    """A random base model of a family in ``folder``."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config(family)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    manifest = folder.parent / f"{family}.json"
    manifest.write_text(json.dumps({"name": family, "path": str(folder), "dtype": "float32", "trust_remote_code": False}))
    base = ModelFolder.read(manifest)
    tokenizer = load_tokenizer(base)
    return Case(base, tokenizer, sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256))
