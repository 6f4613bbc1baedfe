"""Measure training: tokens per second, useful tokens, MFU, peak memory, and the same through TRL's SFTTrainer alone.

    .venv/bin/python benchmarks/train_throughput.py                  # 8b on a GPU, small on a CPU
    .venv/bin/python benchmarks/train_throughput.py --model 8b --methods full --padding-free yes
    .venv/bin/python benchmarks/train_throughput.py --gpus 4         # FSDP2; without GPUs, processes of the CPU

Models are Llama-3-shaped with random weights; samples are random tokens with the lengths of instruction data. Each measurement runs in
a process of its own and calls the functions behind the rule `train`; the reference gives the same arguments, model and samples to
SFTTrainer. The first step is not counted. With several GPUs, rates are of all together, CPU time and peak of the first process. Useful
tokens are those of the samples, as a share of those that are computed or waited for. Prints Markdown for benchmarks/README.md. A measurement that fails becomes a row with its error,
the others go on, and the script ends with status 1.
"""

import argparse
import itertools
import json
import math
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from harness import ROOT, machine, print_table

SHAPES = {  # layers, hidden size, intermediate size, heads, key-value heads, vocabulary
    "8b": (32, 4096, 14336, 32, 8, 128256),
    "1b": (16, 2048, 8192, 32, 8, 128256),
    "100m": (12, 768, 2048, 12, 4, 32000),
    "small": (4, 256, 704, 4, 2, 2048),
}
LENGTHS = {"cuda": (300, 2048), "cpu": (64, 256)}  # median and longest sample, in tokens
ROWS = {"cuda": 512, "cpu": 96}
HEADER = [
    "method", "weights", "padding-free", "micro-batch", "useful tokens", "tokens/s", "MFU", "SFTTrainer, tokens/s",
    "CPU time, times SFTTrainer", "peak GiB", "to first step, s", "after last step, s", "start / steps / end",
]  # fmt: skip


def lengths(count: int, median: int, longest: int) -> list[int]:
    """Sample lengths, log-normal like those of instruction data (sigma 0.8: the mean is 1.4 medians)."""
    rng = random.Random(0)
    return [min(longest, max(16, round(median * math.exp(rng.gauss(0, 0.8))))) for _ in range(count)]


def samples(count: int, median: int, longest: int, vocabulary: int):
    """Random tokens; the last 60 % of each sample are supervised."""
    from sft_atlas.train.dataset import Sample, Samples

    rng = random.Random(1)
    tokens = [[rng.randrange(10, vocabulary) for _ in range(size)] for size in lengths(count, median, longest)]
    return Samples([Sample(index, ids, int(0.4 * len(ids))) for index, ids in enumerate(tokens)], [])


def matrix_rate(where: str) -> float:
    """FLOP/s of square matrix products in the dtype that training computes in; the best of ten."""
    import torch

    size, dtype = (8192, torch.bfloat16) if where == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=where, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def flops(shape, method: str, tokens: list[int], supervised: int) -> float:
    """FLOPs of one epoch: 6 per weight and token (LoRA: 4, as frozen weights have no gradients), attention, and the head."""
    factor = 6 if method == "full" else 4
    attention = sum(6 * shape.layers * shape.query * size * size for size in tokens)  # causal: half of 12
    return factor * (shape.layers * shape.matrices * sum(tokens) + shape.vocabulary * shape.hidden * supervised) + attention


