"""Fine-tune one base model on one training set with one recipe; publishes every kept epoch."""

import argparse
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, lock_folder, write_json, write_table
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.models import prompt_template
from sft_atlas.models.base_model import BaseModel, device, load_tokenizer
from sft_atlas.study.schema import Hyperparameters


def main(args: argparse.Namespace) -> None:
    import polars as pl
    import torch

    from sft_atlas.train import dataset, memory, resuming, scratch, trainer

    started = time.perf_counter()
    torch.set_num_threads(args.threads)
    settings = Hyperparameters.model_validate_json(args.settings)
    name = f"{args.model}/{args.dataset}/{args.recipe}"
    text = prompt_template.read(args.template)
    base = BaseModel.read(args.base)
    tokenizer = load_tokenizer(base)
    found = dataset.tokenize(pl.read_parquet(args.data).to_dicts(), tokenizer, text, settings.max_length)
    if args.worker:
        work(args.state, trainer.fine_tune(base, found, tokenizer, settings, args.state, name))
        return
    with lock_folder(args.state) as lock:
        page = dataset.preflight(found, tokenizer, name, memory.describe(base, settings, max(map(len, found.kept), default=0), device()))
        with atomic(args.output / "preflight.txt") as part:
            part.write_text(page, encoding="utf-8")
        inputs = {"base": args.base, "data": args.data}
        provenance = record_provenance(settings.model_dump(), inputs, template=text, threads=args.threads, rows_dropped=found.overlong)
        identity = {key: provenance[key] for key in ("settings", "inputs", "versions", "template", "threads")}
        resuming.open_state(args.state, identity)
        scratch.attach(args.state, identity)
        memory.check_disk(base, settings, args.state, name)
        if settings.gpus > 1:
            facts = in_processes(settings, args.state, name, lock)
        else:
            facts = trainer.fine_tune(base, found, tokenizer, settings, args.state, name)
        log, hashes = facts.pop("log"), facts.pop("hashes")
        facts["special_tokens"] = {
            kind: sum(sample.ids.count(token) for sample in found.kept)
            for kind, token in (("bos", tokenizer.bos_token_id), ("eos", tokenizer.eos_token_id))
        }
        facts["seconds_to_first_step"] = round(facts.pop("first_step") - started, 3)
        last_step = facts.pop("last_step")
        facts["train_loss"] = sum(entry["loss"] for entry in log if "loss" in entry) / facts["steps"]
        write_table(args.output / "history.parquet", trainer.history(log, args.model, args.dataset, args.recipe))
        facts["weights_sha256"] = resuming.publish(args.state, args.output, settings, hashes)
        facts["seconds_to_publish"] = round(time.perf_counter() - last_step, 3)
        keys = {"model": args.model, "dataset": args.dataset, "recipe": args.recipe}
        write_json(args.output / "train.json", {**keys, **facts, **provenance, "usage": resource_usage()})
        scratch.detach(args.state)
        resuming.close_state(args.state)


def in_processes(settings: Hyperparameters, state: Path, name: str, lock: int) -> dict[str, object]:
    """Train in one process per GPU; start them again with less memory each as long as that is what they ended for.

    They hold ``lock`` as well: if this process is killed and they are not, the next job waits for them.
    """
    from sft_atlas.train import hardware, micro_batch, resuming

    while True:
        resuming.newest_complete(state / "trainer")  # removes unfinished states, which the processes would do all at once
        before = micro_batch.load(state)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ended = subprocess.run(hardware.launch(settings, [*sys.argv, "--worker"], port), pass_fds=[lock])
        if ended.returncode == 0:
            return json.loads((state / "facts.json").read_text())
        if micro_batch.load(state) == before:
            raise AtlasError(
                f"{name}: one of the {settings.gpus} processes failed (exit code {ended.returncode}); its message stands above"
            )


def work(state: Path, facts: dict[str, object]) -> None:
    """In one of several processes: the first leaves the facts for the job."""
    import torch

    if torch.distributed.get_rank() == 0:
        write_json(state / "facts.json", facts)
    torch.distributed.destroy_process_group()


def gpus(args: argparse.Namespace) -> int:
    """GPUs that the job takes; the processes that it starts have its own."""
    return 0 if args.worker else Hyperparameters.model_validate_json(args.settings).gpus


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--base", type=Path, required=True, help="model.json of the base model")
    p.add_argument("--data", type=Path, required=True, help="train.parquet")
    for key in ("model", "dataset", "recipe"):
        p.add_argument(f"--{key}", required=True)
    p.add_argument("--settings", required=True, help="hyper-parameters, as JSON")
    p.add_argument("--template", required=True, help="prompt template, as JSON")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--state", type=Path, required=True, help="folder for resuming; kept when the job dies")
    p.add_argument("--output", type=Path, required=True, help="folder of the run")
    p.add_argument("--worker", action="store_true", help="this process is one of several of a job with more than one GPU")
    return p
