"""The backend `vllm`: one vLLM engine for a base model and its LoRA adapters, or for one checkpoint with full weights.

Nothing is merged and nothing is copied: vLLM reads the base model's folder, and an adapter goes with each request. It applies adapters in the
dtype of the base model (it has no float32 kernels for them), which rounds small updates: docs/scoring.md. With several GPUs each has
an engine of its own, in a process of its own, and gets a part of the requests.
"""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.engines.engine import Engine
from sft_atlas.evaluate.engines.likelihoods import Pair
from sft_atlas.evaluate.engines.replicas import Replicas
from sft_atlas.evaluate.engines.token_model import SAMPLING, Decoding, TokenModel
from sft_atlas.models.base_model import (
    end_ids_of_folder,
    is_adapter,
    require_finite_weights,
    tokenizer_folder,
    trained_in_4bit,
    verify_checkpoint,
)

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values that vLLM accepts as max_lora_rank


class VllmEngine(Engine):
    """vLLM, started with the first checkpoint; adapters of the same base model share it."""

    def __init__(self, settings, base, tokenizer):
        super().__init__(settings, base, tokenizer)
        try:
            self.installed = metadata.version("vllm")
        except metadata.PackageNotFoundError:
            raise AtlasError(
                "backend: vllm needs vLLM, which is not installed here; `snakemake --sdm conda` installs envs/vllm.yaml"
            ) from None
        self.replicas, self.started_as, self.adapters = None, None, 0

    @property
    def version(self) -> str:
        return f"vllm {self.installed}"

    def dtype(self, weights: Path | None) -> str:
        return self.base.dtype

    def checkpoint(self, weights: Path | None, names: Mapping[str, object]):
        from transformers import AutoConfig

        adapter = weights is not None and is_adapter(weights)
        folder = self.base.path if weights is None or adapter else weights
        (self.base.verify if folder == self.base.path else lambda: None)()
        if weights is not None:
            verify_checkpoint(weights)
            require_finite_weights(weights)
        rank = self._rank(weights) if adapter else 0
        positions = getattr(
            AutoConfig.from_pretrained(folder, trust_remote_code=self.base.trust_remote_code), "max_position_embeddings", None
        )
        length = min(self.settings.max_length, positions or self.settings.max_length)
        if self.started_as is None or self.started_as[0] != folder or self.started_as[1] < rank:
            self.close()
            arguments = {
                "model": str(folder), "tokenizer": str(tokenizer_folder(self.base, weights)), "dtype": self.dtype(weights), "seed": self.settings.seed,
                "trust_remote_code": self.base.trust_remote_code, "generation_config": "vllm",  # decoding is stated with each request
                # vLLM generates one token more than a likelihood needs.
                "max_model_len": min(length + 1, positions or length + 1), "gpu_memory_utilization": self.settings.memory,
                "enable_prefix_caching": True,
            }  # fmt: skip
            if self.settings.keep_base or adapter:
                arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(size for size in RANKS if size >= rank)}
            self.replicas = Replicas(arguments, self.settings.gpus)
            self.started_as = (folder, arguments.get("max_lora_rank", 0))
        self.adapters += 1
        lora = (f"{names['dataset']}-{names['recipe']}-{names['epoch']}", self.adapters, str(weights)) if adapter else None
        how = {"adapter": f"applied by vLLM in {self.dtype(weights)}, not merged"} if adapter else {}
        self.facts = {"dtype": self.dtype(weights), "device": "cuda", **how}
        ends = end_ids_of_folder(folder, self.tokenizer)
        return VllmModel(self.replicas, self.tokenizer, length, ends, lora, str(weights or self.base.path))

    def _rank(self, weights: Path) -> int:
        settings = json.loads((Path(weights) / "adapter_config.json").read_text(encoding="utf-8"))
        if self.base.dtype not in ("bfloat16", "float16"):
            raise AtlasError(
                f"{weights}: vLLM applies adapters to bfloat16 and float16 models only, and {self.base.name} is {self.base.dtype}; use backend: hf-paged"
            )
        if trained_in_4bit(weights):
            raise AtlasError(f"{weights}: trained on a base rounded to four bits, which vLLM would not load; use backend: hf-paged")
        if settings.get("use_dora") or settings.get("modules_to_save"):
            raise AtlasError(f"{weights}: vLLM has no DoRA and no whole modules beside an adapter; use backend: hf-paged")
        rank = max([settings["r"], *(settings.get("rank_pattern") or {}).values()])
        if rank > RANKS[-1]:
            raise AtlasError(f"{weights}: vLLM takes adapters up to rank {RANKS[-1]}, not {rank}; use backend: hf-paged")
        return rank

    def close(self) -> None:
        if self.replicas is not None:
            self.replicas.close()
        self.replicas = self.started_as = None


class VllmModel(TokenModel):
    """A checkpoint in vLLM. ``lora``: name, number and folder of its adapter, if any."""

    settings = (*SAMPLING, "repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens")

    def __init__(self, replicas: Replicas, tokenizer, max_length: int, ends: list[int], lora: tuple | None, name: str):
        super().__init__(tokenizer, max_length, ends)
        self.replicas, self.lora, self.model = replicas, lora, SimpleNamespace(name_or_path=name)  # the name for messages

    def generate(self, prompts: list[list[int]], decoding: Decoding) -> list[list[int]]:
        sampling = {
            "max_tokens": decoding.max_new_tokens,
            "stop": decoding.stop,
            "stop_token_ids": self.ends,
            "temperature": decoding.temperature,
            **decoding.sampling,
        }
        return self.replicas.ask("generate", prompts, sampling, self.lora)

    def likelihoods(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        texts = [(context + continuation)[-self.max_length :] for context, continuation in pairs]
        asked = [(ids, len(continuation)) for ids, (_, continuation) in zip(texts, pairs, strict=True)]
        return self.replicas.ask(
            "likelihoods", asked, {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 1, "detokenize": False}, self.lora
        )
