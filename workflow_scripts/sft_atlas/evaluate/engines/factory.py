"""The engine that belongs to the name of a backend."""

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.engines.engine import Engine, Settings
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.backends import BACKENDS


def open_engine(settings: Settings, base: ModelFolder, tokenizer) -> Engine:
    """The engine of a backend, which loads nothing yet. Raises AtlasError where its library is not installed."""
    if settings.backend in ("hf", "hf-paged"):
        from sft_atlas.evaluate.engines.hf import TransformersEngine as engine
    elif settings.backend == "vllm":
        from sft_atlas.evaluate.engines.vllm import VllmEngine as engine
    elif settings.backend == "endpoint":
        from sft_atlas.evaluate.engines.endpoint import EndpointEngine as engine
    else:
        raise AtlasError(f"there is no backend {settings.backend!r}; there are {', '.join(BACKENDS)}")
    return engine(settings, base, tokenizer)
