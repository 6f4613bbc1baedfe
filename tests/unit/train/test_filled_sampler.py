"""Which samples several processes get, and in which optimiser step."""

from itertools import chain

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from sft_atlas.train.filled_sampler import FilledSampler

BATCH = 8


def steps(samples: int, processes: int, micro_batch_size: int, epoch: int) -> list[list[int]]:
    """The samples of each optimiser step, of all processes, as accelerate deals them; checks that no process has more batches than another."""
    sampler = FilledSampler(samples, BATCH, micro_batch_size, processes, seed=3)
    dealt = []
    for rank in range(processes):
        sampler.set_epoch(epoch)
        shard = BatchSamplerShard(BatchSampler(sampler, micro_batch_size, drop_last=False), processes, rank)
        dealt.append(list(shard))
        assert len(shard) == len(dealt[0]) == len(dealt[-1])
    accumulated = BATCH // (processes * micro_batch_size)
    grouped = [[batches[start : start + accumulated] for batches in dealt] for start in range(0, len(dealt[0]), accumulated)]
    return [sorted(index for rank in step for batch in rank for index in batch if index != samples) for step in grouped]


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 10, 13, 24])
def test_every_number_of_processes_and_every_micro_batch_train_the_same_samples(samples):
    expected = {epoch: steps(samples, 1, 1, epoch) for epoch in (0, 1)}
    assert all(sorted(chain.from_iterable(expected[epoch])) == list(range(samples)) for epoch in expected)
    assert samples <= BATCH or expected[0] != expected[1]
    for processes in (1, 2, 4):
        for micro_batch_size in (1, 2, 4, 8):
            if BATCH % (processes * micro_batch_size) == 0:
                assert {epoch: steps(samples, processes, micro_batch_size, epoch) for epoch in (0, 1)} == expected


def test_what_remains_is_spread_over_the_processes():
    """Five samples on two processes in batches of up to four: three and two, not four and one."""
    shards = [list(BatchSamplerShard(BatchSampler(FilledSampler(5, 8, 4, 2, seed=0), 4, drop_last=False), 2, rank)) for rank in (0, 1)]
    assert [[sum(index < 5 for index in batch) for batch in shard] for shard in shards] == [[3], [2]]
