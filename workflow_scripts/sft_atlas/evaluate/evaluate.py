"""Score one checkpoint (or a base model) on one suite with lm-eval, by one of the inference engines."""

import argparse

from sft_atlas.evaluate.answers import former_results
from sft_atlas.evaluate.scoring_job import CheckpointJob, add_checkpoint, add_outputs, gpus, sandbox_facts, write_results
from sft_atlas.evaluate.tasks import SuiteFile

__all__ = ["add_options", "gpus", "main"]


def main(args: argparse.Namespace) -> None:
    """Write scores and samples, and a JSON with provenance beside the scores."""
    from sft_atlas.evaluate import lm_eval_runner

    facts = sandbox_facts(args)
    with former_results(args.state, args.output_scores, args.output_samples):
        checkpoint = CheckpointJob(args)
        scores, samples = lm_eval_runner.score(
            checkpoint.adapter, checkpoint.tokenizer, SuiteFile.read(args.suite).benchmarks, checkpoint.template, args.seed,
            max_new_tokens=args.max_new_tokens, allow_code=args.allow_code_execution, scored_by=checkpoint.scored_by,
        )  # fmt: skip
        write_results(args, scores, samples, **checkpoint.finish(), **facts)


def add_options(p: argparse.ArgumentParser) -> None:
    add_checkpoint(p)
    add_outputs(p)
