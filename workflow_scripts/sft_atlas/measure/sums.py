"""Loops over weights as they are stored, each element read once: numpy would pass over a block a dozen times (compiled by numba).

Arrays are float32, or uint16 that holds bfloat16 (the upper half of a float32). Rows of ROW elements are summed in float32, their sums
in float64. The compiled code is cached beside this file, or where numba's NUMBA_CACHE_DIR says.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

ROW = 4096
REORDER = {"reassoc", "contract", "nsz"}  # sums may be taken in any order, which lets them use the processor's vectors
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.uint32(16)


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
