"""Measure training: tokens per second, share of the device's matrix rate (MFU), peak memory, and the same through bare TRL.

    .venv/bin/python benchmarks/train_throughput.py                  # 8b on a GPU, small on a CPU
    .venv/bin/python benchmarks/train_throughput.py --model 8b --methods full --padding-free yes

Models are Llama-3-shaped with random weights, samples random tokens with the lengths of instruction data. Each measurement is a
process of its own and goes through the functions that the rule `train` calls; the bare run hands the same arguments, model and samples to
SFTTrainer. The first step is left out of the rate. Prints Markdown for benchmarks/README.md. A measurement that fails is a row with its
reason, the others go on, and the script ends with status 1.
"""

import argparse
import json
import math
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

SHAPES = {  # layers, hidden, feed-forward, heads, key-value heads, vocabulary
    "8b": (32, 4096, 14336, 32, 8, 128256),
    "1b": (16, 2048, 8192, 32, 8, 128256),
    "100m": (12, 768, 2048, 12, 4, 32000),
    "small": (4, 256, 704, 4, 2, 2048),
}
LENGTHS = {"cuda": (300, 2048), "cpu": (64, 256)}  # median and longest sample, in tokens
ROWS = {"cuda": 512, "cpu": 96}


def lengths(count: int, median: int, longest: int) -> list[int]:
    """Lengths of samples, log-normal as those of instruction sets are (sigma 0.8, which puts the mean at 1.4 medians)."""
    rng = random.Random(0)
    return [min(longest, max(16, round(median * math.exp(rng.gauss(0, 0.8))))) for _ in range(count)]


def samples(count: int, median: int, longest: int, vocabulary: int):
    """Random tokens, the last 60 % of each sample supervised."""
    from sft_atlas.train.dataset import Sample, Samples

    rng = random.Random(1)
    made = [(size, [rng.randrange(10, vocabulary) for _ in range(size)]) for size in lengths(count, median, longest)]
    return Samples([Sample(index, ids, int(0.4 * size)) for index, (size, ids) in enumerate(made)], [])


