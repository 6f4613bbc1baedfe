"""Score one checkpoint (or a base model) on one suite with lm-eval, by transformers or (rule `evaluate_vllm`) by vLLM."""

import argparse

from sft_atlas.evaluate.answers import former_results
from sft_atlas.evaluate.scoring_job import CheckpointJob, add_checkpoint, add_outputs, write_results
from sft_atlas.evaluate.tasks import SuiteFile

GPUS = 1
BACKENDS = ("hf", "vllm")


def main(args: argparse.Namespace) -> None:
    """Write scores and samples, and a JSON with provenance beside the scores."""
    from sft_atlas.evaluate import lm_eval_runner, sandbox

    with former_results(args.state, args.output_scores, args.output_samples):
        checkpoint = CheckpointJob(args, args.output_scores.with_suffix(".json"), args.backend)
        scores, samples = lm_eval_runner.score(
            checkpoint.adapter, checkpoint.tokenizer, SuiteFile.read(args.suite).benchmarks, checkpoint.template, args.seed,
            max_new_tokens=args.max_new_tokens, allow_code=args.allow_code_execution, backend=args.backend,
        )  # fmt: skip
        facts = {"sandbox_missing": list(sandbox.missing())} if args.allow_code_execution else {}
        write_results(args, scores, samples, backend=args.backend, **checkpoint.finish(), **facts)


def add_options(p: argparse.ArgumentParser) -> None:
    add_checkpoint(p)
    p.add_argument("--backend", choices=BACKENDS, default="hf", help="what generates and computes likelihoods: transformers or vLLM")
    add_outputs(p)
