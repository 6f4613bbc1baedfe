"""Answer a suite with several LoRA checkpoints of one base model, which is loaded once, and keep the answers where their own jobs look.

Each checkpoint's answers are on disk before the next one begins, so that a job that is killed loses none of the finished ones, and the jobs that
score the checkpoints (`evaluate`, `generate`) load no model. A checkpoint that cannot be answered is left to its own job, which says why.
"""

import argparse
import time
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_text
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.evaluate.scoring_job import CheckpointJob, add_answering, engine_of, gpus
from sft_atlas.evaluate.tasks import SuiteFile
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.study import adapter_batches
from sft_atlas.study.task_files import judged

__all__ = ["add_options", "gpus", "main"]


def main(args: argparse.Namespace) -> None:
    """Fill the state of each checkpoint of the batch, and write what was answered for whom."""
    base = ModelFolder.read(args.base)
    engine = engine_of(args, base, load_tokenizer(base), keep_base=True)
    answered = []
    for member in adapter_batches.read(args.output):
        name, started = f"{args.model}/{member['dataset']}/{member['recipe']}, epoch {member['epoch']}", time.perf_counter()
        places = {"weights": Path(member["weights"]), "state": Path(member["state"]), "epoch": int(member["epoch"])}
        try:
            requests = answer(argparse.Namespace(**vars(args) | member | places), engine)
        except AtlasError as error:
            LOG.warning("%s is left to its own job: %s", name, error)
            continue
        seconds = time.perf_counter() - started
        LOG.info("%s: %s in %.1f s", name, requests, seconds)
        write_text(Path(member["log"]), f"answered in a batch; done in {seconds:.1f} s wall\n")  # for the plan
        answered.append({key: member[key] for key in ("dataset", "recipe", "epoch")} | requests)
    engine.close()
    write_json(args.output, {"answered": answered, **record_provenance({"suite": str(args.suite)}, {}, usage=resource_usage())})


def answer(args: argparse.Namespace, engine) -> dict[str, int]:
    """Ask one checkpoint what its suite asks, and keep the answers; how many were asked and taken over."""
    from sft_atlas.evaluate import generate, lm_eval_runner

    checkpoint, benchmarks = CheckpointJob(args, engine), SuiteFile.read(args.suite).benchmarks
    if any(judged(str(benchmark.task)) for benchmark in benchmarks):
        generate.answers(checkpoint.adapter, checkpoint.tokenizer, benchmarks, checkpoint.template, args.seed, args.max_new_tokens)
    else:
        lm_eval_runner.answer(
            checkpoint.adapter, checkpoint.tokenizer, benchmarks, checkpoint.template, args.seed, max_new_tokens=args.max_new_tokens
        )
    return checkpoint.finish()["requests"]


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", required=True, help="name of the base model")
    add_answering(p)
    p.add_argument("--output", type=Path, required=True, help="JSON: what was answered; the batch is written down under its name")
