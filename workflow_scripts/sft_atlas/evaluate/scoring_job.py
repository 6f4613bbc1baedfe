"""What the jobs that score a checkpoint on a suite share: their arguments, the model, and the files they write."""

import argparse
import tempfile
from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.evaluate.tasks import Suite
from sft_atlas.models import prompt_template
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer

CHECKPOINT = ("model", "dataset", "recipe")


def suite_parser(description: str) -> argparse.ArgumentParser:
    """Arguments that name a checkpoint's place and a suite."""
    p = argparse.ArgumentParser(description=description)
    for key in CHECKPOINT:
        p.add_argument(f"--{key}", required=True)
    p.add_argument("--epoch", type=int, required=True)
    p.add_argument("--suite", type=Path, required=True, help="what is scored, as prepare_suite.py writes it")
    p.add_argument("--allow-code-execution", action="store_true", help="run code that models write, in the sandbox")
    p.add_argument("--seed", type=int, default=0)
    return p


def model_parser(description: str) -> argparse.ArgumentParser:
    """Arguments of a job that loads a checkpoint too."""
    p = suite_parser(description)
    p.add_argument("--base", type=Path, required=True, help="model.json of the base model")
    p.add_argument("--weights", type=Path, nargs="?", help="folder of the checkpoint; without one the base model itself is scored")
    p.add_argument("--template", required=True, help="prompt template, as JSON")
    p.add_argument("--batch-size", type=_batch_size, default=16, help="requests per batch, or auto")
    p.add_argument("--max-length", type=int, default=2048)
    p.add_argument("--max-new-tokens", type=int, help="generate at most this many tokens")
    p.add_argument("--threads", type=int, default=1)
    return p


def scoring_parser(description: str) -> argparse.ArgumentParser:
    """Arguments of a job that gives scores and samples of a checkpoint."""
    p = model_parser(description)
    p.add_argument("--output-scores", type=Path, required=True)
    p.add_argument("--output-samples", type=Path, required=True)
    return p


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


def suite(args: argparse.Namespace) -> Suite:
    """What the job scores."""
    return Suite.read(args.suite)


def keys(args: argparse.Namespace) -> list:
    """The checkpoint's and suite's keys as polars columns."""
    import polars as pl

    text = [pl.lit(getattr(args, key)).alias(key) for key in CHECKPOINT]
    return [*text, pl.lit(args.epoch, pl.Int64).alias("epoch"), pl.lit(suite(args).name).alias("suite")]


def inputs(args: argparse.Namespace) -> dict[str, Path]:
    """Every input file of the job, by name, for its provenance."""
    files = suite(args).benchmarks
    named = {f"{file.name}.{kind}": getattr(file, kind) for file in files for kind in ("task", "items", "shots") if getattr(file, kind)}
    return named | ({"base": args.base} if "base" in args else {})


def settings(args: argparse.Namespace) -> dict[str, object]:
    """How the job scores, for its provenance."""
    names = ("batch_size", "max_length", "max_new_tokens", "seed", "allow_code_execution")
    found = {"suite": suite(args).name} | {name: getattr(args, name) for name in names if name in args}
    return found | ({"template": prompt_template.read(args.template)} if "template" in args else {})


def write(args: argparse.Namespace, scores, samples, **facts: object) -> None:
    """Scores and samples with their keys, and beside the scores a JSON with settings and provenance."""
    import polars as pl

    write_table(args.output_samples, samples.select(*keys(args), pl.all()))
    write_json(args.output_scores.with_suffix(".json"), record_provenance(settings(args), inputs(args), **facts, usage=resource_usage()))
    write_table(args.output_scores, scores.select(*keys(args), pl.all()))


def load(args: argparse.Namespace):
    """(model, tokenizer, template, facts): the checkpoint in memory, its template compared with that of its training."""
    import torch

    torch.set_num_threads(args.threads)
    text, facts = prompt_template.read(args.template), {}
    facts["template_sha256"] = (
        prompt_template.require_trained_with(text, args.weights) if args.weights else prompt_template.fingerprint(text)
    )
    base = ModelFolder.read(args.base)
    model = load_model(base, args.weights, facts=facts)
    return (
        model,
        load_tokenizer(base),
        text,
        facts | {"dtype": base.dtype, "device": str(model.device), "weights": str(args.weights or base.path)},
    )


def score_with_transformers(args: argparse.Namespace) -> None:
    """Score a checkpoint with transformers (backend hf)."""
    from sft_atlas.evaluate import lm_eval_runner, sandbox

    model, tokenizer, text, facts = load(args)
    if args.allow_code_execution:
        facts["sandbox_missing"] = list(sandbox.missing())
    call = {"max_new_tokens": args.max_new_tokens, "allow_code": args.allow_code_execution}
    scores, samples = lm_eval_runner.evaluate(
        model, tokenizer, suite(args).benchmarks, text, args.batch_size, args.max_length, args.seed, **call
    )
    write(args, scores, samples, backend=lm_eval_runner.BACKEND, **facts)


def score_with_vllm(args: argparse.Namespace) -> None:
    """Score a checkpoint with vLLM, which reads weights from a folder: an adapter is merged in float32 into a temporary one first."""
    from lm_eval.models.vllm_causallms import VLLM

    from sft_atlas.evaluate import lm_eval_runner, sandbox

    model, tokenizer, text, facts = load(args)
    with tempfile.TemporaryDirectory(prefix="sft-atlas-vllm-") as folder:
        model.to("cpu").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        longest = min(args.max_length, getattr(model.config, "max_position_embeddings", args.max_length))
        del model
        adapter = VLLM(pretrained=folder, dtype=facts["dtype"], max_model_len=longest, batch_size=args.batch_size, seed=args.seed)
        if args.allow_code_execution:
            facts["sandbox_missing"] = list(sandbox.missing())
        call = {"max_new_tokens": args.max_new_tokens, "allow_code": args.allow_code_execution, "backend": "vllm"}
        scores, samples = lm_eval_runner.score(adapter, tokenizer, suite(args).benchmarks, text, args.seed, **call)
    write(args, scores, samples, backend="vllm", **facts)
