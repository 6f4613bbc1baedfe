"""Count the tokens that training computes, and how many of them are the samples' own, with the batches of the paper's recipes.

    .venv/bin/python benchmarks/useful_tokens.py ../shared/data/train/*.jsonl.gz
    .venv/bin/python benchmarks/useful_tokens.py --tokenizer FOLDER FILE.jsonl.gz ...

Files have one object {instruction, response} a line; 1,000 random rows of each are taken. Recipes are `full` and `lora` of
config/paper.yaml, for Llama-3-8B; the micro-batch is the one that the memory forecast allows on a device with `--memory` GiB. Processes of
a sharded model wait for the largest batch of each forward pass, which counts as computing. Nothing is trained: this runs on any machine.
Prints Markdown for benchmarks/README.md, and ends with status 1 where a recipe misses its goal.
"""

import argparse
import gzip
import json
import logging
import random
import sys
from pathlib import Path

from harness import ROOT, print_table

LLAMA3_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
HEADER = ["samples", "mean tokens", "longest", "recipe", "GPUs", "micro-batch", "random order", "dealt by length", "padding-free"]


def lengths_of(path: Path, tokenizer, longest: int) -> list[int]:
    """Tokens of up to 1,000 random samples of a file that are not longer than ``longest``."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rows = random.Random(0).sample(rows, min(1000, len(rows)))
    texts = [f"###Question: {row['instruction']} ###Answer: {row['response']}" for row in rows]
    sizes = [len(ids) for ids in tokenizer(texts)["input_ids"]] if tokenizer else [len(text.encode()) // 4 + 2 for text in texts]
    return [size for size in sizes if size <= longest]


def random_share(lengths: list[int], batch_size: int, processes: int, limit: int) -> float:
    """The useful share with samples in random order, in micro-batches of ``limit`` samples, as the trainer makes them."""
    from sft_atlas.train.step_batches import steps, tokens

    lengths = random.Random(0).sample(lengths, len(lengths))
    computed = 0
    for step in steps(lengths, batch_size):
        batches = [tokens(step[start : start + limit], padding_free=False) for start in range(0, len(step), limit)]
        computed += processes * sum(max(batches[start : start + processes]) for start in range(0, len(batches), processes))
    return sum(lengths) / computed


def main(args: argparse.Namespace) -> int:
    """Print the table; returns 1 if a recipe misses its goal."""
    from sft_atlas.study.study import load
    from sft_atlas.train import memory
    from sft_atlas.train.micro_batch import BatchPlan
    from sft_atlas.train.step_batches import useful_share

    logging.disable(logging.WARNING)
    tokenizer = None
    if args.tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    recipes = {run.recipe: run.settings for run in load(ROOT / "config/paper.yaml").runs.values()}
    shape, missed = memory.DecoderShape.of(LLAMA3_8B), []

    def rows():
        for path in args.files:
            for recipe in ("full", "lora"):
                settings = recipes[recipe]
                lengths = lengths_of(path, tokenizer, settings.max_length)
                dtype = settings.weights if settings.method == "full" else "bfloat16"
                first = BatchPlan.of_recipe(settings)
                fits = memory.largest_plan_that_fits(shape, settings, first, dtype, True, max(lengths), args.memory * memory.GIB, recipe)
                plan = memory.with_useful_tokens(fits, settings, lengths)
                batches = (lengths, settings.batch_size, settings.gpus, plan.micro_batch_size)
                share = useful_share(*batches)
                goal = memory.LEAST_USEFUL_SHARDED if settings.gpus > 1 else memory.LEAST_USEFUL
                if share < goal:
                    missed.append(f"{path.name}, {recipe}: {share:.1%} is below {goal:.0%}")
                shares = [random_share(*batches), share, useful_share(*batches, padding_free=True)]
                name = path.name.split(".")[0]
                size = f"{plan.micro_batch_size} x {plan.gradient_accumulation_steps}"
                means = [f"{sum(lengths) / len(lengths):.0f}", str(max(lengths))]
                yield [name, *means, recipe, str(settings.gpus), size, *(f"{value:.0%}" for value in shares)]

    print_table(HEADER, rows())
    print(*missed, sep="\n", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", type=Path)
    p.add_argument("--tokenizer", help="folder of a tokenizer; default: one token per four bytes")
    p.add_argument("--memory", type=float, default=74, help="GiB of the device; default: an H100 with 80 GB, as in config/devices.yaml")
    sys.exit(main(p.parse_args()))
