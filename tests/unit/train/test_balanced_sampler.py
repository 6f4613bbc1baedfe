"""Which samples several processes get, in which optimiser step and in which batch."""

import random
from itertools import chain

import pytest

from sft_atlas.train.balanced_sampler import BalancedSampler
from sft_atlas.train.step_batches import deal, tokens, useful_share

BATCH = 8


def lengths_of(samples: int) -> list[int]:
    return [random.Random(n).randrange(2, 200) for n in range(samples)]


def steps(samples: int, processes: int, micro_batch_size: int, epoch: int, padding_free: bool) -> list[list[int]]:
    """The samples of each optimiser step, of all processes; checks that no process has more batches than another."""
    accumulated, dealt = BATCH // (processes * micro_batch_size), []
    for rank in range(processes):
        sampler = BalancedSampler(lengths_of(samples), micro_batch_size, processes, accumulated, rank, 3, padding_free)
        sampler.set_epoch(epoch)
        dealt.append(list(sampler))
        assert len(sampler) == len(dealt[0]) == len(dealt[-1]) and all(dealt[-1])
    grouped = [[batches[start : start + accumulated] for batches in dealt] for start in range(0, len(dealt[0]), accumulated)]
    return [sorted(index for rank in step for batch in rank for index in batch if index != samples) for step in grouped]


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize("samples", [1, 7, 8, 9, 10, 13, 24])
def test_every_number_of_processes_and_every_micro_batch_train_the_same_samples(samples, padding_free):
    expected = {epoch: steps(samples, 1, 1, epoch, False) for epoch in (0, 1)}
    assert all(sorted(chain.from_iterable(expected[epoch])) == list(range(samples)) for epoch in expected)
    assert samples <= BATCH or expected[0] != expected[1]
    for processes in (1, 2, 4):
        for micro_batch_size in (1, 2, 4, 8):
            if BATCH % (processes * micro_batch_size) == 0:
                assert {epoch: steps(samples, processes, micro_batch_size, epoch, padding_free) for epoch in (0, 1)} == expected


@pytest.mark.parametrize("padding_free", [False, True])
def test_no_batch_has_more_tokens_than_was_planned(padding_free):
    """Memory is planned for batches of the longest samples; the largest batch comes first, and equal samples are dealt equally."""
    rng = random.Random(0)
    for _ in range(200):
        processes, passes, limit = rng.choice([1, 2, 4]), rng.choice([1, 2, 3]), rng.choice([1, 2, 5])
        lengths = [round(rng.lognormvariate(4, 1)) + 2 for _ in range(rng.randint(1, processes * passes * limit))]
        dealt = deal(lengths, processes, passes, limit, padding_free)
        assert sorted(position for batches in dealt for batch in batches for position in batch) == list(range(len(lengths)))
        assert [len(batches) for batches in dealt] == [processes] * passes
        sizes = [tokens([lengths[position] for position in batch], padding_free) for batches in dealt for batch in batches]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] <= limit * max(lengths)
        assert len(lengths) < processes * passes or sizes[-1] > 0
    equal = deal([7] * 12, 2, 2, 3, padding_free)
    assert [len(batch) for batches in equal for batch in batches] == [3] * 4


def test_the_split_with_the_least_padding_is_found():
    """By hand: the long sample alone and the short ones together; two processes share the work as equally as samples allow."""
    assert deal([10, 2, 3, 2], 1, 2, 2, False) == [[[0]], [[2, 1, 3]]]
    assert deal([10, 2, 3, 2], 2, 1, 2, False) == [[[0], [2, 1, 3]]]
    assert deal([6, 5, 4, 3], 2, 1, 2, True) == [[[0, 3], [1, 2]]]


def test_the_share_of_useful_tokens_is_counted_over_all_processes():
    assert useful_share([10, 10, 10, 10], 4, 2, 1) == 1
    assert useful_share([10, 5], 2, 2, 1) == 15 / 20
    assert useful_share([10, 5, 5], 3, 1, 3) == 20 / 30
    assert useful_share([10, 5, 5], 3, 1, 3, padding_free=True) == 1
