"""Tensors as they lie in safetensors files, read in blocks. Needs numpy only."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sft_atlas.job import AtlasError

BLOCK = 1 << 16  # elements read at a time: what is made of one block of two tensors stays in the cache of a core
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
UPPER = np.uint32(0xFFFF0000)


@dataclass(frozen=True)
class Tensor:
    """A tensor inside a safetensors file: ``start`` is its first byte in ``file``."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def stored_as(self) -> str:
        """numpy's name for the stored elements; bfloat16, which it lacks, is the upper half of a float32."""
        if self.dtype not in DTYPES:
            raise AtlasError(f"{self.file}: {self.name} has dtype {self.dtype}; supported are {', '.join(DTYPES)}")
        return DTYPES[self.dtype]

    def blocks(self, size: int, step: int) -> Iterator[np.ndarray]:
        """The first ``size`` elements as float32, ``step`` at a time."""
        # Read, not mapped: mapped pages would count as this process's memory, up to the size of both checkpoints.
        stored_as = self.stored_as()
        with open(self.file, "rb") as handle:
            handle.seek(self.start)
            for begin in range(0, size, step):
                yield self.widened(np.fromfile(handle, stored_as, min(step, size - begin)))

    def widened(self, stored: np.ndarray) -> np.ndarray:
        """Stored elements as float32, in their order."""
        if self.dtype == "BF16":
            return np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
        return stored.astype(np.float32, copy=False)

    def read(self) -> np.ndarray:
        """The whole tensor as float64; for LoRA factors, which are small."""
        return np.concatenate([*self.blocks(self.size, BLOCK), np.zeros(0)]).reshape(self.shape)


def pairs(before: Tensor, after: Tensor, size: int, step: int) -> Iterator[np.ndarray]:
    """The first ``size`` elements of two tensors as float32, [2, step] at a time: always the same array, for the caller to work in.

    It is filled up with zeros. Elements stand in one order in both rows, not always that of the files. ``step`` is even.
    """
    both, sides = np.zeros((2, step), np.float32), (before, after)
    paired = before.dtype == after.dtype == "BF16"
    stored = np.zeros((2, step), "<u2") if paired else [np.zeros(step, tensor.stored_as()) for tensor in sides]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(tensor.file, "rb")) for tensor in sides]
        for file, tensor in zip(files, sides, strict=True):
            file.seek(tensor.start)
        for begin in range(0, size, step):
            count = min(step, size - begin)
            for file, row in zip(files, stored, strict=True):
                if file.readinto(row[:count]) != count * row.itemsize:
                    raise AtlasError(f"{file.name} was cut short while it was read")
                row[count:] = 0
            if paired:  # two to a word: masking one and shifting the other is half the work of widening them one by one
                words, bits = stored.view("<u4"), both.view(np.uint32)
                np.bitwise_and(words, UPPER, out=bits[:, : step // 2])
                np.left_shift(words, 16, out=bits[:, step // 2 :])
            else:
                for tensor, row, wide in zip(sides, stored, both, strict=True):
                    wide[:] = tensor.widened(row)
            yield both


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
        if length > file.stat().st_size:
            raise AtlasError(f"{file} is no complete safetensors file")
        header = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    entries = {name: (entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]) for name, entry in header.items()}
    if max((8 + length + end for _, _, (_, end) in entries.values()), default=0) > file.stat().st_size:
        raise AtlasError(f"{file} is cut short: its header announces more bytes than it has")
    return {name: Tensor(name, file, dtype, shape, 8 + length + begin) for name, (dtype, shape, (begin, _)) in entries.items()}
