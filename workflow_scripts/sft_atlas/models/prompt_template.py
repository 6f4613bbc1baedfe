"""The prompt template of training and of every measurement: a pair of strings, or the chat template of the base model's tokenizer.

A template in use is a dictionary that JSON can hold, because a run records what it was trained with: ``prompt`` and ``response``, or for
`template: chat` the keys of :func:`read`.
"""

import hashlib
import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.core.log import LOG
from sft_atlas.study.messages import explain
from sft_atlas.study.paths import RECORD
from sft_atlas.study.schema import CHAT, Template

DELIMITER = "\n\n"  # between examples, as in lm-eval
# Variables of chat templates, where they have them: no empty thinking in some turns only, and the same date every day.
VARIABLES = {"enable_thinking": False, "date_string": "26 Jul 2024"}
OWN = "give `template: {prompt: ..., response: ...}`"
FIXED_DATE = """\
{% macro strftime_now(format) %}{% if format == "%Y-%m-%d" %}2024-07-26{% else %}26 Jul 2024{% endif %}{% endmacro %}
"""


def parse(text: str) -> Template | str:
    """The template of a study given as JSON: CHAT, or e.g. ``{"prompt": "###Question: {instruction}\\n###Answer:", "response": " {response}"}``.

    Raises :class:`AtlasError` for anything else, also where one of the two strings is missing.
    """
    if text == json.dumps(CHAT):
        return CHAT
    try:
        template = TypeAdapter(Template).validate_json(text)
    except ValidationError as error:
        raise AtlasError(f"the template {text} is not usable: {'; '.join(explain(error, Template))}") from None
    if template.model_fields_set != set(Template.model_fields):
        raise AtlasError(f"the template {text} must give both prompt and response")
    return template


def read(text: str, tokenizer) -> dict[str, object]:
    """The template of :func:`parse` as a dictionary: its two strings, or of a chat template

    ``chat``, its Jinja text; ``special_tokens`` by name; ``bos``, the text that the tokenizer puts before every prompt itself (or "");
    ``before``, ``after`` and ``tail``, the text between the generation prompt and a reply, from the reply to the end of its turn, and after that.

    The token that ends a reply becomes the EOS token of ``tokenizer``, so that training teaches it and generation stops at it. A template
    that changes earlier turns when a conversation goes on (Qwen3) is replaced by TRL's training version of it, where there is one.
    AtlasError where the tokenizer has no chat template, or one whose replies do not end in a special token.
    """
    template = parse(text)
    if template != CHAT:
        return template.model_dump()
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise AtlasError(f"template: chat: the tokenizer in {name} has no chat template; choose a model that has one, or {OWN}")
    own = tokenizer.get_chat_template()
    chat = {"chat": _dated(own), "special_tokens": dict(tokenizer.special_tokens_map), "bos": _own_bos(tokenizer)}
    chat |= _reply_shape(chat, tokenizer)
    if not _keeps_earlier_turns(chat):
        from trl.chat_template_utils import get_training_chat_template

        try:
            chat["chat"] = _dated(get_training_chat_template(tokenizer) or own)
            chat |= _reply_shape(chat, tokenizer)
            LOG.info("%s: its chat template changes earlier turns of a conversation; TRL's training version of it is used", name)
        except ValueError:  # not one that TRL knows: conversations of one turn are rendered the same in any case
            LOG.warning("%s: its chat template changes earlier turns of a conversation; use conversations of one turn", name)
    tokenizer.eos_token = chat.pop("end")
    return chat


def _dated(text: str) -> str:
    """A chat template that shows the same date every day."""
    return FIXED_DATE + text if "strftime_now" in text else text


def _reply_shape(chat: dict, tokenizer) -> dict[str, str]:
    """``before``, ``after`` and ``tail`` of a chat template, see :func:`read`, and ``end``, the token that ends a reply."""
    where = f"template: chat: the chat template in {tokenizer.name_or_path}"
    prompt = chat_text(chat, user("a"), True)
    whole = [chat_text(chat, [*user("a"), *assistant(reply)]) for reply in ("b", "c")]
    if not all(text.startswith(prompt) for text in whole):
        raise AtlasError(f"{where} does not begin a reply with its generation prompt {prompt[-40:]!r}; {OWN}")
    one, other = (text.removeprefix(prompt) for text in whole)
    place = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        raise AtlasError(f"{where} does not show an assistant's reply; {OWN}")
    rest = one[place + 1 :]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    end = next((token for token in tokenizer(rest, add_special_tokens=False)["input_ids"] if token in special), None)
    if end is None:
        raise AtlasError(f"{where} ends a reply with {rest!r}, in which there is no special token: a model would not learn to stop; {OWN}")
    end = tokenizer.convert_ids_to_tokens(end)
    before_end, _, tail = rest.partition(end)
    return {"before": one[:place], "after": before_end + end, "tail": tail, "end": end}


