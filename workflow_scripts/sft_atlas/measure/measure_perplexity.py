"""Measure the negative log-likelihood of every sample of a training set under a base model, with its tokens and bytes."""

import argparse
import time
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table, write_json, write_table
from sft_atlas.core.log import progress
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.measure.likelihood import log_likelihoods
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import add_forward_pass, add_keys, add_model, key_columns
from sft_atlas.models.base_model import ModelFolder, device, load_model, load_tokenizer
from sft_atlas.models.tokenization import encode_row

GPUS = 1
KEYS = ("model", "dataset", "rows")


def main(args: argparse.Namespace) -> None:
    """Write one row per sample, and beside it a JSON with provenance and the samples that were dropped."""
    import polars as pl
    import torch

    torch.set_num_threads(args.threads)
    base = ModelFolder.read(args.base)
    tokenizer = load_tokenizer(base)
    template = prompt_template.read(args.template, tokenizer)
    rows = read_table(args.data)[: args.limit].to_dicts()
    samples = [encode_row(tokenizer, template, row) for row in rows]
    model = load_model(base)
    started = time.perf_counter()
    scores, dropped = log_likelihoods(model, tokenizer, samples, args.batch_size, args.max_length)
    seconds = time.perf_counter() - started
    if scores.is_empty():
        raise AtlasError(f"none of the {len(rows)} samples of {args.data} fits into {args.max_length} tokens")
    sizes = [(sample, *prompt_template.row_bytes(template, row)) for sample, row in enumerate(rows)]
    sizes = pl.DataFrame(sizes, schema=dict.fromkeys(("sample", "bytes_response", "bytes_full"), pl.Int64), orient="row")
    columns = ("sample", "nll_response", "tokens_response", "bytes_response", "nll_full", "tokens_full", "bytes_full")
    frame = scores.join(sizes, on="sample", how="left", maintain_order="left").select(*key_columns(args, *KEYS), *columns)
    settings = {"template": template} | {name: getattr(args, name) for name in ("limit", "batch_size", "max_length", "threads")}
    facts = {
        **{name: getattr(args, name) for name in KEYS},
        "n_scored": len(frame), "n_dropped": len(dropped), "dropped": dropped,
        "device": device(), "dtype": base.dtype, "tokens_per_second": round(frame["tokens_full"].sum() / seconds, 1), "usage": resource_usage(),
    }  # fmt: skip
    progress(f"{len(frame)} samples scored, {len(dropped)} dropped, {facts['tokens_per_second']} tokens/s")
    write_json(args.output.with_suffix(".json"), record_provenance(settings, {"base": args.base, "data": args.data}, **facts))
    write_table(args.output, frame)


def add_options(p: argparse.ArgumentParser) -> None:
    add_keys(p, *KEYS)
    add_model(p, weights=False)
    p.add_argument(
        "--data",
        type=Path,
        required=True,
        help="training set: Parquet with the columns instruction and response, for conversations messages",
    )
    p.add_argument("--limit", type=int, help="score the first N rows only (default: all)")
    add_forward_pass(p)
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row per sample")
