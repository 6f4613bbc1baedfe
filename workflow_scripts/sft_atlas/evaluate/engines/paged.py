"""The backend `hf-paged`: transformers' continuous batching with paged attention and prefix sharing.

An answer that ends makes room for the next one at once, prompts with a common beginning share its pages, and nothing is padded.
"""

import math

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.engines.likelihoods import Likelihoods, Pair
from sft_atlas.evaluate.engines.token_model import Decoding, TokenModel
from sft_atlas.evaluate.engines.tokens import CPU_BATCH, StopSearch
from sft_atlas.models.base_model import end_ids

PAGE = {"cpu": 32, "gpu": 256}  # tokens of a page of the cache; prompts share whole pages
WAIT = 600  # seconds without any token after which generation is given up


class PagedModel(TokenModel):
    """A transformers model; on a CPU ``batch_size`` answers at a time, on a GPU as many as ``memory`` (a share of what is free) holds."""

    def __init__(self, model, tokenizer, batch_size: int | str, max_length: int, memory: float):
        super().__init__(tokenizer, max_length, end_ids(model, tokenizer))
        self.model, self.memory = model, memory
        self.likelihood = Likelihoods(model, max_length, tokenizer.pad_token_id)
        self.at_once = CPU_BATCH if batch_size == "auto" else int(batch_size)
        self.kind = "cpu" if model.device.type == "cpu" else "gpu"

    def generate(self, prompts: list[list[int]], decoding: Decoding) -> list[list[int]]:
        search, tokens = StopSearch(self.tokenizer, decoding.stop), {}
        config, settings = self._generation_config(decoding), self._batching(prompts, decoding)
        with self.model.continuous_batching_context_manager(generation_config=config, continuous_batching_config=settings) as manager:
            # Sorted, so that prompts with a common beginning come together and find its pages in the cache.
            order = sorted(range(len(prompts)), key=lambda i: prompts[i])
            for i in order:
                manager.add_request(
                    prompts[i], request_id=str(i), max_new_tokens=decoding.max_new_tokens, streaming=True, eos_token_id=self.ends
                )
            while len(tokens) < len(prompts):
                result = manager.get_result(timeout=WAIT)
                if result is None:
                    reason = manager.background_thread_status.fatal_error
                    raise AtlasError(f"continuous batching stopped: {reason or f'no token in {WAIT} s'}; use `backend: hf`")
                if result.error is not None:
                    raise AtlasError(f"continuous batching failed on a prompt of {len(result.prompt_ids)} tokens: {result.error}")
                i = int(result.request_id)
                if i in tokens:  # it went on for a token or two while it was cancelled
                    continue
                if result.is_finished():
                    tokens[i] = result.generated_tokens
                elif search.ends_with_stop(result.generated_tokens):
                    tokens[i] = result.generated_tokens
                    manager.cancel_request(result.request_id)
        return [tokens[i] for i in range(len(prompts))]

    def _generation_config(self, decoding: Decoding):
        from transformers import GenerationConfig

        sampling = {"temperature": decoding.temperature, **decoding.sampling} if decoding.temperature else {}
        return GenerationConfig(
            max_new_tokens=decoding.max_new_tokens, do_sample=bool(decoding.temperature), eos_token_id=self.ends,
            pad_token_id=self.tokenizer.pad_token_id, **sampling,
        )  # fmt: skip

    def _batching(self, prompts: list[list[int]], decoding: Decoding):
        import torch
        from transformers import ContinuousBatchingConfig

        page, shared = PAGE[self.kind], {"seed": torch.initial_seed() % 2**31}
        if self.kind == "gpu":
            return ContinuousBatchingConfig(page_size=page, max_memory_percent=self.memory, **shared)
        # By default it would take a part of the machine's memory, which is not this job's.
        sequence = max(map(len, prompts)) + decoding.max_new_tokens + 1
        at_once = min(self.at_once, len(prompts))
        return ContinuousBatchingConfig(
            page_size=page, num_blocks=2 * at_once * (math.ceil(sequence / page) + 1), max_batch_tokens=max(256, at_once),
            max_requests_per_batch=at_once, **shared,
        )  # fmt: skip

    def likelihoods(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        return self.likelihood.of(pairs)
