"""Score one checkpoint (or a base model) on one suite with lm-eval, by transformers or (rule `evaluate_vllm`) by vLLM."""

import argparse
import tempfile

from sft_atlas.evaluate.scoring_job import add_checkpoint, add_outputs, load_checkpoint, write_results
from sft_atlas.evaluate.tasks import SuiteFile

GPUS = 1
BACKENDS = ("hf", "vllm")


def main(args: argparse.Namespace) -> None:
    """Write scores and samples, and a JSON with provenance beside the scores."""
    from sft_atlas.evaluate import lm_eval_runner, sandbox

    model, tokenizer, template, facts = load_checkpoint(args)
    if args.allow_code_execution:
        facts["sandbox_missing"] = list(sandbox.missing())
    with tempfile.TemporaryDirectory(prefix="sft-atlas-vllm-") as folder:
        if args.backend == "vllm":
            from lm_eval.models.vllm_causallms import VLLM

            # vLLM reads weights from a folder; an adapter is merged in float32 before it is saved there.
            model.to("cpu").save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            longest = min(args.max_length, getattr(model.config, "max_position_embeddings", args.max_length))
            del model  # its memory is free before vLLM takes its own
            # generation_config="vllm": the engine's defaults; the folder's file gives token ids only
            settings = {"dtype": facts["dtype"], "max_model_len": longest, "generation_config": "vllm", "seed": args.seed}
            engine = VLLM(pretrained=folder, batch_size=args.batch_size, **settings)
            adapter = lm_eval_runner.with_training_tokens(engine, tokenizer)
        else:
            adapter = lm_eval_runner.transformers_adapter(model, tokenizer, args.batch_size, args.max_length)
        scores, samples = lm_eval_runner.score(
            adapter, tokenizer, SuiteFile.read(args.suite).benchmarks, template, args.seed,
            max_new_tokens=args.max_new_tokens, allow_code=args.allow_code_execution, backend=args.backend,
        )  # fmt: skip
    write_results(args, scores, samples, backend=args.backend, **facts)


def add_options(p: argparse.ArgumentParser) -> None:
    add_checkpoint(p)
    p.add_argument("--backend", choices=BACKENDS, default="hf", help="what generates and computes likelihoods: transformers or vLLM")
    add_outputs(p)
