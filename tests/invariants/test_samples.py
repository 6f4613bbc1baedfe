"""The loss mask is right to the token, with tokenizers that add BOS, EOS, both or neither."""

import pytest

from helpers.tiny import ROWS, TEMPLATE
from sft_atlas.models.prompt_template import render
from sft_atlas.models.tokenization import encode
from sft_atlas.train import dataset as sampling

SPECIAL_TOKENS = {
    "none": ("", ""),
    "bos": ("<s> ", ""),
    "bos and eos": ("<s> ", " </s>"),
}  # that the tokenizer adds before and after a text


@pytest.fixture(params=SPECIAL_TOKENS)
def special_tokens(request, tiny_tokenizer):
    """A tokenizer that adds BOS, BOS and EOS, or neither; and the number of BOS tokens that a text should have."""
    import copy

    from tokenizers import processors

    tokenizer = copy.deepcopy(tiny_tokenizer)
    before, after = SPECIAL_TOKENS[request.param]
    specials = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=f"{before}$A{after}", special_tokens=specials)
    return tokenizer, int(bool(before))


def test_the_mask_is_exact_to_the_token(special_tokens):
    """The supervised tokens are the response's and EOS, no more and no less, whatever special tokens the tokenizer adds."""
    tokenizer, _ = special_tokens
    for sample, row in zip(sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256).kept, ROWS, strict=True):
        supervised = [label for label in sample.labels if label != sampling.IGNORE_INDEX]
        assert tokenizer.decode(supervised, skip_special_tokens=False) == f" {row['response']}</s>"
        assert sample.ids[sample.first :] == supervised


def test_bos_is_counted_as_the_tokenizer_means_it(special_tokens):
    """A sample has one BOS where the tokenizer adds one, none where it does not, and one EOS, at its end."""
    tokenizer, bos = special_tokens
    for sample in sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256).kept:
        assert sample.ids.count(tokenizer.bos_token_id) == bos == int(sample.ids[0] == tokenizer.bos_token_id)
        assert sample.ids.count(tokenizer.eos_token_id) == 1 and sample.ids[-1] == tokenizer.eos_token_id


def test_eos_is_supervised_when_it_is_the_pad_token(special_tokens):
    """EOS is the last supervised token even where it is also the pad token."""
    tokenizer, _ = special_tokens
    tokenizer.pad_token = tokenizer.eos_token
    for sample in sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256).kept:
        assert sample.labels[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id


def test_training_reads_what_trl_would_read(special_tokens):
    """Ids and mask are those that TRL makes of the columns prompt and completion (without the second EOS of a tokenizer that adds one)."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer, _ = special_tokens
    rows = [dict(zip(("prompt", "completion"), render(TEMPLATE, row["instruction"], row["response"]), strict=True)) for row in ROWS]
    shape = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    trainer = SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(**shape)),
        args=SFTConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none", disable_tqdm=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    for theirs, row in zip(trainer.train_dataset, ROWS, strict=True):
        ids, first = encode(tokenizer, *render(TEMPLATE, row["instruction"], row["response"]))
        second = [tokenizer.eos_token_id] if tokenizer("x")["input_ids"][-1] == tokenizer.eos_token_id else []
        assert theirs["input_ids"] == ids + second
        assert theirs["labels"] == [sampling.IGNORE_INDEX] * first + ids[first:] + second
