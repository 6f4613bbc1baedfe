"""Chat templates: which tokens of a conversation carry the loss, and that training and scoring see the same prompt."""

import json

import pytest

from helpers.chat import chat_tokenizer
from sft_atlas.core.errors import AtlasError
from sft_atlas.models import prompt_template
from sft_atlas.models.prompt_template import assistant, render, render_after, user
from sft_atlas.models.tokenization import encode_chat, encode_row, prompt_ids
from sft_atlas.train import dataset

MESSAGES = [
    *user("How many?"),
    *assistant("12 apples."),
    *user("And left?"),
    *assistant("There are\nnone"),
    *user("Sure?"),
    *assistant("yes"),
]
TURNS = [turn["content"] for turn in MESSAGES]
CHATML = ("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "{}<|im_end|>", "\n")
LLAMA3 = ("<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "{}<|eot_id|>", "")
GEMMA = ("<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", "{}<end_of_turn>", "\n")
PHI3 = ("<|user|>\n{}<|end|>\n<|assistant|>\n", "{}<|end|>", "\n")
QWEN_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
LLAMA_DATE = "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
# Template, whether the tokenizer adds BOS itself, text before the first turn, (prompt of a turn, supervised reply, between exchanges).
TEMPLATES = [
    ("qwen2_5", False, QWEN_SYSTEM, CHATML),
    ("qwen3", False, "", (CHATML[0] + "<think>\n\n</think>\n\n", *CHATML[1:])),
    ("llama3", True, "<s>", LLAMA3),
    ("llama3", False, "<s>", LLAMA3),
    ("llama3_2", True, "<s>" + LLAMA_DATE, LLAMA3),
    ("gemma", True, "<s>", GEMMA),
    ("phi3", False, "", PHI3),
    ("phi3", True, "<s>", PHI3),  # the tokenizer's own BOS stays where the template has none
    ("llama2", True, "<s>", ("[INST] {} [/INST]", " {} </s>", "<s>")),
]


@pytest.mark.parametrize(("name", "adds_bos", "begin", "parts"), TEMPLATES)
def test_the_loss_is_on_the_tokens_of_every_reply_and_on_no_other(name, adds_bos, begin, parts):
    tokenizer = chat_tokenizer(name, adds_bos)
    template = prompt_template.read('"chat"', tokenizer)
    prompt, reply, between = parts
    pieces, labels = [begin], []
    for i in range(0, 6, 2):
        pieces[-1] += (between if i else "") + prompt.format(TURNS[i])
        pieces += [reply.format(TURNS[i + 1]), ""]
    ids = []
    for i, piece in enumerate(pieces[:-1]):  # the last is what follows the last reply, which is left out
        tokens = tokenizer(piece, add_special_tokens=False)["input_ids"]
        ids += tokens
        labels += tokens if i % 2 else [dataset.IGNORE_INDEX] * len(tokens)
    [sample] = dataset.tokenize([{"instruction": "x", "response": "y", "messages": json.dumps(MESSAGES)}], tokenizer, template, 512).kept
    assert sample.ids == ids
    assert sample.labels == labels
    assert sample.supervised == sum(label != dataset.IGNORE_INDEX for label in labels)
    assert labels[-1] == tokenizer.eos_token_id  # so that generation stops there


def test_the_mask_is_that_of_the_library():
    from trl.chat_template_utils import get_training_chat_template

    tokenizer = chat_tokenizer("llama3")
    marked = get_training_chat_template(tokenizer)  # with {% generation %} around replies
    both = tokenizer.apply_chat_template(MESSAGES, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True)
    ids, spans = encode_chat(tokenizer, prompt_template.read('"chat"', tokenizer), MESSAGES)
    assert ids == both["input_ids"]
    assert [any(start <= i < stop for start, stop in spans) for i in range(len(ids))] == [bool(mark) for mark in both["assistant_masks"]]


@pytest.mark.parametrize(("name", "adds_bos"), [(name, adds_bos) for name, adds_bos, _, _ in TEMPLATES])
def test_scoring_sees_the_prompt_of_training(name, adds_bos):
    tokenizer = chat_tokenizer(name, adds_bos)
    template = prompt_template.read('"chat"', tokenizer)
    ids, [(first, stop)] = encode_row(tokenizer, template, {"instruction": "Use {braces}?", "response": "yes"})
    prompt, response = render(template, "Use {braces}?", "yes")
    assert prompt_ids(tokenizer, [prompt])[0] == ids[:first]
    assert prompt_ids(tokenizer, [prompt + response])[0] == ids[: len(prompt_ids(tokenizer, [prompt + response])[0])]
    assert stop == len(ids) and ids.count(tokenizer.bos_token_id) == (1 if adds_bos or name.startswith("llama") else 0)
    third = render_after(template, [(TURNS[0], TURNS[1]), (TURNS[2], TURNS[3])], TURNS[4])
    ids, spans = encode_chat(tokenizer, template, MESSAGES)
    assert prompt_ids(tokenizer, [third])[0] == ids[: spans[2][0]]


def test_the_hash_covers_template_and_special_tokens():
    first, again = (prompt_template.read('"chat"', chat_tokenizer("llama3")) for _ in range(2))
    assert prompt_template.fingerprint(first) == prompt_template.fingerprint(json.loads(json.dumps(again)))
    prints = {prompt_template.fingerprint(prompt_template.read('"chat"', chat_tokenizer(name))) for name in ("llama3", "llama3_2", "gemma")}
    other = prompt_template.fingerprint(first | {"special_tokens": {**first["special_tokens"], "bos_token": "<bos>"}})
    assert len({*prints, other, prompt_template.fingerprint({"prompt": "{instruction}", "response": "{response}"})}) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has no chat template; choose a model that has one, or give `template: "),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", r"ends a reply with '\\n', in which there is no special token"),
        ("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}</s>{% endif %}{% endfor %}", "does not show an assistant's reply"),
        ("{% if add_generation_prompt %}x{% endif %}{% for m in messages %}{{ m['content'] }}</s>{% endfor %}", "does not begin a reply with its generation"),
        ("{{ raise_exception('no') }}", "the chat template refuses a conversation of user: no"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_in_one_line(text, said):
    tokenizer = chat_tokenizer("gemma")
    tokenizer.chat_template = text
    with pytest.raises(AtlasError, match=said) as caught:
        prompt_template.read('"chat"', tokenizer)
    assert "\n" not in str(caught.value)


def test_a_conversation_that_the_template_refuses_or_rewrites_is_named_by_its_row():
    def row(*messages):
        return {"instruction": "x", "response": "y", "messages": json.dumps(messages)}

    tokenizer = chat_tokenizer("gemma")
    template = prompt_template.read('"chat"', tokenizer)
    system = {"role": "system", "content": "Be brief."}
    with pytest.raises(
        AtlasError, match=r"row 1 of the training set: .* refuses a conversation of system, user.*: System role not supported"
    ):
        dataset.tokenize([row(*MESSAGES), row(system, *MESSAGES)], tokenizer, template, 512)
    tokenizer = chat_tokenizer("qwen2_5")
    # Numbers the turns from the end, so that each turn changes all before it, and is none of those that TRL knows.
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ loop.revindex }}{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}{% endif %}"
    template = {"chat": tokenizer.chat_template, "special_tokens": {}, "bos": "", "before": "", "after": "<|im_end|>", "tail": ""}
    with pytest.raises(AtlasError, match="row 0 of the training set: the chat template changes the conversation up to reply 1"):
        dataset.tokenize([row(*MESSAGES)], tokenizer, template, 512)


def test_the_preflight_shows_the_mask_of_every_turn():
    tokenizer = chat_tokenizer("gemma")
    samples = dataset.tokenize([{"messages": json.dumps(MESSAGES)}], tokenizer, prompt_template.read('"chat"', tokenizer), 512)
    page = dataset.preflight(samples, tokenizer, "m/d/r")
    shown = (
        "<s><start_of_turn>user\nHow many?<end_of_turn>\n<start_of_turn>model\n[[12 apples.<end_of_turn>]]\n<start_of_turn>user\nAnd left?<end_of_turn>\n"
        "<start_of_turn>model\n[[There are\nnone<end_of_turn>]]\n<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n[[yes<end_of_turn>]]\n"
    )
    assert shown in page and "scored prompt: the same tokens" in page and "(token '<end_of_turn>'" in page


def test_a_conversation_that_is_too_long_is_dropped_whole():
    tokenizer = chat_tokenizer("gemma")
    template = prompt_template.read('"chat"', tokenizer)
    rows = [{"messages": json.dumps(MESSAGES[:2])}, {"messages": json.dumps(MESSAGES)}]
    length = len(encode_row(tokenizer, template, rows[1])[0])
    assert not dataset.tokenize(rows, tokenizer, template, length).overlong
    assert dataset.tokenize(rows, tokenizer, template, length - 1).overlong == [1]
