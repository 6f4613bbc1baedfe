"""Fine-tune one base model on one training set with one recipe, and publish its kept epochs."""

import argparse
import socket
import sys
import time
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import lock_folder, read_json, read_table, text_hash, write_json, write_table, write_text
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import TEMPLATE_HELP, add_keys, add_model, key_columns
from sft_atlas.models.base_model import ModelFolder, device, load_tokenizer
from sft_atlas.study.checks import TRACKERS
from sft_atlas.study.paths import HISTORY, PREFLIGHT, RECORD
from sft_atlas.study.schema import Hyperparameters

KEYS = ("model", "dataset", "recipe")
# In the state folder of a job with several GPUs: what it gives its workers, and what they give it.
SAMPLES, HELD_OUT = "samples.parquet", "held_out.parquet"
FACTS, INTERRUPTED = "facts.json", "interrupted.json"


def main(args: argparse.Namespace) -> None:
    """Write preflight.txt, history.parquet, epoch-N/weights for every kept epoch, and at last train.json."""
    from sft_atlas.train import hardware, interruption

    hardware.ignore_accelerate_settings()
    try:
        train(args)
    except interruption.Interrupted as interrupted:
        if not args.worker:
            interruption.wait_for_the_scheduler(interrupted)
        raise


def train(args: argparse.Namespace) -> None:
    """The job itself."""
    import polars as pl
    import torch

    from sft_atlas.train import dataset, interruption, memory, resume_state, trainer
    from sft_atlas.train.tracking import Tracking

    started = time.perf_counter()
    torch.set_num_threads(args.threads)
    settings = Hyperparameters.model_validate_json(args.settings)
    name = f"{args.model}/{args.dataset}/{args.recipe}"
    base = ModelFolder.read(args.base)
    if not args.worker:
        base.verify()
    tokenizer = load_tokenizer(base)
    tracking = Tracking(args.track, args.tracking, args.study) if args.track else None
    if args.worker:
        samples, held_out = (dataset.read_samples(args.state / file) for file in (SAMPLES, HELD_OUT))
        try:
            facts = trainer.fine_tune(base, samples, tokenizer, settings, args.state, name, held_out.kept, tracking)
        except interruption.Interrupted as interrupted:
            if torch.distributed.get_rank() == 0:  # for the job that started the workers, which the signal may not have reached
                write_json(args.state / INTERRUPTED, {"error": str(interrupted), "signal": interrupted.signal_name})
            raise
        if torch.distributed.get_rank() == 0:  # the first worker leaves the facts for the job that started it
            write_json(args.state / FACTS, facts)
        torch.distributed.destroy_process_group()
        return
    template = prompt_template.read(args.template, tokenizer)
    samples = dataset.tokenize(read_table(args.data).to_dicts(), tokenizer, template, settings.max_length)
    held_out = validation_samples(args, tokenizer, template, settings.max_length, name)
    with lock_folder(args.state) as lock:
        forecast = memory.describe(base, settings, samples.longest, device())
        write_text(args.output / PREFLIGHT, dataset.preflight(samples, tokenizer, name, forecast))
        inputs = {"base": args.base, "data": args.data} | {f"holdout.{path.parent.parent.name}": path for path in args.holdout}
        context = {"template": template, "threads": args.threads, "rows_dropped": samples.overlong}
        provenance = record_provenance(settings.model_dump(), inputs, **context)
        identity = {key: provenance[key] for key in ("settings", "inputs", "versions", "template", "threads")}
        resume_state.open_state(args.state, identity, scratch=settings.nodes == 1)
        memory.check_disk(base, settings, args.state, name)
        if settings.gpus > 1:
            dataset.write_samples(samples, args.state / SAMPLES)
            dataset.write_samples(held_out, args.state / HELD_OUT)
            facts = train_in_workers(settings, args.state, name, lock)
        else:
            facts = trainer.fine_tune(base, samples, tokenizer, settings, args.state, name, held_out.kept, tracking)
        log, first_step, last_step = (facts.pop(key) for key in ("log", "first_step", "last_step"))
        special = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
        facts["special_tokens"] = {kind: sum(sample.ids.count(token) for sample in samples.kept) for kind, token in special.items()}
        if args.holdout:
            facts["validation"] = {"samples": len(held_out.kept), "dropped_overlong": len(held_out.overlong)}
            facts["validation"]["supervised_tokens"] = sum(sample.supervised for sample in held_out.kept)
        facts["seconds_to_first_step"] = round(first_step - started, 3)
        facts["train_loss"] = sum(entry["loss"] for entry in log if "loss" in entry) / facts["steps"]
        write_table(args.output / HISTORY, trainer.history(log).select(*key_columns(args, *KEYS), pl.all()))
        published = resume_state.publish_epochs(args.state, args.output, settings)
        for key, is_meant in (("weights_sha256", True), ("configuration_sha256", False)):
            facts[key] = {
                epoch: {name: digest for name, digest in files.items() if name.endswith(".safetensors") == is_meant}
                for epoch, files in published.items()
            }
        facts["seconds_to_publish"] = round(time.perf_counter() - last_step, 3)
        record = {**{key: getattr(args, key) for key in KEYS}, **facts, **provenance, "usage": resource_usage()}
        write_json(args.output / RECORD, record, durable=True)
        resume_state.close_state(args.state)