def make_base(name: str, folder: Path) -> None:
    """Save a random bfloat16 model and a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sft_atlas.data.pretrain_demo_model import train_tokenizer
    from sft_atlas.models.base_model import device

    layers, hidden, intermediate, heads, groups, vocabulary = SHAPES[name]
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads,
        num_key_value_heads=groups, vocab_size=vocabulary, max_position_embeddings=8192, rope_theta=500000.0,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        LlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer(["###Question: 1 ###Answer: 2"], 300).save_pretrained(folder)


def measure(job: dict) -> dict:
    """Train once: seconds, CPU seconds and peak memory of all steps but the first, and the seconds before and after the steps."""
    started = time.perf_counter()
    import torch

    from sft_atlas.models.base_model import ModelFolder, device, load_tokenizer
    from sft_atlas.study.schema import Hyperparameters
    from sft_atlas.train import memory, micro_batch, step_batches, trainer
    from sft_atlas.train.checkpointing import CheckpointCallback

    torch.set_num_threads(job["threads"])
    where, settings = device(), Hyperparameters(**job["settings"])
    if settings.gpus > 1 and where == "cpu":
        sys.path.insert(0, str(ROOT / "tests"))
        from helpers.processes import shard_on_the_cpu

        shard_on_the_cpu()
    base = ModelFolder("random", Path(job["base"]), "bfloat16", False)
    dataset = samples(job["rows"], *LENGTHS[where], memory.DecoderShape.read(base.path).vocabulary)
    tokenizer, step_ends = load_tokenizer(base), []
    on_step_end = CheckpointCallback.on_step_end

    def record_step_end() -> None:
        if where == "cuda":
            torch.cuda.synchronize()
        step_ends.append((time.perf_counter(), time.process_time()))

    def timed_on_step_end(self, *args, **options):
        record_step_end()
        return on_step_end(self, *args, **options)

    CheckpointCallback.on_step_end = timed_on_step_end
    if job["batches"]:
        train_with_trl(base, dataset, tokenizer, settings, micro_batch.BatchPlan(**job["batches"]), Path(job["state"]), record_step_end)
        batches = job["batches"]
    else:
        record = trainer.fine_tune(base, dataset, tokenizer, settings, Path(job["state"]), "throughput")
        batches = {key: record[key] for key in micro_batch.BatchPlan.__dataclass_fields__}
    ended = time.perf_counter()
    peak = torch.cuda.max_memory_allocated() if where == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (first, first_cpu), (last, last_cpu) = step_ends[0], step_ends[-1]
    epochs = settings.epochs * (len(step_ends) - 1) / len(step_ends)  # without the first step
    tokens, supervised = [len(sample) for sample in dataset.kept], sum(len(sample) - sample.first for sample in dataset.kept)
    if settings.gpus > 1:
        torch.distributed.destroy_process_group()
    return {
        "useful": step_batches.useful_share(
            tokens, settings.batch_size, settings.gpus, batches["micro_batch_size"], settings.padding_free
        ),
        "seconds": last - first, "cpu": last_cpu - first_cpu, "peak": peak, "start": first - started, "end": ended - last, "batches": batches,
        "tokens": epochs * sum(tokens), "flops": epochs * flops(memory.DecoderShape.read(base.path), settings.method, tokens, supervised),
    }  # fmt: skip


def train_with_trl(base, dataset, tokenizer, settings, batches, folder: Path, record_step_end) -> None:
    """Train with the same settings through SFTTrainer alone: no preflight, no checkpoints, the final model saved by `save_model`."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback, set_seed
    from trl import SFTTrainer

    from sft_atlas.models.base_model import device
    from sft_atlas.train import hardware, trainer

    class Timer(TrainerCallback):
        def on_step_end(self, *_, **__):
            record_step_end()

    dtype, autocast = hardware.precision(settings, base, device())
    args = trainer.sft_config(settings, batches, folder, device(), autocast)
    args.save_strategy = "no"
    set_seed(settings.seed)
    attention = hardware.attention(settings, base, device(), autocast)
    options = {"attn_implementation": attention} if attention else {}
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype, **options)
    rows = Dataset.from_list([{"input_ids": sample.ids, "labels": sample.labels} for sample in dataset.kept])
    peft = trainer.lora_config(model, settings)
    sft_trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, peft_config=peft, callbacks=[Timer()])
    sft_trainer.train()
    sft_trainer.save_model(str(folder / "final"))


class MeasurementError(Exception):
    """A measurement failed; the message is its error."""


