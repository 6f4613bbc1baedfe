"""Width and module names of base models that are local or pre-trained here, read without torch and before any job."""

import functools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.study.schema import Model

WIDTHS = ("hidden_size", "n_embd", "d_model")  # names of the width in configurations of transformers
LARGEST_HEADER = 100_000_000  # bytes, the limit of safetensors


@dataclass(frozen=True)
class Layout:
    """Width of a model and the names of its modules with weights; None and () where they are not known."""

    width: int | None
    modules: tuple[str, ...]

    def matches(self, target: str) -> bool:
        """Whether PEFT would find a module for an entry of `targets`."""
        return any(module == target or module.endswith(f".{target}") for module in self.modules)

    @property
    def leaves(self) -> list[str]:
        """Last parts of the names, each once."""
        return sorted({module.rpartition(".")[2] for module in self.modules})


def layout(model: Model, path: Callable[[str], str]) -> Layout | None:
    """The layout of a base model; None where it is in a package or on the hub. ``path`` resolves a `path` of the study file."""
    if model.pretrain:
        inner = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]
        return Layout(model.pretrain.hidden_size, tuple(f"model.layers.{i}.{name}" for i in range(model.pretrain.layers) for name in inner))
    return _local(path(model.path)) if model.path else None


@functools.cache
def _local(folder: str) -> Layout | None:
    """What a folder's files say; None where they cannot be read, which rule ``fetch_model`` explains."""
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        width = next((config[key] for key in WIDTHS if isinstance(config.get(key), int)), None)
        index = Path(folder, "model.safetensors.index.json")
        if index.is_file():
            tensors = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            tensors = [name for file in sorted(Path(folder).glob("*.safetensors")) for name in _header(file)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        return None
    return Layout(width, tuple(name.removesuffix(".weight") for name in tensors if name.endswith(".weight")))


def _header(file: Path) -> dict:
    with open(file, "rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        if size > LARGEST_HEADER:
            raise ValueError("no safetensors file")
        return json.loads(handle.read(size))
