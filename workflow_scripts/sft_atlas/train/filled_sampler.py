"""Which samples each of several processes trains on: those that one process would train on, in the same optimiser steps.

accelerate gives every process equally many batches of equal size. Left alone, it fills the last ones with samples from the beginning
(``even_batches``), and how many depends on the micro-batch.
"""

import math
from collections.abc import Iterator

from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler
from trl import SFTTrainer

from sft_atlas.train.dataset import IGNORE_INDEX

FILLER = {"input_ids": [0, 0], "labels": [IGNORE_INDEX] * 2}  # a sample without loss, so without gradient; the last one of the data set


class FilledSampler(Sampler[int]):
    """Indices of an epoch of ``samples`` samples, shuffled as with one process; index ``samples`` is the filler.

    What remains for the last optimiser step is spread over the processes, and its batches are filled up to ``micro_batch_size``.
    """

    def __init__(self, samples: int, batch_size: int, micro_batch_size: int, processes: int, seed: int):
        self.shuffled = SeedableRandomSampler(range(samples), data_seed=seed)
        self.samples, self.remainder, self.micro_batch_size = samples, samples % batch_size, micro_batch_size
        self.last_batches = processes * math.ceil(self.remainder / (processes * micro_batch_size))

    def __len__(self) -> int:
        return self.samples - self.remainder + self.last_batches * self.micro_batch_size

    def __iter__(self) -> Iterator[int]:
        order = list(self.shuffled)
        yield from order[: self.samples - self.remainder]
        last = order[self.samples - self.remainder :]
        for batch in range(self.last_batches):  # accelerate deals batches to the processes in turn
            part = last[batch :: self.last_batches]
            yield from part + [self.samples] * (self.micro_batch_size - len(part))

    def set_epoch(self, epoch: int) -> None:
        self.shuffled.set_epoch(epoch)


class FilledTrainer(SFTTrainer):
    """TRL's trainer for several processes; the filler is the last sample of its training set."""

    def _get_train_sampler(self, train_dataset=None) -> FilledSampler:
        args, samples = self.args, len(self.train_dataset) - 1
        batch_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        return FilledSampler(samples, batch_size, args.per_device_train_batch_size, args.world_size, args.data_seed)
