"""Tensors as they lie in safetensors files, a window at a time. Needs numpy only."""

import json
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sft_atlas.core.errors import AtlasError

WINDOW = 1 << 22  # bytes of a tensor that are worked on, and held in memory, at a time
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Tensor:
    """A tensor inside a safetensors file: ``start`` is its first byte in ``file``, which is ``mapped`` into memory."""

    name: str
    file: Path
    mapped: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def stored_as(self) -> np.dtype:
        """numpy's type of the stored elements; bfloat16, which it lacks, is the upper half of a float32."""
        if self.dtype not in DTYPES:
            raise AtlasError(f"{self.file}: {self.name} has dtype {self.dtype}; supported are {', '.join(DTYPES)}")
        return np.dtype(DTYPES[self.dtype])

    def windows(self, size: int, step: int) -> Iterator[np.ndarray]:
        """The first ``size`` elements as stored, ``step`` at a time: read-only views of the file, good until the next is taken."""
        stored = self.stored_as()
        for begin in range(0, size, step):
            first, count = self.start + begin * stored.itemsize, min(step, size - begin)
            yield np.frombuffer(self.mapped, stored, count, first)
            page = first - first % mmap.PAGESIZE
            self.mapped.madvise(mmap.MADV_DONTNEED, page, first + count * stored.itemsize - page)  # or all of it counts as our memory

    def read(self) -> np.ndarray:
        """The whole tensor as float32."""
        return widened(np.frombuffer(self.mapped, self.stored_as(), self.size, self.start)).reshape(self.shape)


def widened(stored: np.ndarray) -> np.ndarray:
    """Stored elements as float32."""
    if stored.dtype == np.uint16:
        return np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
    return stored.astype(np.float32, copy=False)


def tensors(folder: Path, name: str = "model") -> dict[str, Tensor]:
    """The tensors of ``{name}.safetensors``, or of the shards in ``{name}.safetensors.index.json``, by name."""
    index = folder / f"{name}.safetensors.index.json"
    if (folder / f"{name}.safetensors").exists():
        files = [folder / f"{name}.safetensors"]
    elif index.exists():
        files = [folder / file for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    else:
        raise AtlasError(f"{folder} holds neither {name}.safetensors nor {index.name}")
    found: dict[str, Tensor] = {}
    for file in files:
        if not file.exists():
            raise AtlasError(f"{index} names {file.name}, which is not there")
        found |= _header(file)
    return {key: tensor for key, tensor in found.items() if not key.endswith("rotary_emb.inv_freq")}  # no parameter


def _header(file: Path) -> dict[str, Tensor]:
    # The format: the header's length as a 64-bit little-endian integer, the header as JSON, then the bytes of the tensors.
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 0 < length <= file.stat().st_size - 8:
            raise AtlasError(f"{file} is no complete safetensors file")
        header = json.loads(handle.read(length))
        # The whole file at once: the system then maps many pages at a time and reads ahead over the borders of tensors.
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    entries = {name: (entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]) for name, entry in header.items()}
    if max((8 + length + end for _, _, (_, end) in entries.values()), default=0) > file.stat().st_size:
        raise AtlasError(f"{file} is cut short: its header announces more bytes than it has; fetch or make it again")
    return {name: Tensor(name, file, mapped, dtype, shape, 8 + length + begin) for name, (dtype, shape, (begin, _)) in entries.items()}
