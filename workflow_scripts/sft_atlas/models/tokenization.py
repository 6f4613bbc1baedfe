"""Text to token ids as in training, and batches of them."""

from collections.abc import Iterator

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import progress
from sft_atlas.models.prompt_template import chat_text, ended, messages_of, render


def prompt_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text with the special tokens that the tokenizer adds itself, except those at the end.

    An EOS there would end a prompt before its answer, and after the EOS of a response teach the model to stop twice. TRL keeps it.
    """
    if not texts:
        return []
    letter, alone = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    at_end = next(n for n in range(len(letter)) if letter[len(letter) - n - len(alone) : len(letter) - n] == alone)
    return [ids[: len(ids) - at_end] for ids in tokenizer(texts)["input_ids"]]


def encode(tokenizer, prompt: str, response: str, with_eos: bool = True) -> tuple[list[int], int]:
    """Token ids of prompt and response, and the index of the first token of the response.

    With ``with_eos`` the response ends in one EOS token; without, in none, even where the tokenizer adds one itself.
    """
    # This is what TRL 1.16's SFTTrainer._prepare_dataset does to the columns prompt and completion (`add_eos`,
    # `tokenize_fn`): EOS is appended as text, unless the text ends with it; prompt and prompt + completion are tokenised
    # as whole strings with the tokenizer's own special tokens (so BOS is where the tokenizer puts it); the completion
    # starts where the two sequences of ids diverge, which is earlier than the prompt's end when tokens merge across it.
    eos = tokenizer.eos_token
    text = response + eos if with_eos and not response.endswith(eos) else response
    before, ids = prompt_ids(tokenizer, [prompt, prompt + text])
    return ids, common_length(before, ids)


def common_length(one: list[int], other: list[int]) -> int:
    """How many of their first token ids two sequences share."""
    return next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))


def encode_row(tokenizer, template: dict, row: dict) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a row of a training set, {instruction, response} and perhaps {messages}, and the spans [start, stop) of its responses."""
    if "chat" in template:
        return encode_chat(tokenizer, template, messages_of(row))
    ids, first = encode(tokenizer, *render(template, row["instruction"], row["response"]))
    return ids, [(first, len(ids))]


def encode_chat(tokenizer, template: dict, messages: list[dict[str, str]]) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a conversation up to the end of its last reply, and the spans [start, stop) of its replies.

    A reply begins after the generation prompt that precedes it when it is generated, as in :func:`encode`, and ends with the EOS of its
    turn. AtlasError where the chat template changes what stands before or in a reply once the conversation goes on.
    """
    replies = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
    prompts = [chat_text(template, messages[:i], True) for i in replies]
    ends = [ended(template, messages[: i + 1]) for i in replies]
    whole = ends[-1]
    for number, text in enumerate([text for pair in zip(prompts, ends, strict=True) for text in pair]):
        if not whole.startswith(text):
            raise AtlasError(
                f"the chat template changes the conversation up to reply {number // 2 + 1} when it goes on, so that there is no text on which the loss of that "
                "reply could be; use `turns: first`, or a model with another template"
            )
    ids, *parts = prompt_ids(tokenizer, [whole, *prompts, *ends])
    lengths = [common_length(ids, part) for part in parts]
    spans = []
    for start, limit in zip(lengths[: len(replies)], lengths[len(replies) :], strict=True):
        stop = max((i + 1 for i in range(start, limit) if ids[i] == tokenizer.eos_token_id), default=None)
        if stop is None:
            raise AtlasError(
                f"a reply does not end in {tokenizer.eos_token!r}; the chat template ends its turn in another way than those before"
            )
        spans.append((start, stop))
    return ids[: spans[-1][1]], spans


def batches(sequences: list[list[int]], batch_size: int, pad: int, device) -> Iterator[tuple[list[int], object, object]]:
    """Right-padded batches of similar length, longest first: indices into ``sequences``, ids [B, T], attention mask [B, T]."""
    import torch

    order = sorted(range(len(sequences)), key=lambda index: (-len(sequences[index]), index))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        length = len(sequences[chosen[0]])
        ids = torch.tensor([sequences[index] + [pad] * (length - len(sequences[index])) for index in chosen], device=device)
        lengths = torch.tensor([len(sequences[index]) for index in chosen], device=device)
        yield chosen, ids, (torch.arange(length, device=device) < lengths[:, None]).long()
        if (start // batch_size) % 50 == 49:
            progress(f"{start + len(chosen)} of {len(order)} sequences")
