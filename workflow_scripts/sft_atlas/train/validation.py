"""The loss on held-out samples after every epoch, with the loss mask of training, averaged over all supervised tokens."""

import math

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from sft_atlas.train.balanced_sampler import FILLER
from sft_atlas.train.dataset import Sample

LOSS, TOKENS = "eval_loss", "eval_tokens"  # in the trainer's log


class ValidationCallback(TrainerCallback):
    """Logs the loss on ``samples`` at the end of every epoch. It uses no random numbers, so that training goes on as without it."""

    def __init__(self, samples: list[Sample]):
        self.samples = sorted(samples, key=len, reverse=True)
        self.trainer = None  # set by the caller, who makes the trainer with this callback

    def on_epoch_end(self, args, trainer_state, control, **_):
        model = self.trainer.model
        model.eval()
        loss, tokens = mean_loss(self.trainer, self.samples)
        self.trainer.log({LOSS: loss, TOKENS: tokens})  # while the model is in this mode, or TRL would close its means of training
        model.train()


def mean_loss(trainer, samples: list[Sample]) -> tuple[float, int]:
    """Mean negative log-likelihood in nats of the supervised tokens of ``samples``, and their number; every process gets both."""
    size, processes = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    rows = [{"input_ids": sample.ids, "labels": sample.labels} for sample in samples]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches += [[FILLER]] * (-len(batches) % processes)  # every process must run the model equally often
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad(), trainer.compute_loss_context_manager():
        for batch in batches[trainer.accelerator.process_index :: processes]:
            inputs = trainer._prepare_inputs(trainer.data_collator(batch))
            output = trainer.model_wrapped(**inputs, fused_lm_head=True, use_cache=False)  # TRL's head: log_probs are 0 without loss
            sums += torch.stack([-output.log_probs.double().sum(), output.label_mask.double().sum()]).cpu()
    for module in trainer.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # the last forward pass leaves weights gathered, which the callbacks after this one would take for shards
    nll, tokens = trainer.accelerator.reduce(sums.to(trainer.accelerator.device)).tolist()
    return (nll / tokens if tokens else math.nan), round(tokens)
