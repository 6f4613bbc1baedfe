"""Measure a checkpoint on benchmark items: log-likelihood of each answer, and intrinsic dimension of the prompts' hidden states."""

import argparse
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.log import progress
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.measure.intrinsic_dimension import ESTIMATORS, dimension_rows, pooled_states
from sft_atlas.measure.likelihood import token_log_likelihoods
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import CHECKPOINT, add_forward_pass, add_keys, add_model, key_columns, named_file
from sft_atlas.models.base_model import ModelFolder, device, load_model, load_tokenizer
from sft_atlas.models.tokenization import encode
from sft_atlas.study.items import sample_items

GPUS = 1
DTYPE = "float32"  # for all models, so that differences between checkpoints are not those of rounding


def main(args: argparse.Namespace) -> None:
    """Write the two tables, and beside the likelihoods a JSON with provenance and what was dropped."""
    import polars as pl
    import torch

    torch.set_num_threads(args.threads)
    base, files = ModelFolder.read(args.base), dict(args.items)
    tokenizer = load_tokenizer(base, args.weights)
    template = prompt_template.read(args.template, tokenizer)
    if args.weights:
        prompt_template.require_trained_with(template, args.weights)
    if len(files) < len(args.items):
        raise AtlasError("--items names a benchmark twice")
    items = [item for name, path in files.items() for item in sample_items(name, path, args.items_per_benchmark, args.seed)]
    rendered = [prompt_template.render(template, item["instruction"], item["answer"]) for item in items]
    model = load_model(base, args.weights, dtype=DTYPE)
    keys = key_columns(args, *CHECKPOINT)

    prompts, answers = [prompt for prompt, _ in rendered], [answer for _, answer in rendered]
    scores, dropped = token_log_likelihoods(model, tokenizer, prompts, answers, args.batch_size, args.max_length, with_eos=False)
    scored = [items[index] | {"bytes": len(answers[index].encode())} for index in scores["sample"]]
    likelihood = pl.DataFrame(scored, schema={"benchmark": pl.String, "item": pl.Int64, "bytes": pl.Int64}).hstack(scores)
    values = {"log_likelihood": -pl.col("nll_response"), "tokens": pl.col("tokens_response"), "bytes": pl.col("bytes")}
    likelihood = likelihood.select(*keys, "benchmark", "item", **values)

    encoded = list(dict.fromkeys(tuple(encode(tokenizer, prompt, "", with_eos=False)[0]) for prompt in prompts))
    sequences = [list(ids) for ids in encoded if 0 < len(ids) <= args.max_length]
    if not sequences:
        raise AtlasError(f"none of the {len(prompts)} items has a prompt of at most {args.max_length} tokens")
    states = pooled_states(model, sequences, args.batch_size, tokenizer.pad_token_id)
    del model
    rows = dimension_rows(states, args.estimators, args.seed)
    schema = {
        "layer": pl.Int64, "depth": pl.Float64, "pooling": pl.String, "estimator": pl.String,
        "dimension": pl.Float64, "stderr": pl.Float64, "n": pl.Int64, "duplicates": pl.Int64,
    }  # fmt: skip
    dimension = pl.DataFrame(rows, schema=schema).select(*keys, *schema)

    options = ("items_per_benchmark", "seed", "estimators", "batch_size", "max_length", "threads")
    settings = {"template": template} | {name: getattr(args, name) for name in options}
    facts = {
        **{name: getattr(args, name) for name in CHECKPOINT},
        "weights": None if args.weights is None else str(args.weights), "device": device(), "dtype": DTYPE,
        "n_scored": len(likelihood), "n_dropped": len(dropped),
        "dropped": [{"benchmark": items[index]["benchmark"], "item": items[index]["item"]} for index in dropped],
        "n_prompts": len(sequences), "n_prompts_equal": len(prompts) - len(encoded), "n_prompts_dropped": len(encoded) - len(sequences),
        "usage": resource_usage(),
    }  # fmt: skip
    write_json(args.output_likelihood.with_suffix(".json"), record_provenance(settings, {"base": args.base, **files}, **facts))
    write_table(args.output_dimension, dimension)
    write_table(args.output_likelihood, likelihood)
    progress(f"{len(likelihood)} answers scored, {len(dropped)} dropped; dimension of {len(sequences)} prompts")


def add_options(p: argparse.ArgumentParser) -> None:
    add_keys(p, *CHECKPOINT)
    add_model(p)
    p.add_argument("--items", type=named_file, action="append", required=True, help="NAME=FILE of a benchmark, repeatable; JSON Lines")
    p.add_argument("--items-per-benchmark", type=int, default=150, help="items sampled from each benchmark")
    p.add_argument("--seed", type=int, default=0, help="seed of the samples")
    p.add_argument("--estimators", nargs="+", choices=[*ESTIMATORS], default=["twonn"], help="estimators of intrinsic dimension")
    add_forward_pass(p)
    p.add_argument("--output-dimension", type=Path, required=True, help="Parquet, one row per layer, pooling and estimator")
    p.add_argument("--output-likelihood", type=Path, required=True, help="Parquet, one row per item")
