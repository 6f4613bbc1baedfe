"""The batches of each process: those that one process would train on, in the same optimiser steps, dealt by length."""

from collections.abc import Iterator

from accelerate.data_loader import SeedableRandomSampler
from transformers import TrainerCallback
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import SFTTrainer

from sft_atlas.train.dataset import IGNORE_INDEX
from sft_atlas.train.step_batches import deal, passes_of

FILLER = {"input_ids": [0, 0], "labels": [IGNORE_INDEX] * 2}  # a sample without loss, so without gradient; the last one of the data set


class BalancedSampler(BatchRebalanceSampler):
    """Batches of one process for an epoch: shuffled as one process shuffles, dealt within each optimiser step by :func:`deal`.

    Index ``len(lengths)`` is the filler, the batch of a process for which no sample is left. Every process gets equally many batches.
    It is a `BatchRebalanceSampler` because the trainer leaves the batches of one as they are; all its methods are replaced.
    """

    def __init__(
        self, lengths: list[int], micro_batch_size: int, processes: int, accumulation: int, rank: int, seed: int, padding_free: bool
    ):
        batch_size = micro_batch_size * accumulation * processes
        super().__init__(lengths, batch_size, processes, accumulation, rank=rank, drop_last=False)
        self.micro_batch_size, self.padding_free = micro_batch_size, padding_free
        self.shuffled = SeedableRandomSampler(range(len(lengths)), data_seed=seed)

    def __len__(self) -> int:
        full, remainder = divmod(len(self.lengths), self.effective_batch_size)
        return full * self.grad_accum + passes_of(remainder, self.dp_size, self.micro_batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.shuffled)
        for start in range(0, len(order), self.effective_batch_size):
            step = order[start : start + self.effective_batch_size]
            passes = passes_of(len(step), self.dp_size, self.micro_batch_size)
            lengths = [self.lengths[index] for index in step]
            for batches in deal(lengths, self.dp_size, passes, self.micro_batch_size, self.padding_free):
                yield [step[position] for position in batches[self.rank]] or [len(self.lengths)]

    def set_epoch(self, epoch: int) -> None:
        self.shuffled.set_epoch(epoch)


class BalancedTrainer(SFTTrainer):
    """TRL's trainer for steps of several batches; the filler is the last sample of its training set."""

    def _get_train_sampler(self, train_dataset=None) -> BalancedSampler:
        args = self.args
        sampler = BalancedSampler(
            [len(ids) for ids in self.train_dataset["input_ids"]][:-1],
            args.per_device_train_batch_size,
            args.world_size,
            args.gradient_accumulation_steps,
            args.process_index,
            args.data_seed,
            args.padding_free,
        )
        self.add_callback(EpochCallback(sampler))
        return sampler


class EpochCallback(TrainerCallback):
    """Tells the sampler the epoch. With several processes, accelerate 1.15 does not in an epoch that is resumed in its middle."""

    def __init__(self, sampler: BalancedSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **_):
        self.sampler.set_epoch(state.global_step * state.num_train_epochs // state.max_steps)
