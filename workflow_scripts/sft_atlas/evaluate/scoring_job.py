"""What the jobs that score a checkpoint on a suite share: their options, the loaded checkpoint, and the files they write."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.answers import AnswerStore, answering_model, identity
from sft_atlas.evaluate.engines.engine import Engine, Settings
from sft_atlas.evaluate.engines.factory import open_engine
from sft_atlas.evaluate.tasks import SuiteFile
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import CHECKPOINT, add_forward_pass, add_keys, add_model, key_columns
from sft_atlas.models.base_model import ModelFolder, is_adapter, load_tokenizer, tokenizer_folder, verify_checkpoint
from sft_atlas.study.backends import BACKENDS

SETTINGS = ("batch_size", "max_length", "max_new_tokens", "seed", "allow_code_execution")  # options that belong to the provenance
LOADED = ("device", "adapter", "merge_logit_difference", "endpoint")  # facts that only a loaded model gives


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Options that name a checkpoint and a suite."""
    add_keys(parser, *CHECKPOINT)
    _add_suite(parser)


def _add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", type=Path, required=True, help="JSON of rule prepare_suite")
    parser.add_argument("--allow-code-execution", action="store_true", help="run code that models write, in the sandbox")
    parser.add_argument("--sandbox", choices=sandbox.POLICIES, default="strict", help="what to do where a protection is missing")
    parser.add_argument("--seed", type=int, default=0)


def sandbox_facts(args: argparse.Namespace) -> dict[str, object]:
    """What the sandbox of a job that runs code lacks here, for its provenance. AtlasError where the study does not permit that."""
    return {"sandbox_missing": list(sandbox.require(args.sandbox))} if args.allow_code_execution else {}


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Options of a job that runs a checkpoint on a suite."""
    add_keys(parser, *CHECKPOINT)
    add_answering(parser, weights=True)
    add_state(parser)


def add_answering(parser: argparse.ArgumentParser, weights: bool = False) -> None:
    """Options of a job that answers a suite with checkpoints of a base model; ``weights``: with one."""
    _add_suite(parser)
    add_model(parser, weights)
    add_forward_pass(parser, batch_size=lambda text: text if text == "auto" else int(text))
    add_engine(parser)
    parser.add_argument("--max-new-tokens", type=int, help="generate at most this many tokens, whatever the task says")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """``--backend`` and what the engines need besides."""
    parser.add_argument("--backend", choices=BACKENDS, default="hf", help="inference engine")
    parser.add_argument("--memory", type=float, default=0.9, help="share of a GPU's memory for vllm, and of what is free for hf-paged")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs, each with an engine of its own (vllm)")
    parser.add_argument("--endpoint", type=json.loads, help="settings of the server of backend endpoint, as JSON")


def gpus(args: argparse.Namespace) -> int:
    """GPUs that a job with an engine takes in a local run."""
    return 0 if args.backend == "endpoint" else args.gpus


def engine_of(args: argparse.Namespace, base: ModelFolder, tokenizer, keep_base: bool = False) -> Engine:
    """The engine that a job's options name."""
    length = min(args.max_length, _positions(base.path, base) or args.max_length)
    settings = Settings(args.backend, length, args.batch_size, args.seed, args.memory, args.gpus, args.endpoint, keep_base)
    return open_engine(settings, base, tokenizer)


def _positions(folder: Path, base: ModelFolder) -> int | None:
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(folder, trust_remote_code=base.trust_remote_code), "max_position_embeddings", None)


def add_state(parser: argparse.ArgumentParser) -> None:
    """``--state``."""
    parser.add_argument("--state", type=Path, required=True, help="folder of the suite's answers and of its last complete results; kept")


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Options that name the files of :func:`write_results`."""
    parser.add_argument("--output-scores", type=Path, required=True, help="Parquet, one row per benchmark, and per task of a group")
    parser.add_argument("--output-samples", type=Path, required=True, help="Parquet, one row per item")


class CheckpointJob:
    """A checkpoint for a job that scores it: tokenizer and template at once, the model when a request has no stored answer.

    ``engine``: one that is open already, with the options of this job. ``scored_by``: backend, its version and the dtype, which are part of
    each score's key. ``facts`` are for the provenance; without the model they are those of the one that gave the answers.
    Raises AtlasError where the checkpoint was trained with another template.
    """

    def __init__(self, args: argparse.Namespace, engine: Engine | None = None):
        import torch

        torch.set_num_threads(args.threads)
        self.args, self.base = args, ModelFolder.read(args.base)
        if engine and tokenizer_folder(self.base, args.weights) != self.base.path:
            raise AtlasError(f"{args.weights} has a tokenizer of its own")
        self.tokenizer = engine.tokenizer if engine else load_tokenizer(self.base, args.weights)
        self.template = prompt_template.read(args.template, self.tokenizer)
        if args.weights:
            verify_checkpoint(args.weights, contents=False)
            prompt_template.require_trained_with(self.template, args.weights)
        self.engine = engine or engine_of(args, self.base, self.tokenizer)
        self.scored_by = {"backend": args.backend, "backend_version": self.engine.version, "dtype": self.engine.dtype(args.weights)}
        self.facts = {
            "template_sha256": prompt_template.fingerprint(self.template),
            "weights": str(args.weights or self.base.path),
            **self.scored_by,
        }
        folder = self.base.path if not args.weights or is_adapter(args.weights) else args.weights
        self.max_length = min(args.max_length, _positions(folder, self.base) or args.max_length)
        self.store = AnswerStore(args.state, identity(args.base, args.weights, *self.scored_by.values()))
        sampling = [args.seed, args.batch_size]
        self.adapter = answering_model(self.store, self._load, self.facts["weights"], self.max_length, sampling)

    def _load(self):
        names = {name: getattr(self.args, name) for name in CHECKPOINT}
        model = self.engine.checkpoint(self.args.weights, names)
        self.store.keep_facts(self.engine.facts)
        return model

    def finish(self) -> dict[str, object]:
        """The facts, once every benchmark is scored; answers that are not used any more are removed from the state."""
        self.store.finish()
        counts = {"requests": {"asked": self.store.asked, "taken_over": self.store.taken_over}}
        if any(self.adapter.tokens.values()):
            counts["likelihood_tokens"] = self.adapter.tokens
        LOG.info("%d requests answered by the model, %d answers taken over", self.store.asked, self.store.taken_over)
        return self.store.facts | self.facts | counts


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
    """Write scores and samples with their keys, and the provenance as JSON beside the scores; samples get the ``backend`` of the facts."""
    import polars as pl

    write_table(args.output_samples, with_keys(args, samples.with_columns(pl.lit(facts.get("backend"), pl.String).alias("backend"))))
    write_json(args.output_scores.with_suffix(".json"), provenance(args, **facts))
    write_table(args.output_scores, with_keys(args, scores))
