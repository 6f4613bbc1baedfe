"""Compare the forecast of memory under FSDP2 with the measured peak of processes.

    .venv/bin/python benchmarks/sharded_memory.py             # two gloo processes on a CPU: about two minutes
    .venv/bin/python benchmarks/sharded_memory.py --model 1b  # a process per GPU where there are several: their allocators' peaks

On a CPU the peak is that of the resident set over two optimiser steps, less what was there before the model, with freed memory given back
at once; a tiny model is trained before, so that libraries and their buffers are there. Prints Markdown for benchmarks/README.md.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from harness import ROOT, machine, print_table

sys.path.insert(0, str(ROOT / "tests"))

SHAPES = {  # layers, hidden size, intermediate size, heads, key-value heads, vocabulary
    "tiny": (1, 64, 128, 4, 2, 512),
    "small": (6, 512, 1408, 8, 4, 16000),
    "1b": (16, 2048, 8192, 32, 8, 128256),
}
CASES = {
    "full, float32": {"precision": "float32"},
    "full, float32, accumulated": {"precision": "float32", "micro_batch_size": 1},
    "full, float32, recomputed": {"precision": "float32", "activation_checkpointing": True},
    "full, bfloat16": {"precision": "bfloat16"},
    "LoRA, float32": {"method": "lora", "precision": "float32"},
    "LoRA, bfloat16": {"method": "lora", "precision": "bfloat16"},
}
LENGTH = 128  # tokens of each sample


def resident(key: str) -> int:
    """Bytes of this process: VmRSS (now) or VmHWM (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def measure(base, settings, folder: Path) -> tuple[int, float]:
    """Measured and forecast peak of this process, in bytes."""
    import torch
    from transformers import TrainerCallback

    from helpers.tokenizer import make_tokenizer
    from sft_atlas.models.base_model import device
    from sft_atlas.train import hardware, memory, trainer
    from sft_atlas.train.dataset import Sample
    from sft_atlas.train.micro_batch import BatchPlan

    class Stop(Exception):
        pass

    class Peak(TrainerCallback):
        peak = 0

        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 0 and device() == "cpu":
                Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
            elif state.global_step == 0:
                torch.cuda.reset_peak_memory_stats()

        def on_step_end(self, args, state, control, **_):
            if state.global_step == 2:
                Peak.peak = resident("VmHWM") - before if device() == "cpu" else torch.cuda.max_memory_allocated()
                raise Stop

    before = resident("VmRSS")
    plan = BatchPlan.of_recipe(settings)
    samples = [Sample(i, [3 + (i * 31 + j) % 300 for j in range(LENGTH)], 40) for i in range(2 * settings.batch_size)]
    made, checkpoints = trainer.build(base, samples, make_tokenizer(), settings, plan, folder, "memory")
    made.add_callback(Peak())
    try:
        made.train()
    except Stop:
        checkpoints.close()
    precision = hardware.precision(settings, base, device())
    return Peak.peak, memory.forecast(memory.DecoderShape.read(base.path), settings, plan, *precision, LENGTH).total


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=("small", "1b"), default="small")
    p.add_argument("--processes", type=int, default=2)
    args = p.parse_args()
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    if malloc.items() - os.environ.items():  # glibc reads them when the process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | malloc)

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from helpers.processes import forked, shard_on_the_cpu
    from sft_atlas.models.base_model import ModelFolder
    from sft_atlas.study.schema import Hyperparameters

    def make(shape: str, tied: bool, folder: Path) -> ModelFolder:
        layers, hidden, feed_forward, heads, keys, vocabulary = SHAPES[shape]
        config = LlamaConfig(
            num_hidden_layers=layers, hidden_size=hidden, intermediate_size=feed_forward, num_attention_heads=heads, num_key_value_heads=keys,
            vocab_size=vocabulary, tie_word_embeddings=tied, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
        return ModelFolder("memory", folder, "bfloat16", False)

    rows = []
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch:
        for tied in (False, True):
            tiny, base = (make(shape, tied, Path(scratch) / f"{shape}-{tied}") for shape in ("tiny", args.model))
            for name, recipe in CASES.items():
                batch = {"rows": 8, "epochs": 1, "learning_rate": 1e-4, "batch_size": 2 * args.processes, "gpus": args.processes}
                settings = Hyperparameters(**({"method": "full"} | batch | recipe))
                folder = Path(scratch) / f"{tied}-{name}"
                (folder / "before").mkdir(parents=True)

                def one(rank: int, settings=settings, tiny=tiny, base=base, folder=folder) -> None:
                    if not torch.cuda.is_available():
                        shard_on_the_cpu()
                    measure(tiny, settings, folder / "before")
                    (folder / f"{rank}.json").write_text(json.dumps(measure(base, settings, folder)))

                forked(args.processes, one, 600)
                found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(args.processes)]
                peak, forecast = max(peak for peak, _ in found), found[0][1]
                shown = [f"{value / 2**20:,.0f}" for value in (forecast, peak)]
                rows.append([name + (", tied" if tied else ""), *shown, f"{forecast / peak - 1:+.0%}"])
                print(*rows[-1], file=sys.stderr, flush=True)
    print(f"{args.processes} processes, {args.model}; {machine()}\n")
    print_table(["recipe", "forecast, MiB", "measured, MiB", "deviation"], rows)


if __name__ == "__main__":
    main()
