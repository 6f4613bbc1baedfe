"""Perplexities from the log-likelihoods of single samples."""

import math

import polars as pl

SCOPES = ("response", "full")


def perplexity_summary(frame):
    """Perplexities of each model x dataset x rows from the per-sample table of ``measure_perplexity``, per scope.

    Columns: model, dataset, rows, scope (response, full), n (samples), tokens, tokens_mean, perplexity (weighted by tokens:
    exp of all nats over all tokens), perplexity_sample_mean (exp of the mean over samples of nats per token), bits_per_byte
    (EOS counts in the numerator and has no bytes). The full text lacks its first token where the tokenizer adds no BOS.
    """

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
