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
from sft_atlas.models.base_model import ModelFolder, device, load_model, load_tokenizer
from sft_atlas.models.tokenization import encode
from sft_atlas.study.items import sample_items

DTYPE = "float32"  # for all models, so that differences between checkpoints are not those of rounding


def main(args: argparse.Namespace) -> None:
    """Write the two tables, and beside the likelihoods a JSON with provenance and what was dropped."""
    import polars as pl
    import torch

    torch.set_num_threads(args.threads)
    base, shape, files = ModelFolder.read(args.base), prompt_template.read(args.template), dict(args.items)
    if args.weights:
        prompt_template.require_trained_with(shape, args.weights)
    if len(files) < len(args.items):
        raise AtlasError("--items names a benchmark twice")
    items = [item for name, path in files.items() for item in sample_items(name, path, args.items_per_benchmark, args.seed)]
    rendered = [prompt_template.render(shape, item["instruction"], item["answer"]) for item in items]
    model, tokenizer = load_model(base, args.weights, dtype=DTYPE), load_tokenizer(base)
    key = [
        pl.lit(args.model, dtype=pl.String).alias("model"),
        pl.lit(args.dataset, dtype=pl.String).alias("dataset"),
        pl.lit(args.recipe, dtype=pl.String).alias("recipe"),
        pl.lit(args.epoch, dtype=pl.Int64).alias("epoch"),
    ]

    prompts, answers = [prompt for prompt, _ in rendered], [answer for _, answer in rendered]
    scores, dropped = token_log_likelihoods(model, tokenizer, prompts, answers, args.batch_size, args.max_length, with_eos=False)
    scored = [items[index] | {"bytes": len(answers[index].encode())} for index in scores["sample"]]
    likelihood = pl.DataFrame(scored, schema={"benchmark": pl.String, "item": pl.Int64, "bytes": pl.Int64}).hstack(scores)
    likelihood = likelihood.select(
        *key, "benchmark", "item", log_likelihood=-pl.col("nll_response"), tokens=pl.col("tokens_response"), bytes=pl.col("bytes")
    )

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
    dimension = pl.DataFrame(rows, schema=schema).select(*key, *schema)

    settings = {
        "template": shape, "items_per_benchmark": args.items_per_benchmark, "seed": args.seed, "estimators": args.estimators,
        "batch_size": args.batch_size, "max_length": args.max_length, "threads": args.threads,
    }  # fmt: skip
    facts = {
        "model": args.model, "dataset": args.dataset, "recipe": args.recipe, "epoch": args.epoch,
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


def named_file(text: str) -> tuple[str, Path]:
    """An argument of the form NAME=FILE."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, Path(path)


def estimators(text: str) -> list[str]:
    """A list of estimators, separated by commas."""
    names = text.split(",")
    if unknown := [name for name in names if name not in ESTIMATORS]:
        raise argparse.ArgumentTypeError(f"unknown estimator {unknown[0]!r}; there are {', '.join(ESTIMATORS)}")
    return names


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="manifest model.json of the base model")
    parser.add_argument(
        "--weights", type=Path, nargs="?", help="the checkpoint: full weights or a LoRA adapter (default: the base model itself)"
    )
    parser.add_argument("--model", required=True, help="name of the base model")
    parser.add_argument("--dataset", default="base", help="name of the training set (default: base, for the base model itself)")
    parser.add_argument("--recipe", default="base", help="name of the recipe (default: base, for the base model itself)")
    parser.add_argument("--epoch", type=int, required=True, help="epoch of the checkpoint, 0 for the base model itself")
    parser.add_argument("--items", type=named_file, action="append", required=True, help="NAME=FILE of a benchmark, repeatable; JSON Lines")
    parser.add_argument("--items-per-benchmark", type=int, default=150, help="items sampled from each benchmark")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--template", required=True, help="JSON with the strings prompt and response")
    parser.add_argument("--estimators", type=estimators, default=["twonn"], help=f"comma-separated, of {', '.join(ESTIMATORS)}")
    parser.add_argument("--batch-size", type=int, default=8, help="samples per forward pass")
    parser.add_argument("--max-length", type=int, default=2048, help="drop items with more tokens than this")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output-dimension", type=Path, required=True, help="Parquet, one row per layer, pooling and estimator")
    parser.add_argument("--output-likelihood", type=Path, required=True, help="Parquet, one row per item")
    return parser


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1