def validation_samples(args: argparse.Namespace, tokenizer, template: dict, max_length: int, name: str):
    """The held-out samples, without those that are trained after all: of a merged set, by another member. AtlasError where none is left."""
    import polars as pl

    from sft_atlas.train import dataset

    if not args.holdout:
        return dataset.Samples([], [])
    trained = {text_hash(text) for text in read_table(args.data)["instruction"]}
    held_out = pl.concat([read_table(path) for path in args.holdout], how="diagonal")
    rows = [row for row in held_out.to_dicts() if text_hash(row["instruction"]) not in trained]
    if len(rows) < len(held_out):
        LOG.warning(
            "%s: %d held-out rows are trained by another member of the merged set; the validation loss is without them",
            name,
            len(held_out) - len(rows),
        )
    samples = dataset.tokenize(rows, tokenizer, template, max_length)
    if not samples.kept:
        raise AtlasError(
            f"{name}: none of {len(held_out)} held-out rows is left to validate on ({len(samples.overlong)} are longer than max_length)"
        )
    return samples


def train_in_workers(settings: Hyperparameters, state: Path, name: str, lock: int) -> dict[str, object]:
    """Train in one process per GPU, started again with less memory each as long as memory was what they ran out of.

    They inherit the file descriptor ``lock``: if this process is killed and they are not, the next job waits for them.
    """
    from sft_atlas.train import hardware, interruption, micro_batch, resume_state

    while True:
        resume_state.complete_checkpoints(state / "trainer")  # removes incomplete ones, which all workers would do at once
        before = micro_batch.load_plan(state)
        host = "127.0.0.1" if settings.nodes == 1 else socket.gethostname()
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        (state / INTERRUPTED).unlink(missing_ok=True)
        code = interruption.run_workers(hardware.launch_command(settings, [*sys.argv, "--worker"], host, port), lock)
        if code == 0:
            return read_json(state / FACTS)
        if (state / INTERRUPTED).exists():
            told = read_json(state / INTERRUPTED)
            raise interruption.Interrupted(told["error"], told["signal"])
        resume_state.raise_if_diverged(state)
        if micro_batch.load_plan(state) == before:
            raise AtlasError(f"{name}: one of {settings.gpus} processes failed (exit code {code}); see its message above")


def gpus(args: argparse.Namespace) -> int:
    """GPUs that the job takes; its workers use the same ones."""
    return 0 if args.worker else Hyperparameters.model_validate_json(args.settings).gpus


def add_options(p: argparse.ArgumentParser) -> None:
    add_model(p, weights=False)
    add_keys(p, *KEYS)
    p.add_argument("--data", type=Path, required=True, help="train.parquet")
    p.add_argument("--holdout", type=Path, nargs="*", default=[], help="holdout.parquet files, whose rows give the validation loss")
    p.add_argument("--settings", required=True, help="hyper-parameters, as JSON")
    p.add_argument("--template", required=True, help=TEMPLATE_HELP)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--state", type=Path, required=True, help="state folder of the run, which survives a failed job")
    p.add_argument("--output", type=Path, required=True, help="folder of the run, for its results")
    p.add_argument("--track", nargs="?", choices=TRACKERS, help="tracker that shows the run while it is trained; changes no result")
    p.add_argument("--tracking", type=Path, help="folder of the tracker")
    p.add_argument("--study", help="name under which the tracker shows the runs of a study together")
    p.add_argument("--worker", action="store_true", help="be one of the processes of a job with several GPUs")
