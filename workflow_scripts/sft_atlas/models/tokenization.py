"""Log-likelihoods of responses under a model, tokenised as in training, and the perplexities that follow from them."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import progress

SCOPES = ("response", "full")


def encode(tokenizer, prompt: str, response: str, with_eos: bool = True) -> tuple[list[int], int]:
    """Token ids of prompt and response, and the index of the first token that belongs to the response.

    One EOS token ends the response when ``with_eos``; without, no EOS is left even where the tokenizer adds one itself.
    """
    # This is what TRL 1.16's SFTTrainer._prepare_dataset does to the columns prompt and completion (`add_eos`,
    # `tokenize_fn`): EOS is appended as text, unless the text ends with it; prompt and prompt + completion are tokenised
    # as whole strings with the tokenizer's own special tokens (so BOS stands where the tokenizer puts it); the completion
    # starts where the two sequences of ids diverge, which is earlier than the prompt's end when tokens merge across it.
    eos = tokenizer.eos_token
    text = response + eos if with_eos and not response.endswith(eos) else response
    before = tokenizer(text=prompt)["input_ids"]
    ids = tokenizer(text=prompt + text)["input_ids"]
    # Not as TRL does it: where the tokenizer adds EOS itself, that one is dropped, or the model would learn to stop twice.
    if before and before[-1] == tokenizer.eos_token_id and not prompt.endswith(eos):
        before, ids = before[:-1], ids[:-1]
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


def token_log_likelihoods(
    model, tokenizer, prompts: list[str], responses: list[str], batch_size: int, max_length: int, with_eos: bool = True
):
    """Negative log-likelihoods (nats, summed over tokens) of each response given its prompt, and of the full text.

    Returns ``(frame, dropped)``. The polars frame has one row per scored sample in the order of the input: sample (index
    of the input), nll_response, tokens_response, nll_full, tokens_full; "full" is every token with a token before it.
    Nothing is truncated: ``dropped`` lists the samples longer than ``max_length`` tokens or without a token to score.
    Raises :class:`AtlasError` where the model's output is not finite.
    """
    import polars as pl
    import torch

    encoded = [encode(tokenizer, prompt, response, with_eos) for prompt, response in zip(prompts, responses, strict=True)]
    starts = [max(first, 1) for _, first in encoded]  # the very first token has nothing that predicts it
    kept = [index for index, (ids, _) in enumerate(encoded) if starts[index] < len(ids) <= max_length]
    scores = {}
    for chosen, ids, mask in batches([encoded[index][0] for index in kept], batch_size, tokenizer.pad_token_id, model.device):
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, index in enumerate(kept[position] for position in chosen):  # one sample at a time in float32: [T, V]
                length = len(encoded[index][0])
                predicted = logits[row, : length - 1].float()
                targets = ids[row, 1:length, None]
                nll = (predicted.logsumexp(-1) - predicted.gather(-1, targets)[:, 0]).cpu().double()
                scores[index] = (nll[starts[index] - 1 :].sum().item(), length - starts[index], nll.sum().item(), length - 1)
        del logits
    broken = sorted(index for index, score in scores.items() if not math.isfinite(score[2]))
    if broken:
        raise AtlasError(f"the model gives logits that are not finite for {len(broken)} samples, the first is sample {broken[0]}")
    schema = {"sample": pl.Int64, "nll_response": pl.Float64, "tokens_response": pl.Int64, "nll_full": pl.Float64, "tokens_full": pl.Int64}
    frame = pl.DataFrame([(index, *scores[index]) for index in kept], schema=schema, orient="row")
    return frame, sorted(set(range(len(encoded))) - set(kept))


def perplexity_summary(frame):
    """Perplexities of each model x dataset x rows from the per-sample table of ``measure_perplexity``, per scope.

    Columns: model, dataset, rows, scope (response, full), n (samples), tokens, tokens_mean, perplexity (weighted by tokens:
    exp of all nats over all tokens), perplexity_sample_mean (exp of the mean over samples of nats per token), bits_per_byte
    (EOS counts in the numerator and has no bytes). The full text lacks its first token where the tokenizer adds no BOS.
    """
    import polars as pl

    def scope(name: str):
        nll, tokens, size = (pl.col(f"{quantity}_{name}") for quantity in ("nll", "tokens", "bytes"))
        return (
            frame.filter(tokens > 0)
            .group_by("model", "dataset", "rows")
            .agg(
                pl.lit(name).alias("scope"),
                pl.len().cast(pl.Int64).alias("n"),
                tokens.sum().alias("tokens"),
                tokens.mean().alias("tokens_mean"),
                (nll.sum() / tokens.sum()).exp().alias("perplexity"),
                (nll / tokens).mean().exp().alias("perplexity_sample_mean"),
                (nll.sum() / math.log(2) / size.sum()).alias("bits_per_byte"),
            )
        )

    return pl.concat([scope(name) for name in SCOPES]).sort("model", "dataset", "rows", "scope", descending=[False, False, False, True])


def benchmark_items(name: str, path: Path, count: int, seed: int) -> list[dict]:
    """At most ``count`` items of a JSON Lines file, sampled without replacement, in the file's order.

    The sample depends on ``seed`` and ``name`` alone, so it is the same for every model. Each item: benchmark, item (row of
    the file), instruction, answer. Raises :class:`AtlasError` for a missing file, a broken row or a missing field.
    """
    if not path.exists():
        raise AtlasError(f"the items of benchmark {name} should be in {path}, which does not exist")
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    chosen = sorted(random.Random(f"{seed}/{name}").sample(range(len(lines)), min(count, len(lines))))
    items = []
    for number in chosen:
        try:
            row = json.loads(lines[number])
        except json.JSONDecodeError as error:
            raise AtlasError(f"{path}: row {number} is not JSON ({error})") from error
        for field in ("instruction", "answer"):
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                raise AtlasError(f"{path}: row {number} has no string '{field}'")
        items.append({"benchmark": name, "item": number, "instruction": row["instruction"], "answer": row["answer"]})
    return items
