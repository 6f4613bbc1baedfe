"""What the jobs that score a checkpoint on a suite share: their options, the loaded checkpoint, and the files they write."""

import argparse
import json
import tempfile
from pathlib import Path

from sft_atlas.core.files import read_json, write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.evaluate.answers import AnswerStore, answering_model, identity
from sft_atlas.evaluate.tasks import SuiteFile
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import CHECKPOINT, add_forward_pass, add_keys, add_model, key_columns
from sft_atlas.models.base_model import ModelFolder, is_adapter, load_model, load_tokenizer

SETTINGS = ("batch_size", "max_length", "max_new_tokens", "seed", "allow_code_execution")  # options that belong to the provenance
LOADED = ("device", "dtype", "adapter", "merge_logit_difference")  # facts that only a loaded model gives


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
    add_state(parser)
    parser.add_argument("--max-new-tokens", type=int, help="generate at most this many tokens, whatever the task says")


def add_state(parser: argparse.ArgumentParser) -> None:
    """``--state``."""
    parser.add_argument("--state", type=Path, required=True, help="folder of the suite's answers and of its last complete results; kept")


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Options that name the files of :func:`write_results`."""
    parser.add_argument("--output-scores", type=Path, required=True, help="Parquet, one row per benchmark")
    parser.add_argument("--output-samples", type=Path, required=True, help="Parquet, one row per item")


class CheckpointJob:
    """A checkpoint for a job that scores it: tokenizer and template at once, the model when a request has no stored answer.

    ``facts`` are for the provenance; without the model they are those of ``former``, the provenance of the last complete result.
    Raises AtlasError where the checkpoint was trained with another template.
    """

    def __init__(self, args: argparse.Namespace, former: Path, backend: str = "hf"):
        import torch
        from transformers import AutoConfig

        torch.set_num_threads(args.threads)
        self.args, self.base, self.backend = args, ModelFolder.read(args.base), backend
        self.tokenizer = load_tokenizer(self.base)
        self.template = prompt_template.read(args.template, self.tokenizer)
        if args.weights:
            prompt_template.require_trained_with(self.template, args.weights)
        self.facts = {"template_sha256": prompt_template.fingerprint(self.template), "weights": str(args.weights or self.base.path)}
        folder = self.base.path if not args.weights or is_adapter(args.weights) else args.weights
        config = AutoConfig.from_pretrained(folder, trust_remote_code=self.base.trust_remote_code)
        self.max_length = min(args.max_length, getattr(config, "max_position_embeddings", None) or args.max_length)
        self.store = AnswerStore(args.state, identity(args.base, args.weights, backend))
        sampling = [args.seed, args.batch_size]
        self.adapter = answering_model(self.store, self._load, self.facts["weights"], self.max_length, sampling)
        known = read_json(former) if former.exists() else {}
        known = known.get("generated") or known  # of rescored answers
        self._former = {name: known[name] for name in LOADED if name in known}

    def _load(self):
        from sft_atlas.evaluate import lm_eval_runner

        facts: dict[str, object] = {}
        model = load_model(self.base, self.args.weights, facts=facts)
        self.facts |= facts | {"device": str(model.device)}
        if self.backend == "hf":
            return lm_eval_runner.transformers_adapter(model, self.tokenizer, self.args.batch_size, self.max_length)
        from lm_eval.models.vllm_causallms import VLLM

        # vLLM reads weights from a folder; an adapter is merged in float32 before it is saved there.
        self._folder = tempfile.TemporaryDirectory(prefix="sft-atlas-vllm-")  # as long as the engine
        folder = self._folder.name
        model.to("cpu").save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        del model  # its memory is free before vLLM takes its own
        # generation_config="vllm": the engine's defaults; the folder's file gives token ids only
        settings = {"dtype": facts["dtype"], "max_model_len": self.max_length, "generation_config": "vllm", "seed": self.args.seed}
        return lm_eval_runner.with_training_tokens(VLLM(pretrained=folder, batch_size=self.args.batch_size, **settings), self.tokenizer)

    def finish(self) -> dict[str, object]:
        """The facts, once every benchmark is scored; answers that are not used any more are removed from the state."""
        self.store.finish()
        counts = {"requests": {"asked": self.store.asked, "taken_over": self.store.taken_over}}
        LOG.info("%d requests answered by the model, %d answers taken over", self.store.asked, self.store.taken_over)
        return self._former | self.facts | counts


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
