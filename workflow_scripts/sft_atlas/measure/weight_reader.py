"""Tensors as they are stored in safetensors files, read a window at a time, and sums over them in one pass (compiled by numba).

The compiled loops read each element once, where numpy would pass over a block a dozen times. They take float32, or uint16 that holds
bfloat16 (the upper half of a float32). Rows of ROW elements are summed in float32, their sums in float64. The compiled code is cached
beside this file, or where numba's NUMBA_CACHE_DIR says.
"""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit, types
from numba.extending import overload

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.core.integrity import safetensors_header

WINDOW = 1 << 22  # bytes of a tensor that are worked on, and held in memory, at a time
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
ROW = 4096
REORDER = {"reassoc", "contract", "nsz"}  # sums may be taken in any order, which lets them use the processor's vectors
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.uint32(16)


@dataclass(frozen=True)
class StoredTensor:
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


def tensors(folder: Path, name: str = "model") -> dict[str, StoredTensor]:
    """The tensors of ``{name}.safetensors``, or of the shards in ``{name}.safetensors.index.json``, by name."""
    index = folder / f"{name}.safetensors.index.json"
    if (folder / f"{name}.safetensors").exists():
        files = [folder / f"{name}.safetensors"]
    elif index.exists():
        files = [folder / file for file in sorted(set(read_json(index, "fetch or make the folder again")["weight_map"].values()))]
    else:
        raise AtlasError(f"{folder} holds neither {name}.safetensors nor {index.name}")
    stored: dict[str, StoredTensor] = {}
    for file in files:
        if not file.exists():
            raise AtlasError(f"{index} names {file.name}, which is not there")
        stored |= _header(file)
    return {key: tensor for key, tensor in stored.items() if not key.endswith("rotary_emb.inv_freq")}  # a buffer


def _header(file: Path) -> dict[str, StoredTensor]:
    first, header = safetensors_header(file)
    with open(file, "rb") as handle:
        # The whole file at once: the system then maps many pages at a time and reads ahead over the borders of tensors.
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    return {
        name: StoredTensor(name, file, mapped, entry["dtype"], tuple(entry["shape"]), first + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def _wide(element):
    """A stored element as float32; inside compiled functions only."""


@overload(_wide)
def _compiled_wide(element):
    if element == types.uint16:
        return lambda element: np.uint32(np.uint32(element) << HALF).view(np.float32)
    return lambda element: element


def _signatures(result, number: int, *others):
    """One for each stored type: ``number`` arrays of it, which may be read-only and begin at any byte, then ``others``."""
    arrays = [types.Array(stored, 1, "C", readonly=True, aligned=False) for stored in (types.float32, types.uint16)]
    return [result(*[array] * number, *others) for array in arrays]


@njit(_signatures(types.UniTuple(types.float32, 5), 2), fastmath=REORDER, nogil=True, cache=True)
def _row(old, new):
    base, product, change, absolute, changed = ZERO, ZERO, ZERO, ZERO, ZERO
    for i in range(old.size):
        weight = _wide(old[i])
        delta = _wide(new[i]) - weight
        base += weight * weight
        product += weight * delta
        change += delta * delta
        absolute += abs(delta)
        changed += ONE if delta != ZERO else ZERO
    return base, product, change, absolute, changed


@njit(_signatures(types.UniTuple(types.float64, 5), 2), nogil=True, cache=True)
def differences(old, new):
    """Of two arrays of one size and type: sum of squares of ``old``; of ``old`` times the difference; of squared differences; of absolute
    differences; number of differences other than 0."""
    base, product, change, absolute, changed = 0.0, 0.0, 0.0, 0.0, 0.0
    for begin in range(0, old.size, ROW):
        row = _row(old[begin : begin + ROW], new[begin : begin + ROW])
        base += row[0]
        product += row[1]
        change += row[2]
        absolute += row[3]
        changed += row[4]
    return base, product, change, absolute, changed


@njit(_signatures(types.float32, 1, types.float32[::1]), fastmath=REORDER, nogil=True, cache=True)
def _widen_row(stored, out):
    squares = ZERO
    for i in range(stored.size):
        weight = _wide(stored[i])
        out[i] = weight
        squares += weight * weight
    return squares


@njit(_signatures(types.float64, 1, types.float32[::1]), nogil=True, cache=True)
def widen(stored, out):
    """Write an array as float32 into ``out``, of the same size, and sum its squares."""
    squares = 0.0
    for begin in range(0, stored.size, ROW):
        squares += _widen_row(stored[begin : begin + ROW], out[begin : begin + ROW])
    return squares
