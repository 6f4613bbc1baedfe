"""Engines whose model is told what to write: everything behind the model is real, from tokens or replies to answers."""

import contextlib
from types import SimpleNamespace

from helpers.completions_server import serving
from sft_atlas.evaluate.engines import hf
from sft_atlas.evaluate.engines.engine import Settings
from sft_atlas.evaluate.engines.factory import open_engine
from sft_atlas.evaluate.engines.vllm import VllmModel

LENGTH = 8192


@contextlib.contextmanager
def speaking(backend, base, model, tokenizer, said):
    """An lm-eval model of a backend that writes ``said[prompt]``; ``model``: any model, whose weights are not used."""

    def tokens(prompt):
        return [*tokenizer(said[tokenizer.decode(prompt)])["input_ids"], tokenizer.eos_token_id]

    if backend == "endpoint":
        with serving({"m": None}, tokenizer, said=said) as url:
            server = {"url": url, "model": "m", "dtype": "float32", "prompts": "tokens", "concurrency": 4, "timeout": 20, "retries": 1}
            yield open_engine(Settings("endpoint", LENGTH, endpoint=server), base, tokenizer).checkpoint(None, {})
    elif backend == "vllm":
        replicas = SimpleNamespace(ask=lambda kind, prompts, sampling, lora: list(map(tokens, prompts)))
        yield VllmModel(replicas, tokenizer, LENGTH, [tokenizer.eos_token_id], None, "m")
    else:
        made = hf.adapter(backend, model, tokenizer, 4, LENGTH)
        if backend == "hf":
            made._model.generate = lambda input_ids, **_: generated(input_ids, tokens, tokenizer.pad_token_id)
        else:
            made.generate = lambda prompts, decoding: list(map(tokens, prompts))
        yield made


def generated(input_ids, tokens, pad):
    """What ``generate`` of transformers returns: prompts with what is written behind them, padded on both sides."""
    import torch

    rows = input_ids.tolist()
    new = [tokens(row[next(i for i, token in enumerate(row) if token != pad) :]) for row in rows]
    longest = max(map(len, new))
    return torch.tensor([row + ids + [pad] * (longest - len(ids)) for row, ids in zip(rows, new, strict=True)])
