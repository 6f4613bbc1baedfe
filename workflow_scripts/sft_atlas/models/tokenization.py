"""Text to token ids as in training, and batches of them."""

from collections.abc import Iterator

from sft_atlas.core.log import progress


def prompt_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text with the special tokens that the tokenizer adds itself, except an EOS at the end.

    That EOS would end a prompt before its answer, and after the EOS of a response teach the model to stop twice. TRL keeps it.
    """
    listed = tokenizer(texts)["input_ids"] if texts else []
    end = [tokenizer.eos_token_id]
    if listed and listed[0][-1:] == end and tokenizer("a")["input_ids"][-1:] == end:
        listed = [ids[:-1] for ids in listed]
    return listed


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
    first = 0
    while first < min(len(before), len(ids)) and before[first] == ids[first]:
        first += 1
    return ids, first


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
