"""What the jobs that score a checkpoint on a suite share: their options, the loaded checkpoint, and the files they write."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.evaluate.tasks import SuiteFile
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import CHECKPOINT, add_forward_pass, add_keys, add_model, key_columns
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer

SETTINGS = ("batch_size", "max_length", "max_new_tokens", "seed", "allow_code_execution")  # options that belong to the provenance


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Options that name a checkpoint and a suite."""
    add_keys(parser, *CHECKPOINT)
    parser.add_argument("--suite", type=Path, required=True, help="JSON of rule prepare_suite")
    parser.add_argument("--allow-code-execution", action="store_true", help="run code that models write, in the sandbox")
    parser.add_argument("--seed", type=int, default=0)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Options of a job that runs a checkpoint on a suite."""
    add_suite(parser)
    add_model(parser)
    add_forward_pass(parser, batch_size=lambda text: text if text == "auto" else int(text))
    parser.add_argument("--max-new-tokens", type=int, help="generate at most this many tokens, whatever the task says")


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Options that name the files of :func:`write_results`."""
    parser.add_argument("--output-scores", type=Path, required=True, help="Parquet, one row per benchmark")
    parser.add_argument("--output-samples", type=Path, required=True, help="Parquet, one row per item")


def load_checkpoint(args: argparse.Namespace):
    """``(model, tokenizer, template, facts)``: the checkpoint in memory, after comparing its template with that of its training.

    ``facts`` are for the provenance. Raises AtlasError where the checkpoint was trained with another template.
    """
    import torch

    torch.set_num_threads(args.threads)
    base, facts = ModelFolder.read(args.base), {}
    tokenizer = load_tokenizer(base)
    template = prompt_template.read(args.template, tokenizer)
    facts["template_sha256"] = prompt_template.fingerprint(template)
    if args.weights:
        prompt_template.require_trained_with(template, args.weights)
    model = load_model(base, args.weights, facts=facts)
    facts |= {"device": str(model.device), "weights": str(args.weights or base.path)}
    return model, tokenizer, template, facts


def with_keys(args: argparse.Namespace, frame):
    """A polars frame with the keys of its checkpoint and suite as its first columns."""
    import polars as pl

    return frame.select(*key_columns(args, *CHECKPOINT), pl.lit(SuiteFile.read(args.suite).name).alias("suite"), pl.all())


def provenance(args: argparse.Namespace, **facts: object) -> dict[str, object]:
    """Provenance of a job's results: its settings, the hash of every input file, and ``facts``."""
    suite = SuiteFile.read(args.suite)
    settings = {"suite": suite.name} | {name: getattr(args, name) for name in SETTINGS if name in args}
    files = {f"{file.name}.{kind}": getattr(file, kind) for file in suite.benchmarks for kind in ("task", "items", "shots")}
    if "base" in args:
        settings["template"] = json.loads(args.template)
        files["base"] = args.base
    return record_provenance(settings, {name: path for name, path in files.items() if path}, **facts, usage=resource_usage())


def write_results(args: argparse.Namespace, scores, samples, **facts: object) -> None:
    """Write scores and samples with their keys, and the provenance as JSON beside the scores."""
    write_table(args.output_samples, with_keys(args, samples))
    write_json(args.output_scores.with_suffix(".json"), provenance(args, **facts))
    write_table(args.output_scores, with_keys(args, scores))
