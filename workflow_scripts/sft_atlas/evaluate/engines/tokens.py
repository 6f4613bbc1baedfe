"""What all engines do with text: tokenise prompts as training does, and find the end of an answer."""

import hashlib
from array import array
from weakref import WeakKeyDictionary

from sft_atlas.models.tokenization import prompt_ids

CPU_BATCH = 8  # `batch_size: auto` where there is no accelerator whose memory could be tried

_KEPT: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> hash of a text -> its token ids, as long as the tokenizer lives


def kept_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """:func:`~sft_atlas.models.tokenization.prompt_ids` of texts, each text tokenised once: the length of a prompt, its likelihoods, another
    benchmark with the same prompt and the next checkpoint of the base model ask for the same ids."""
    kept = _KEPT.setdefault(tokenizer, {})
    keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
    kept |= {key: array("i", ids) for key, ids in zip(new, prompt_ids(tokenizer, list(new.values())), strict=True)}
    return [kept[key].tolist() for key in keys]


class StopSearch:
    """Whether one of the stop texts is in the last tokens of an answer.

    ``window``: as many tokens as a text can have, and two more because a model may spell it in others than the tokenizer would.
    """

    def __init__(self, tokenizer, texts: list[str]):
        self.tokenizer, self.texts = tokenizer, [text for text in texts if text]
        self.window = max((len(tokenizer.encode(text, add_special_tokens=False)) for text in self.texts), default=0) + 2

    def ends_with_stop(self, ids: list[int]) -> bool:
        """``ids``: the tokens of an answer, or its last ``window`` ones."""
        text = self.tokenizer.decode(ids[-self.window :])
        return any(stop in text for stop in self.texts)


def with_training_tokens(adapter, tokenizer):
    """An lm-eval model, changed to tokenise prompts as training does: :func:`~sft_atlas.models.tokenization.prompt_ids`.

    lm-eval leaves the EOS that a tokenizer adds at the end of a prompt, and adds no special token where the text begins with BOS.
    """

    def tok_encode(text, add_special_tokens=None, left_truncate_len=None, **_):
        return encode(tokenizer, text, add_special_tokens, left_truncate_len)

    def tok_batch_encode(strings, padding_side="left", left_truncate_len=None, truncation=False):
        listed = tok_encode(strings, left_truncate_len=left_truncate_len)
        padded = tokenizer.pad({"input_ids": listed}, padding_side=padding_side, return_tensors="pt")
        return padded["input_ids"], padded["attention_mask"]

    adapter.tok_encode, adapter.tok_batch_encode = tok_encode, tok_batch_encode
    return adapter


def encode(tokenizer, text, add_special_tokens=None, left_truncate_len=None):
    """Token ids of a text, or of each of several, as training makes them; without special tokens where ``add_special_tokens`` is False."""
    texts = [text] if isinstance(text, str) else list(text)
    plain = add_special_tokens is False and texts
    listed = tokenizer(texts, add_special_tokens=False)["input_ids"] if plain else kept_ids(tokenizer, texts)
    listed = [ids[-(left_truncate_len or 0) :] for ids in listed]
    return listed[0] if isinstance(text, str) else listed


def encode_pairs(tokenizer, requests) -> None:
    """Tokenise the texts of requests for likelihoods together; lm-eval asks for them one by one."""
    contexts, options = zip(*(request.args for request in requests), strict=True)
    kept_ids(tokenizer, [context.rstrip() for context in contexts] + list(map("".join, zip(contexts, options, strict=True))))
