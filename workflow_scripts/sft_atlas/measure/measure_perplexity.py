"""Score every sample of a training set under a base model: negative log-likelihoods, tokens and bytes per sample."""

import argparse
import time
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.log import progress
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.measure.likelihood import token_log_likelihoods
from sft_atlas.models import prompt_template
from sft_atlas.models.base_model import ModelFolder, device, load_model, load_tokenizer


def main(args: argparse.Namespace) -> None:
    """Write one row per sample, and beside it a JSON with provenance and the samples that were dropped."""
    import polars as pl
    import torch

    torch.set_num_threads(args.threads)
    base, shape = ModelFolder.read(args.base), prompt_template.read(args.template)
    data = pl.read_parquet(args.data, columns=["instruction", "response"])[: args.limit]
    rendered = [prompt_template.render(shape, instruction, response) for instruction, response in data.iter_rows()]
    prompts, responses = [prompt for prompt, _ in rendered], [response for _, response in rendered]
    model, tokenizer = load_model(base), load_tokenizer(base)
    started = time.perf_counter()
    scores, dropped = token_log_likelihoods(model, tokenizer, prompts, responses, args.batch_size, args.max_length)
    seconds = time.perf_counter() - started
    if scores.is_empty():
        raise AtlasError(f"none of the {len(prompts)} samples of {args.data} fits into {args.max_length} tokens")
    sizes = pl.DataFrame(
        {
            "sample": pl.Series(range(len(prompts)), dtype=pl.Int64),
            "bytes_response": pl.Series([len(response.encode()) for response in responses], dtype=pl.Int64),
            "bytes_full": pl.Series([len((prompt + response).encode()) for prompt, response in rendered], dtype=pl.Int64),
        }
    )
    frame = scores.join(sizes, on="sample", how="left", maintain_order="left").select(
        pl.lit(args.model).alias("model"),
        pl.lit(args.dataset).alias("dataset"),
        pl.lit(args.rows).cast(pl.Int64).alias("rows"),
        *("sample", "nll_response", "tokens_response", "bytes_response", "nll_full", "tokens_full", "bytes_full"),
    )
    settings = {
        "template": shape,
        "limit": args.limit,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "threads": args.threads,
    }
    facts = {
        "model": args.model, "dataset": args.dataset, "rows": args.rows,
        "n_scored": len(frame), "n_dropped": len(dropped), "dropped": dropped,
        "device": device(), "dtype": base.dtype, "tokens_per_second": round(frame["tokens_full"].sum() / seconds, 1), "usage": resource_usage(),
    }  # fmt: skip
    progress(f"{len(frame)} samples scored, {len(dropped)} dropped, {facts['tokens_per_second']} tokens/s")
    write_json(args.output.with_suffix(".json"), record_provenance(settings, {"base": args.base, "data": args.data}, **facts))
    write_table(args.output, frame)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="manifest model.json of the base model")
    parser.add_argument("--data", type=Path, required=True, help="training set: Parquet with the columns instruction and response")
    parser.add_argument("--model", required=True, help="name of the base model")
    parser.add_argument("--dataset", required=True, help="name of the training set")
    parser.add_argument("--rows", type=int, required=True, help="size of the training set in rows")
    parser.add_argument("--limit", type=int, help="score the first N rows only (default: all)")
    parser.add_argument("--template", required=True, help="JSON with the strings prompt and response")
    parser.add_argument("--batch-size", type=int, default=8, help="samples per forward pass")
    parser.add_argument("--max-length", type=int, default=2048, help="drop samples with more tokens than this")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, required=True, help="Parquet, one row per sample")
    return parser


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1