def user(content: str) -> list[dict[str, str]]:
    """A user's turn of a conversation."""
    return [{"role": "user", "content": content}]


def assistant(content: str) -> list[dict[str, str]]:
    """An assistant's turn of a conversation."""
    return [{"role": "assistant", "content": content}]


def messages_of(row: dict) -> list[dict[str, str]]:
    """The conversation of a row of a training set: its messages, else its instruction and response."""
    return json.loads(row["messages"]) if row.get("messages") else [*user(row["instruction"]), *assistant(row["response"])]


def row_bytes(template: dict, row: dict) -> tuple[int, int]:
    """UTF-8 bytes of a row's responses and of its whole text, without the EOS of a pair of strings."""
    if "chat" in template:
        messages = messages_of(row)
        responses = "".join(template["before"] + turn["content"] for turn in messages if turn["role"] == "assistant")
        return len(responses.encode()), len(chat_text(template, messages).encode())
    prompt, response = render(template, row["instruction"], row["response"])
    return len(response.encode()), len((prompt + response).encode())


def chat_text(template: dict, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
    """A conversation as text, without the BOS that the tokenizer adds itself. AtlasError where the chat template refuses it."""
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        [text], _ = render_jinja_template(
            [messages],
            chat_template=template["chat"],
            add_generation_prompt=add_generation_prompt,
            **template["special_tokens"],
            **VARIABLES,
        )
    except jinja2.TemplateError as error:
        raise AtlasError(f"the chat template refuses a conversation of {', '.join(turn['role'] for turn in messages)}: {error}") from None
    return text.removeprefix(template["bos"])


def render(template: dict, instruction: str, response: str | None = None) -> tuple[str, str]:
    """The prompt and the response as the model sees them, without the token that ends the response; it is empty when none is given.

    Uses ``str.replace`` instead of ``str.format``, because instructions and responses may contain braces.
    """
    if "chat" in template:
        return chat_text(template, user(instruction), True), "" if response is None else template["before"] + response
    prompt = template["prompt"].replace("{instruction}", instruction)
    return prompt, "" if response is None else template["response"].replace("{response}", response)


def render_after(template: dict, exchanges: list[tuple[str, str]], instruction: str) -> str:
    """The prompt of an instruction that follows others with their responses: examples, or earlier turns."""
    if "chat" in template:
        turns = [turn for question, answer in exchanges for turn in (*user(question), *assistant(answer))]
        return chat_text(template, [*turns, *user(instruction)], True)
    return DELIMITER.join([*("".join(render(template, *pair)) for pair in exchanges), render(template, instruction)[0]])


def response_prefix(template: dict) -> str:
    """What stands between a prompt and its response."""
    return template["before"] if "chat" in template else template["response"].split("{response}")[0]


def fingerprint(template: dict) -> str:
    """Hash of a template: 16 hexadecimal digits of its SHA-256."""
    parts = template if "chat" in template else [template["prompt"], template["response"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def require_trained_with(template: dict, weights: Path) -> str:
    """The template's fingerprint, after checking that the checkpoint in the folder ``weights`` was trained with the same template.

    Raises :class:`AtlasError` where the run was trained with another template: its scores would be those of a format it never saw
    (26 % against 57 % in LLaMA-Factory#2509). Of a checkpoint that was trained elsewhere the template is not known.
    """
    record = Path(weights).parent.parent / RECORD
    try:
        entry = read_json(record)
        if "outside" in entry:  # nobody knows
            return fingerprint(template)
        trained = entry["template"]
    except (OSError, KeyError, ValueError) as error:
        raise AtlasError(f"{record} does not name the template of {weights} ({type(error).__name__}); train the run again") from None
    if fingerprint(trained) != fingerprint(template):
        difference = f"{weights} was trained with the template {_named(trained)}, this study scores with {_named(template)}"
        raise AtlasError(f"{difference}; make them equal, or train the run again with the study's template")
    return fingerprint(template)


def _named(template: dict) -> str:
    return f"of a tokenizer (chat, {fingerprint(template)})" if "chat" in template else repr(template)


def _own_bos(tokenizer) -> str:
    """The BOS text where the tokenizer puts it before every text."""
    return tokenizer.bos_token if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else ""


def _keeps_earlier_turns(chat: dict) -> bool:
    """Whether a conversation begins with the text of its earlier turns, and every reply follows its generation prompt."""
    turns = [*user("a"), *assistant("b"), *user("c"), *assistant("d")]
    whole = chat_text(chat, turns)
    return all(whole.startswith(text) for n in (1, 3) for text in (chat_text(chat, turns[:n], True), ended(chat, turns[: n + 1])))


def ended(template: dict, messages: list[dict[str, str]]) -> str:
    """A conversation as text up to the end of its last turn, a reply."""
    return chat_text(template, messages).removesuffix(template["tail"])
