"""One interface of all inference engines: a base model, loaded once, whose checkpoints answer requests as lm-eval models.

    engine = open_engine(Settings("hf-paged", ...), base, tokenizer)
    model = engine.checkpoint(weights, names)     an lm-eval model; the one before it may answer no more
    engine.close()

What an lm-eval model of an engine gives besides answers is `truncation` (:class:`Truncation`): which answers the token limit cut off.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.models.base_model import ModelFolder, is_adapter

DEFAULT_LENGTH = 256  # tokens that lm-eval lets a model generate where a task states no limit


@dataclass(frozen=True)
class Settings:
    """What an engine is opened with; of a suite in the study file.

    ``max_length``: tokens of the longest prompt and answer. ``memory``: share of a GPU's memory. ``endpoint``: settings of a server, as in the
    study file. ``keep_base``: load a base model so that one LoRA adapter after another can be applied to it.
    """

    backend: str
    max_length: int
    batch_size: int | str = 8
    seed: int = 0
    memory: float = 0.9
    gpus: int = 1
    endpoint: Mapping[str, object] | None = None
    keep_base: bool = False


class Engine(ABC):
    """A base model behind one library or server. Nothing is loaded before the first :meth:`checkpoint`.

    ``facts``: what is known of the last checkpoint once it is loaded (device, dtype, how its adapter is applied), for the provenance.
    """

    def __init__(self, settings: Settings, base: ModelFolder, tokenizer):
        self.settings, self.base, self.tokenizer = settings, base, tokenizer
        self.facts: dict[str, object] = {}

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of the library, or of the server and its model: part of a score's key."""

    @abstractmethod
    def dtype(self, weights: Path | None) -> str:
        """The data type in which a checkpoint (None: the base model) runs, known before it is loaded: part of a score's key."""

    @abstractmethod
    def checkpoint(self, weights: Path | None, names: Mapping[str, object]):
        """A checkpoint as an lm-eval model. ``names``: its keys model, dataset, recipe and epoch."""

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds."""


class Truncation:
    """Which answers were truncated: neither an end token nor a stop text was in what the model wrote. By the arguments of the request."""

    def __init__(self):
        self.truncated: dict[str, bool | None] = {}

    def note(self, request: tuple, truncated: bool | None) -> None:
        self.truncated[self.key(request)] = truncated

    def of(self, request: tuple) -> bool | None:
        """Whether the answer to a request was truncated; None where that is unknown, as for likelihoods."""
        return self.truncated.get(self.key(request)) if isinstance(request[-1], Mapping) else None

    @staticmethod
    def key(request: tuple) -> str:
        """The arguments of a request as text."""
        return json.dumps(list(request), sort_keys=True, default=str)


def merged_dtype(base: ModelFolder, weights: Path | None) -> str:
    """The dtype in which transformers runs a checkpoint: the base model's, and float32 with a LoRA adapter, which is merged."""
    return "float32" if weights and is_adapter(weights) else base.dtype
