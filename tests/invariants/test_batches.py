"""A sample's loss is its own, whatever else is in the batch, the sequence or the padding."""

import itertools

import pytest
import torch

from helpers.tiny import distance, losses, weights
from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import load_model
from sft_atlas.train import padding_free
from sft_atlas.train import trainer as training
from sft_atlas.train.dataset import IGNORE_INDEX
from sft_atlas.train.micro_batch import BatchPlan

TOLERANCE = 2e-5  # relative; float32, sums in another order


def nll(model, rows):
    """Summed negative log-likelihood of the supervised tokens of each row: dictionaries of ids, labels, and more for the model."""
    found = []
    for row in rows:
        labels = torch.tensor([row.pop("labels")])
        inputs = {key: torch.tensor([value]) for key, value in row.items()}
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[0, :-1].log_softmax(-1)
        targets = labels[0, 1:]
        found.append(-logits[targets != IGNORE_INDEX].gather(-1, targets[targets != IGNORE_INDEX, None]).sum().item())
    return found


def alone(case):
    """Each sample by itself: no padding, no neighbour."""
    return nll(load_model(case.base), [{"input_ids": sample.ids, "labels": sample.labels} for sample in case.samples.kept])


def test_the_trainers_loss_is_the_mean_over_supervised_tokens(case, tmp_path):
    """The trainer's loss is the mean negative log-likelihood of the supervised tokens, from the model's own logits."""
    facts, _ = case.train(tmp_path / "run", epochs=1, learning_rate=1e-9)
    tokens = sum(len(sample) - sample.first for sample in case.samples.kept)
    assert losses(facts)[0] == pytest.approx(sum(alone(case)) / tokens, rel=TOLERANCE)


def test_accumulation_is_the_whole_batch(case, tmp_path):
    """Batch 8 x accumulation 1 equals 1 x 8 and 2 x 4: losses, gradient norms and final weights."""
    runs = [case.train(tmp_path / f"{micro}", micro_batch_size=micro, epochs=3) for micro in (8, 1, 2)]
    for facts, folder in runs[1:]:
        assert losses(facts) == pytest.approx(losses(runs[0][0]), rel=1e-4)
        norms = [[float(entry["grad_norm"]) for entry in log["log"] if "grad_norm" in entry] for log in (facts, runs[0][0])]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert distance(weights(folder), weights(runs[0][1])) < 2e-4  # three steps of 1e-3


def test_padding_side_and_length_do_not_matter(case):
    """Padding on either side, of any length, does not change the loss of a sample."""
    model, pad = load_model(case.base), case.tokenizer.pad_token_id
    expected = alone(case)
    longest = max(map(len, case.samples.kept))
    for target in (longest, longest + 17):
        right, left = [], []
        for sample in case.samples.kept:
            gap = target - len(sample)
            mask, positions = [1] * len(sample), list(range(len(sample)))
            right.append(
                {"input_ids": sample.ids + [pad] * gap, "labels": sample.labels + [IGNORE_INDEX] * gap, "attention_mask": mask + [0] * gap}
            )
            left.append({
                "input_ids": [pad] * gap + sample.ids, "labels": [IGNORE_INDEX] * gap + sample.labels,
                "attention_mask": [0] * gap + mask, "position_ids": [0] * gap + positions,
            })  # fmt: skip
        assert nll(model, right) == pytest.approx(expected, rel=TOLERANCE)
        assert nll(model, left) == pytest.approx(expected, rel=TOLERANCE)


def test_a_sample_has_its_own_loss_in_a_padding_free_sequence(case):
    """A sample has the same loss in a padding-free sequence as alone."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    expected = alone(case)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": sample.ids, "labels": sample.labels} for sample in case.samples.kept])
    labels = batch.pop("labels")[0]
    with torch.no_grad():
        logits = load_model(case.base)(**batch, use_cache=False).logits[0].log_softmax(-1)
    bounds = batch["cu_seq_lens_q"].tolist()
    found = []
    for start, end in itertools.pairwise(bounds):
        targets, supervised = labels[start + 1 : end], labels[start + 1 : end] != IGNORE_INDEX
        found.append(-logits[start : end - 1][supervised].gather(-1, targets[supervised, None]).sum().item())
    assert found == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_padding_free_equals_padded(case, tmp_path, attention):
    """Padding-free and padded batches give the same losses, step by step, and the check before training finds no leak."""
    padding_free_run, padded = (
        case.train(tmp_path / f"{packs}", padding_free=packs, batch_size=4, attention=attention)[0] for packs in (True, False)
    )
    assert losses(padding_free_run) == pytest.approx(losses(padded), rel=1e-4)
    assert padding_free_run["steps"] == padded["steps"] == 4


def test_padding_free_is_refused_where_attention_leaks(cases, tmp_path):
    """Padding-free batches are refused before training where a kernel lets samples attend to each other."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def leaking(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return mixed.transpose(1, 2).contiguous(), None

    AttentionInterface.register("leaking", leaking)
    AttentionMaskInterface.register("leaking", sdpa_mask)
    case = cases("llama")
    model = load_model(case.base)
    sequences = [sample.ids for sample in case.samples.kept]
    padding_free.check_isolation(model, sequences, False, "x")
    model.set_attn_implementation("leaking")
    with pytest.raises(AtlasError, match="would let samples see each other: with attention leaking"):
        padding_free.check_isolation(model, sequences, False, "x")


def test_padding_free_is_refused_where_positions_do_not_restart(cases):
    """Padding-free batches are refused where positions do not restart at each sample."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.2)).eval()
    sequences = [sample.ids for sample in cases("llama").samples.kept]
    padding_free.check_isolation(model, sequences, False, "gpt2")
    forward = model.forward
    model.forward = lambda *args, position_ids=None, **kwargs: forward(
        *args, position_ids=torch.arange(position_ids.shape[1])[None], **kwargs
    )
    with pytest.raises(AtlasError, match="would let samples see each other"):
        padding_free.check_isolation(model, sequences, False, "gpt2")


def test_the_batch_that_the_trainer_makes_is_right_to_the_token(case, tmp_path):
    """In the batch that reaches the model, exactly the response and EOS of each sample carry loss, and padding does not."""
    for pad in (case.tokenizer.pad_token, case.tokenizer.eos_token):
        case.tokenizer.pad_token = pad
        settings = case.settings()
        trainer, checkpoints = training.build(
            case.base, case.samples.kept, case.tokenizer, settings, BatchPlan.of_recipe(settings), tmp_path, "x"
        )
        checkpoints.close()
        batch = next(iter(trainer.get_train_dataloader()))
        seen = set()
        for ids, labels, mask in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True):
            length = sum(mask)
            sample = next(sample for sample in case.samples.kept if sample.ids == ids[:length])
            seen.add(sample.row)
            assert labels[:length] == sample.labels and set(labels[length:]) <= {IGNORE_INDEX}
            assert labels[length - 1] == case.tokenizer.eos_token_id
        assert seen == set(range(8))
    case.tokenizer.pad_token = "<pad>"
