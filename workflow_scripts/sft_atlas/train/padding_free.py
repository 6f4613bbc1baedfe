"""Whether samples that lie end to end in one sequence are kept apart: tried on the model itself, before it is trained."""

import torch
from transformers import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sft_atlas.core.errors import AtlasError

LONGEST = 48  # tokens of a sample that are enough to show a leak
LEAK, SHIFT = 1e-5, 5e-2  # largest difference allowed, in standard deviations of the logits: other neighbour; sample alone


def check_isolation(model, sequences: list[list[int]], autocast: bool, name: str) -> None:
    """Raise AtlasError unless the logits of a sample do not depend on the sample before it in the sequence.

    ``sequences``: token ids of at least one sample; the first and the last are used. Attention across the boundary shows when the
    neighbour is changed: the logits must not. Wrong positions show against the sample alone, within the rounding of the kernels.
    """
    neighbour, sample = (ids[:LONGEST] for ids in (sequences[0], sequences[-1]))
    other = [neighbour[0], *reversed(neighbour[1:])] if len(set(neighbour[1:])) > 1 else [sample[0]] * len(neighbour)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        packed, changed, alone = (_logits(model, group)[-len(sample) :] for group in ([neighbour, sample], [other, sample], [sample]))
    model.train(was_training)
    scale = alone.std()
    leak, shift = ((packed - changed).abs().max() / scale).item(), ((packed - alone).abs().max() / scale).item()
    if not (leak <= LEAK and shift <= SHIFT):
        kernel = model.config._attn_implementation
        raise AtlasError(
            f"{name}: padding_free: true would let samples see each other: with attention {kernel} a sample's logits change by {leak:.2g} standard deviations"
            f" when its neighbour changes, and differ by {shift:.2g} from those of the sample alone. Remove padding_free, or install a kernel for"
            " sequences of variable length (flash-attn) that this model supports"
        )


class IsolationCallback(TrainerCallback):
    """Runs :func:`check_isolation` on the model that is trained: after it was sharded, in every process."""

    def __init__(self, sequences: list[list[int]], autocast: bool, name: str):
        self.arguments = sequences, autocast, name

    def on_train_begin(self, args, trainer_state, control, model=None, **_):
        check_isolation(model, *self.arguments)


def _logits(model, group: list[list[int]]) -> torch.Tensor:
    """Logits [T, V] of sequences laid end to end, as the trainer does it."""
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([{"input_ids": ids, "labels": ids} for ids in group])
    del batch["labels"]
    inputs = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
    return model(**inputs, use_cache=False).logits[0].float()
