"""Engines of transformers: `hf`, lm-eval's own adapter, and `hf-paged`, continuous batching (:mod:`~sft_atlas.evaluate.engines.paged`)."""

import functools
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from sft_atlas.evaluate.engines.engine import Engine, Truncation, merged_dtype
from sft_atlas.evaluate.engines.likelihoods import Likelihoods
from sft_atlas.evaluate.engines.tokens import CPU_BATCH, StopSearch, encode_pairs, with_training_tokens
from sft_atlas.models.base_model import SharedBase, end_ids, is_adapter, load_model


class TransformersEngine(Engine):
    """A base model in transformers. With ``keep_base`` LoRA adapters are merged, one after another, into a base model that is loaded once."""

    shared: SharedBase | None = None

    @property
    def version(self) -> str:
        return f"transformers {metadata.version('transformers')}"

    def dtype(self, weights: Path | None) -> str:
        return merged_dtype(self.base, weights)

    def checkpoint(self, weights: Path | None, names: Mapping[str, object]):
        self.facts = {}
        if self.settings.keep_base and weights and is_adapter(weights):
            shared, self.shared = self.shared, None  # what an error leaves behind is not used again
            if shared is None or not shared.fits(weights):
                shared = SharedBase(self.base, weights)
            model = shared.with_adapter(weights, self.facts)
            self.shared = shared
        else:
            model = load_model(self.base, weights, facts=self.facts)
        self.facts["device"] = str(model.device)
        return adapter(
            self.settings.backend, model, self.tokenizer, self.settings.batch_size, self.settings.max_length, self.settings.memory
        )

    def close(self) -> None:
        self.shared = None


def adapter(backend: str, model, tokenizer, batch_size: int | str, max_length: int, memory: float = 0.9):
    """A transformers model as an lm-eval model of the backend `hf` or `hf-paged`."""
    if backend == "hf":
        return transformers_adapter(model, tokenizer, batch_size, max_length)
    from sft_atlas.evaluate.engines.paged import PagedModel

    return PagedModel(model, tokenizer, batch_size, longest(model, max_length), memory)


def longest(model, max_length: int) -> int:
    """Tokens of the longest sequence of a model, at most ``max_length``."""
    return min(max_length, getattr(model.config, "max_position_embeddings", None) or max_length)


def transformers_adapter(model, tokenizer, batch_size: int | str, max_length: int):
    """A transformers model as an lm-eval model; ``batch_size`` may be ``auto``. Changes the model's EOS ids to those of :func:`end_ids`.

    Unlike lm-eval's, each answer ends at its own first stop text; there a batch goes on until all of its answers have the same one. Of
    likelihoods no common beginning is read twice (:mod:`~sft_atlas.evaluate.engines.likelihoods`), and log-probabilities are computed in
    float32, whatever the dtype of the logits.
    """
    from lm_eval.models.huggingface import HFLM

    class Model(HFLM):
        def _model_generate(self, context, max_length: int, stop: list[str], **settings):
            settings = {key: value for key, value in settings.items() if key != "temperature" or settings.get("do_sample")}
            return self.model.generate(
                input_ids=context,
                max_length=max_length,
                stopping_criteria=[stop_each(self.tokenizer, stop, context.shape[1])],
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                **settings,
            )

        def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            encode_pairs(self.tokenizer, requests)
            return super().loglikelihood(requests, disable_tqdm)

        def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, **_) -> list[tuple[float, bool]]:
            return self.likelihood.of([(context, continuation) for _, context, continuation in requests])

    model.generation_config.eos_token_id = end_ids(model, tokenizer)
    size = CPU_BATCH if batch_size == "auto" and model.device.type == "cpu" else batch_size
    made = Model(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=longest(model, max_length))
    made.likelihood = Likelihoods(model, made.max_length, tokenizer.pad_token_id)
    detect = functools.cache(made._detect_batch_size)  # for the longest generation, the same for every task
    made._detect_batch_size = lambda requests=None, pos=0: (
        detect() if requests is None else type(made)._detect_batch_size(made, requests, pos)
    )
    made.truncation = TruncationWatch(made)
    return with_training_tokens(made, tokenizer)


def stop_each(tokenizer, texts: list[str], start: int):
    """A stopping criterion of transformers that ends each sequence at the first of the texts after position ``start``."""
    import torch
    from transformers import StoppingCriteria

    class StopEach(StoppingCriteria):
        def __init__(self):
            self.found = StopSearch(tokenizer, texts)
            self.done = None

        def __call__(self, input_ids, scores, **kwargs):
            if self.done is None:
                self.done = torch.zeros(len(input_ids), dtype=torch.bool)
            for i, ids in enumerate(input_ids[:, max(start, input_ids.shape[1] - self.found.window) :].tolist()):
                self.done[i] = self.done[i] or self.found.ends_with_stop(ids)
            return self.done.to(input_ids.device)

    return StopEach()


class TruncationWatch(Truncation):
    """Records which generations of an HFLM were truncated.

    lm-eval decodes each answer and then reports it to its cache hook; both are watched. An answer is decoded up to its first EOS, whose
    text does not belong to it even where the tokenizer does not call the token special.
    """

    def __init__(self, adapter):
        super().__init__()
        decode, ends = adapter.tok_decode, set(end_ids(adapter.model, adapter.tokenizer))
        self.ended, self.text = False, ""

        def tok_decode(tokens, *args, **settings):
            if not isinstance(tokens, list):
                return decode(tokens, *args, **settings)
            length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
            self.ended, self.text = length < len(tokens), decode(tokens[:length], *args, **settings)
            return self.text

        adapter.tok_decode, adapter.cache_hook = tok_decode, self

    def add_partial(self, kind: str, request, answer) -> None:
        """lm-eval's hook after each answer."""
        if kind == "generate_until":
            self.note(request, answer == self.text and not self.ended)