def matrix_rate(where: str) -> float:
    """Operations per second of square matrix products, in the type that training computes in; the best of several."""
    import torch

    size, dtype = (8192, torch.bfloat16) if where == "cuda" else (1024, torch.float32)
    one, other = (torch.randn(size, size, device=where, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        product = one @ other
        float(product[0, 0])  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def operations(shape, method: str, tokens: list[int], supervised: int) -> float:
    """Operations that one pass over the samples needs: 6 per weight and token (LoRA: 4, no gradients of frozen weights), attention, head."""
    factor = 6 if method == "full" else 4
    attention = sum(6 * shape.layers * shape.query * size * size for size in tokens)  # causal: half of 12
    return factor * (shape.layers * shape.matrices * sum(tokens) + shape.vocabulary * shape.hidden * supervised) + attention


def make_base(name: str, folder: Path) -> None:
    """A random model in bfloat16 and a tokenizer, as an ordinary folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sft_atlas.data.pretraining import train_tokenizer
    from sft_atlas.models.base_model import device

    layers, hidden, inner, heads, groups, vocabulary = SHAPES[name]
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=inner, num_attention_heads=heads, num_key_value_heads=groups, vocab_size=vocabulary,
        max_position_embeddings=8192, rope_theta=500000.0, pad_token_id=0, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        LlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer(["###Question: 1 ###Answer: 2"], 300).save_pretrained(folder)


def measure(job: dict) -> dict:
    """One measurement: seconds, CPU seconds and peak memory of all steps but the first, and how long the start and the end took."""
    started = time.perf_counter()
    import torch

    from sft_atlas.models.base_model import BaseModel, device, load_tokenizer
    from sft_atlas.study.schema import Hyperparameters
    from sft_atlas.train import memory, micro_batch
    from sft_atlas.train import trainer as training
    from sft_atlas.train.checkpointing import Keeper

    torch.set_num_threads(job["threads"])
    where, settings = device(), Hyperparameters(**job["settings"])
    base = BaseModel("random", Path(job["base"]), "bfloat16", False)
    found = samples(job["rows"], job["median"], job["longest"], memory.Shape.read(base.path).vocabulary)
    tokenizer, marks = load_tokenizer(base), []
    step_end = Keeper.on_step_end

    def marking(self, *args, **more):
        if where == "cuda":
            torch.cuda.synchronize()
        marks.append((time.perf_counter(), time.process_time()))
        return step_end(self, *args, **more)

    Keeper.on_step_end = marking
    with tempfile.TemporaryDirectory(dir=job["scratch"]) as scratch:
        if job["bare"]:
            bare(base, found, tokenizer, settings, micro_batch.Fit(**job["fit"]), Path(scratch), marks)
            facts = {}
        else:
            facts = training.fine_tune(base, found, tokenizer, settings, Path(scratch), "throughput")
        ended = time.perf_counter()
    used = torch.cuda.max_memory_allocated() if where == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (first, first_cpu), (last, last_cpu) = marks[0], marks[-1]
    fit = {key: facts[key] for key in micro_batch.Fit.__dataclass_fields__} if facts else job["fit"]
    return {
        "seconds": last - first, "cpu": last_cpu - first_cpu, "share": (len(marks) - 1) / len(marks), "peak": used, "start": first - started,
        "end": ended - last, "fit": fit, "tokens": [len(sample) for sample in found.kept], "epochs": settings.epochs,
        "supervised": sum(len(sample) - sample.first for sample in found.kept),
    }  # fmt: skip


def bare(base, found, tokenizer, settings, fit, folder: Path, marks: list) -> None:
    """The same settings through SFTTrainer alone: no preflight, no keeping, the final model saved by `save_model`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback, set_seed
    from trl import SFTTrainer

    from sft_atlas.models.base_model import device
    from sft_atlas.train import hardware
    from sft_atlas.train import trainer as training

    class Marks(TrainerCallback):
        def on_step_end(self, *_, **__):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append((time.perf_counter(), time.process_time()))

    dtype, autocast = hardware.precision(settings, base, device())
    args = training.arguments(settings, fit, folder, device(), autocast)
    args.save_strategy = "no"
    set_seed(settings.seed)
    kernel = hardware.attention(settings, base, device(), autocast)
    model = AutoModelForCausalLM.from_pretrained(
        base.path, dtype=getattr(torch, dtype), **({"attn_implementation": kernel} if kernel else {})
    )
    rows = Dataset.from_list([{"input_ids": sample.ids, "labels": sample.labels} for sample in found.kept])
    peft = training.adapter(model, settings)
    trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, peft_config=peft, callbacks=[Marks()])
    trainer.train()
    trainer.save_model(str(folder / "final"))


class Failed(Exception):
    """A measurement ended with an error; the message names it."""


def child(job: dict) -> dict:
    """Measure in a fresh process."""
    ended = subprocess.run([sys.executable, __file__, "--child", json.dumps(job)], capture_output=True, text=True)
    if ended.returncode:
        print(ended.stderr[-3000:], file=sys.stderr)
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", ended.stderr, re.M) or ended.stderr.split("\n")[-2:-1] or ["no message"]
        raise Failed(f"{'bare TRL' if job['bare'] else 'ours'}, exit status {ended.returncode}: {errors[-1][:200]}")
    return json.loads(ended.stdout.splitlines()[-1])


def in_turns(job: dict, repeats: int) -> tuple[list[dict], list[dict]]:
    """Ours and bare TRL, in turns, so that a machine that slows down slows both."""
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(child(job))
        theirs.append(child(job | {"bare": True, "fit": ours[-1]["fit"]}))
    return ours, theirs


def main(args: argparse.Namespace) -> int:
    """Print the table; 1 where a measurement failed."""
    import torch

    from sft_atlas.models.base_model import device
    from sft_atlas.train import memory

    where = device()
    name, rows = args.model or ("8b" if where == "cuda" else "small"), args.rows or ROWS[where]
    weights = args.weights or ("bfloat16" if name == "8b" else "float32")
    torch.set_num_threads(args.threads)
    rate = matrix_rate(where)
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("torch", "transformers", "trl", "peft", "accelerate"))
    what = torch.cuda.get_device_name() if where == "cuda" else f"{platform.machine()}, {args.threads} thread(s)"
    print(
        f"Model {name}, {rows} samples, median {LENGTHS[where][0]} tokens; {what}, {rate / 1e12:.2f} TFLOP/s in matrix products; {versions}.\n"
    )
    print(
        "| method | weights | packed | micro-batch | tokens/s | MFU | bare TRL, tokens/s | ours / bare, CPU time | peak GiB | to first step, s | after last step, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    failures = 0
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        subprocess.run([sys.executable, __file__, "--make", name, "--scratch", scratch], check=True, stderr=subprocess.DEVNULL)
        shape = memory.Shape.read(Path(scratch) / "base")
        for method in args.methods:
            for packed in args.padding_free:
                recipe = {
                    "method": method,
                    "rows": rows,
                    "epochs": args.epochs,
                    "learning_rate": 1e-5,
                    "batch_size": args.batch_size,
                    "padding_free": packed == "yes",
                }
                recipe |= {"micro_batch_size": args.micro_batch_size, "activation_checkpointing": args.activation_checkpointing}
                recipe |= {"weights": weights} if method == "full" else {}
                held = weights if method == "full" else "bfloat16" if where == "cuda" else "float32"
                row = f"| {method} | {held} | {packed}"
                job = {
                    "settings": recipe,
                    "base": f"{scratch}/base",
                    "rows": rows,
                    "scratch": scratch,
                    "threads": args.threads,
                    "bare": False,
                }
                job |= dict(zip(("median", "longest"), LENGTHS[where], strict=True))
                try:
                    report(shape, method, row, rate, *in_turns(job, args.repeats))
                except Failed as error:
                    failures += 1
                    print(f"{row} | failed ({str(error).replace('|', '/')}) | | | | | | | |", flush=True)
    return int(failures > 0)


def report(shape, method: str, row: str, rate: float, ours: list[dict], theirs: list[dict]) -> None:
    """Print one row: the fastest of the repeats of each."""
    one, other = (min(runs, key=lambda run: run["seconds"]) for runs in (ours, theirs))
    tokens = sum(one["tokens"]) * one["epochs"] * one["share"]
    needed = operations(shape, method, one["tokens"], one["supervised"]) * one["epochs"] * one["share"]
    fit = one["fit"]
    again = ", recomputed" if fit["activation_checkpointing"] else ""
    cpu = min(run["cpu"] for run in ours) / min(run["cpu"] for run in theirs)
    print(
        f"{row} | {fit['micro_batch_size']} x {fit['gradient_accumulation_steps']}{again} | {tokens / one['seconds']:,.0f}"
        f" | {needed / one['seconds'] / rate:.1%} | {tokens / other['seconds']:,.0f} | {cpu:.3f} | {one['peak'] / 2**30:.2f}"
        f" | {one['start']:.1f} | {one['end']:.2f} |",
        flush=True,
    )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=SHAPES)
    p.add_argument("--methods", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    p.add_argument("--padding-free", nargs="+", choices=("no", "yes"), default=["no", "yes"])
    p.add_argument("--rows", type=int)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--micro-batch-size", type=int, help="default: the batch size, on a GPU what is forecast to fit")
    p.add_argument("--activation-checkpointing", action="store_true")
    p.add_argument(
        "--weights",
        choices=("float32", "bfloat16"),
        help="with full; default: float32 as in recipes, but bfloat16 for 8b, whose float32 weights fit on no single GPU of today",
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
        print(json.dumps(measure(json.loads(arguments.child))))
    else:
        sys.exit(main(arguments))
