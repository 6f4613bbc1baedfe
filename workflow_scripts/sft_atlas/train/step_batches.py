"""How the samples of one optimiser step are dealt to forward passes and processes: little padding, and equal work for every process.

Which samples share a step does not change, and the loss is a mean over the tokens of the whole step, so that weights change by rounding only.
The processes of a sharded model wait for each other in every forward pass; a pass takes as long as its largest batch.
"""

import bisect
import itertools
import math
import random
from collections.abc import Iterator

import numpy as np


def deal(lengths: list[int], processes: int, passes: int, limit: int, padding_free: bool) -> list[list[list[int]]]:
    """Positions in ``lengths`` (tokens of the samples of one step) by forward pass and process; the largest batches come first.

    ``limit``: samples of the greatest length that fit into one batch. No batch has more tokens than they have, padding included.
    A batch is empty only where there are fewer samples than batches.
    """
    longest_first = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    split = _pack if padding_free else _split_evenly
    groups = split(longest_first, lengths, processes, passes, limit)
    groups += [[] for _ in range(processes * passes - len(groups))]
    groups.sort(key=lambda group: -tokens([lengths[position] for position in group], padding_free))
    return [groups[start : start + processes] for start in range(0, len(groups), processes)]


def tokens(lengths: list[int], padding_free: bool) -> int:
    """Tokens that a forward pass computes for one batch, padding included."""
    return sum(lengths) if padding_free else len(lengths) * max(lengths, default=0)


def _pack(longest_first: list[int], lengths: list[int], processes: int, passes: int, limit: int) -> list[list[int]]:
    """Without padding: each sample, the longest first, to the batch with the fewest tokens, of these to the one with the fewest samples."""
    groups = [[] for _ in range(processes * passes)]
    sums = [0] * len(groups)
    for position in longest_first:
        smallest = min(range(len(groups)), key=lambda i: (sums[i], len(groups[i])))
        groups[smallest].append(position)
        sums[smallest] += lengths[position]
    return groups


def _split_evenly(longest_first: list[int], lengths: list[int], processes: int, passes: int, limit: int) -> list[list[int]]:
    """With padding: samples of similar length together, as many short ones as tokens allow.

    Several processes: the largest batch is as small as can be. Then the least padding in all, by dynamic programming over the ends of the
    batches. transformers' `BatchRebalanceSampler` balances too, but its batches may need more memory than was planned, and it repeats
    samples in a last step that is small.
    """
    sizes = np.array([lengths[position] for position in longest_first])
    n, batches = len(sizes), min(processes * passes, len(sizes))
    most = int(sizes[0]) * limit
    if processes > 1:
        bounds = range(int(sizes[0]), most + 1)
        most = bounds[bisect.bisect_left(bounds, True, key=lambda bound: _batches_needed(sizes, bound) <= batches)]
    start, stop = np.indices((n, n + 1))
    cost = np.where(stop > start, sizes[:, None] * (stop - start), np.inf)  # of a batch with the samples from start to stop
    cost[cost > most] = np.inf
    least, begins = cost[0], []
    for _ in range(batches - 1):
        totals = least[:n, None] + cost
        begins.append(totals.argmin(0))
        least = totals.min(0)
    edges = [n]
    for begin in reversed(begins):
        edges.append(int(begin[edges[-1]]))
    edges.append(0)
    return [longest_first[stop:start] for start, stop in itertools.pairwise(edges)]


def _batches_needed(sizes: np.ndarray, bound: int) -> int:
    """Batches of at most ``bound`` tokens, padding included, that hold samples of these sizes, sorted from the longest."""
    needed = position = 0
    while position < len(sizes):
        position += bound // int(sizes[position])
        needed += 1
    return needed


def passes_of(samples: int, processes: int, limit: int) -> int:
    """Forward passes of a step with this many samples; those of the last step of an epoch may be fewer."""
    return math.ceil(samples / (processes * limit))


def steps(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """The lengths of the samples of each optimiser step."""
    for start in range(0, len(lengths), batch_size):
        yield lengths[start : start + batch_size]


def useful_share(lengths: list[int], batch_size: int, processes: int, limit: int, padding_free: bool = False) -> float:
    """Tokens of the samples, as a share of those for which the processes compute or wait in an epoch; samples in random order."""
    lengths = random.Random(0).sample(lengths, len(lengths))
    computed = 0
    for step in steps(lengths, batch_size):
        for batches in deal(step, processes, passes_of(len(step), processes, limit), limit, padding_free):
            computed += processes * max(tokens([step[position] for position in batch], padding_free) for batch in batches)
    return sum(lengths) / computed
