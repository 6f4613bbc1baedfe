"""Prompts and tokens are those of training: the template, and ids that equal those of TRL."""

import json

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.models import prompt_template
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.models.tokenization import encode

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [
    ("How many apples?", "There are 12."),
    ("Use braces {response} and {0}", "a {dict: {}} of\nlines, ünïcode 数"),
    ("Ends early", "done</s>"),
    ("", "x"),
]
RENDERED = [prompt_template.render(TEMPLATE, instruction, response) for instruction, response in ROWS]
PROMPTS, RESPONSES = [prompt for prompt, _ in RENDERED], [response for _, response in RENDERED]


def test_template_renders_braces_literally_and_reads_only_what_it_knows():
    assert prompt_template.render(TEMPLATE, "{response} {x}", "{instruction}") == (
        "###Question: {response} {x}\n###Answer:",
        " {instruction}",
    )
    assert prompt_template.render(TEMPLATE, "q") == ("###Question: q\n###Answer:", "")
    assert prompt_template.read(json.dumps(TEMPLATE), None) == TEMPLATE
    for broken in ("{", "[]", '{"prompt": "{instruction}"}', '{"prompt": "no", "response": "{response}"}'):
        with pytest.raises(AtlasError, match="template"):
            prompt_template.read(broken, None)


def test_eos_counts_only_where_asked(tiny_tokenizer):
    with_eos, first = encode(tiny_tokenizer, *RENDERED[0])
    without, same = encode(tiny_tokenizer, *RENDERED[0], with_eos=False)
    assert with_eos == [*without, tiny_tokenizer.eos_token_id] and first == same
    assert encode(tiny_tokenizer, *RENDERED[2])[0].count(tiny_tokenizer.eos_token_id) == 1


def test_special_tokens_of_the_tokenizer_stand_as_in_training(tiny_tokenizer):
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    both = deepcopy(tiny_tokenizer)
    both.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    ids, first = encode(both, "ab", " c", with_eos=False)
    assert ids[0] == 1 and 2 not in ids and first == 1 + len(tiny_tokenizer("ab")["input_ids"])
    assert encode(both, "ab", " c")[0] == [*ids, 2]


def test_tokens_and_mask_equal_those_of_trl(tiny_base, tiny_tokenizer, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    # The last pair merges across the boundary ("app" + "les"): TRL lets the response start earlier, and so do we.
    pairs = [*RENDERED[:3], ("###Question: How many app", "les are left?")]
    data = Dataset.from_list([{"prompt": prompt, "completion": response} for prompt, response in pairs])
    config = SFTConfig(tmp_path, max_length=256, bf16=False, use_cpu=True, report_to="none")
    trainer = SFTTrainer(load_model(ModelFolder.read(tiny_base)), config, train_dataset=data, processing_class=tiny_tokenizer)
    for row, (prompt, response) in zip(trainer.train_dataset, pairs, strict=True):
        ids, first = encode(tiny_tokenizer, prompt, response)
        assert row["input_ids"] == ids
        assert row["labels"] == [-100] * first + ids[first:]
    assert first < len(tiny_tokenizer(pairs[-1][0])["input_ids"])


def test_tokenizer_without_pad_token_is_usable(tiny_base):
    assert load_tokenizer(ModelFolder.read(tiny_base)).pad_token_id is not None
