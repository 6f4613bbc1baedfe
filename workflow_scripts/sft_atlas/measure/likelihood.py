"""Log-likelihoods of responses under a model, tokenised as in training."""

import math

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.tokenization import batches, encode


def token_log_likelihoods(model, tokenizer, prompts: list[str], responses: list[str], batch_size: int, max_length: int, with_eos=True):
    """:func:`log_likelihoods` of each response given its prompt, ``with_eos`` at its end or without."""
    encoded = [encode(tokenizer, prompt, response, with_eos) for prompt, response in zip(prompts, responses, strict=True)]
    return log_likelihoods(model, tokenizer, [(ids, [(first, len(ids))]) for ids, first in encoded], batch_size, max_length)


def log_likelihoods(model, tokenizer, encoded: list[tuple[list[int], list[tuple[int, int]]]], batch_size: int, max_length: int):
    """Negative log-likelihoods (nats, summed over tokens) of responses, and of the full text.

    ``encoded``: of each sample the token ids, and the spans [start, stop) of its responses. Returns ``(frame, dropped)``. The polars frame has one row per scored sample in the order of the input: sample (index
    of the input), nll_response, tokens_response, nll_full, tokens_full; "full" is every token with a token before it.
    Nothing is truncated: ``dropped`` lists the samples longer than ``max_length`` tokens or without a token to score.
    Raises :class:`AtlasError` where the model's output is not finite.
    """
    import polars as pl
    import torch

    # The very first token has nothing that predicts it.
    scored = [[(max(start, 1), stop) for start, stop in spans if max(start, 1) < stop] for _, spans in encoded]
    kept = [index for index, (ids, _) in enumerate(encoded) if scored[index] and len(ids) <= max_length]
    scores = {}
    for chosen, ids, mask in batches([encoded[index][0] for index in kept], batch_size, tokenizer.pad_token_id, model.device):
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, index in enumerate(kept[position] for position in chosen):  # one sample at a time in float32: [T, V]
                length = len(encoded[index][0])
                predicted = logits[row, : length - 1].float()
                targets = ids[row, 1:length, None]
                nll = (predicted.logsumexp(-1) - predicted.gather(-1, targets)[:, 0]).cpu().double()
                response = sum(nll[start - 1 : stop - 1].sum().item() for start, stop in scored[index])
                scores[index] = (response, sum(stop - start for start, stop in scored[index]), nll.sum().item(), length - 1)
        del logits
    broken = sorted(index for index, score in scores.items() if not math.isfinite(score[2]))
    if broken:
        raise AtlasError(f"{model.name_or_path}: logits are not finite for {len(broken)} samples, the first is sample {broken[0]}")
    schema = {"sample": pl.Int64, "nll_response": pl.Float64, "tokens_response": pl.Int64, "nll_full": pl.Float64, "tokens_full": pl.Int64}
    frame = pl.DataFrame([(index, *scores[index]) for index in kept], schema=schema, orient="row")
    return frame, sorted(set(range(len(encoded))) - set(kept))