def measure_in_process(job: dict) -> dict:
    """Measure in fresh processes, one per GPU; the first prints the result."""
    processes = job["settings"]["gpus"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    with tempfile.TemporaryDirectory(dir=job["scratch"]) as state:
        call = [sys.executable, *launcher, __file__, "--child", json.dumps(job | {"state": state})]
        ended = subprocess.run(call, capture_output=True, text=True)
    if ended.returncode:
        print(ended.stderr[-3000:], file=sys.stderr)
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", ended.stderr, re.M) or ended.stderr.split("\n")[-2:-1] or ["no message"]
        name = "SFTTrainer" if job["batches"] else "sft-atlas"
        raise MeasurementError(f"{name}, exit status {ended.returncode}: {errors[-1][:200]}")
    return json.loads(ended.stdout.splitlines()[-1])


def measure_both(job: dict, repeats: int) -> tuple[list[dict], list[dict]]:
    """Measure sft-atlas and SFTTrainer in turns; SFTTrainer gets the micro-batches that sft-atlas chose."""
    ours, reference = [], []
    for _ in range(repeats):
        ours.append(measure_in_process(job))
        reference.append(measure_in_process(job | {"batches": ours[-1]["batches"]}))
    return ours, reference


def figures(ours: list[dict], reference: list[dict], peak_flops: float) -> list[str]:
    """The measured cells of a row, from the fastest of the repeats."""
    one, other = (min(runs, key=lambda run: run["seconds"]) for runs in (ours, reference))
    batches = one["batches"]
    return [
        f"{batches['micro_batch_size']} x {batches['gradient_accumulation_steps']}{', recomputed' * batches['activation_checkpointing']}",
        f"{one['useful']:.0%}",
        f"{one['tokens'] / one['seconds']:,.0f}",
        f"{one['flops'] / one['seconds'] / peak_flops:.1%}",
        f"{other['tokens'] / other['seconds']:,.0f}",
        f"{min(run['cpu'] for run in ours) / min(run['cpu'] for run in reference):.3f}",
        f"{one['peak'] / 2**30:.2f}",
        f"{one['start']:.1f}",
        f"{one['end']:.2f}",
        " / ".join(f"{one[part] / (one['start'] + one['seconds'] + one['end']):.0%}" for part in ("start", "seconds", "end")),
    ]


def main(args: argparse.Namespace) -> int:
    """Print the table; returns 1 if a measurement failed."""
    import torch

    from sft_atlas.models.base_model import device

    where = device()
    model, rows = args.model or ("8b" if where == "cuda" else "small"), args.rows or ROWS[where]
    full_weights = args.weights or ("bfloat16" if model == "8b" and args.gpus == 1 else "float32")
    weights = {"full": full_weights, "lora": "bfloat16" if where == "cuda" else "float32"}
    torch.set_num_threads(args.threads)
    peak_flops = args.gpus * matrix_rate(where)
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("torch", "transformers", "trl", "peft", "accelerate"))
    processor = torch.cuda.get_device_name() if where == "cuda" else f"{args.threads} thread{'s' * (args.threads > 1)}"
    processor = f"{args.gpus} x {processor}" if args.gpus > 1 else processor
    print(f"{machine()}; {processor}, {peak_flops / 1e12:.2f} TFLOP/s in matrix products; {versions}.")
    print(f"Model {model}, {rows} samples with a median of {LENGTHS[where][0]} tokens.\n")
    failures = []

    def measure_rows(scratch: str) -> Iterator[list[str]]:
        for method, padding_free in itertools.product(args.methods, args.padding_free):
            settings = {
                "method": method, "rows": rows, "epochs": args.epochs, "learning_rate": 1e-5, "batch_size": args.batch_size,
                "gpus": args.gpus, "padding_free": padding_free == "yes", "micro_batch_size": args.micro_batch_size,
                "activation_checkpointing": args.activation_checkpointing,
            }  # fmt: skip
            if method == "full":
                settings["weights"] = full_weights
            job = {
                "settings": settings,
                "base": f"{scratch}/base",
                "rows": rows,
                "scratch": scratch,
                "threads": args.threads,
                "batches": None,
            }
            try:
                cells = figures(*measure_both(job, args.repeats), peak_flops)
            except MeasurementError as error:
                failures.append(error)
                cells = [f"failed ({error})", *[""] * (len(HEADER) - 4)]
            yield [method, weights[method], padding_free, *cells]

    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        subprocess.run([sys.executable, __file__, "--make", model, "--scratch", scratch], check=True, stderr=subprocess.DEVNULL)
        print_table(HEADER, measure_rows(scratch))
    return int(bool(failures))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=SHAPES)
    p.add_argument("--methods", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    p.add_argument("--padding-free", nargs="+", choices=("no", "yes"), default=["no", "yes"])
    p.add_argument("--gpus", type=int, default=1, help="processes that share the model; with a GPU each where there are GPUs")
    p.add_argument("--rows", type=int)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--micro-batch-size", type=int, help="default: the batch size; on a GPU, what the memory forecast allows")
    p.add_argument("--activation-checkpointing", action="store_true")
    p.add_argument(
        "--weights",
        choices=("float32", "bfloat16"),
        help="dtype of the weights in full fine-tuning; default: float32 as in recipes, bfloat16 for 8b, which no single GPU holds in float32",
    )
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--scratch", help="folder for the model; default: the system's temporary folder")
    p.add_argument("--make", help=argparse.SUPPRESS)
    p.add_argument("--child", help=argparse.SUPPRESS)
    return p


if __name__ == "__main__":
    arguments = parser().parse_args()
    if arguments.make:
        make_base(arguments.make, Path(arguments.scratch) / "base")
    elif arguments.child:
        measured = json.dumps(measure(json.loads(arguments.child)))
        if os.environ.get("RANK", "0") == "0":
            print(measured)
    else:
        sys.exit(main(arguments))
