"""Measure measure_layers against a plain read of the same files: wall time, CPU time and peak memory, on synthetic weights.

    .venv/bin/python benchmarks/measure_layers_cost.py --width 2560

Full fine-tuning: two files of bfloat16 matrices that differ in every element. LoRA: one such file and adapters of rank 16 for every matrix.
"""

import argparse
import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# One BLAS thread per process, as in the rule.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np
from harness import machine, print_table, take_turns

from sft_atlas.measure.weight_change import layer_changes

READ_SIZE = 1 << 18  # bytes; smaller and larger reads were slower
RANK = 16
CHUNK = 1 << 20  # elements generated at a time


def save(path: Path, dtype: str, shapes: dict[str, tuple[int, int]], chunks: Iterator[bytes]) -> None:
    """Write a safetensors file chunk by chunk, and flush it to disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def bfloat16(rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Normal random numbers in bfloat16, by dropping the lower half of float32."""
    for begin in range(0, count, CHUNK):
        values = rng.standard_normal(min(CHUNK, count - begin), np.float32)
        yield (values.view(np.uint32) >> 16).astype("<u2").tobytes()


def write_weights(folder: Path, layers: int, width: int) -> tuple[Path, Path, Path]:
    """Folders of a base model of square matrices, of a fully fine-tuned one and of a LoRA adapter."""
    base, full, adapter = folders = [folder / name for name in ("base", "full", "adapter")]
    modules = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(layers) for part in "qkvo"]
    for path in folders:
        path.mkdir()
    matrices = dict.fromkeys([f"{name}.weight" for name in modules], (width, width))
    for seed, path in enumerate((base, full)):
        save(path / "model.safetensors", "BF16", matrices, bfloat16(np.random.default_rng(seed), len(modules) * width * width))
    sides = {"A": (RANK, width), "B": (width, RANK)}
    factors = {f"base_model.model.{name}.lora_{side}.weight": shape for name in modules for side, shape in sides.items()}
    rng = np.random.default_rng(2)
    save(adapter / "adapter_model.safetensors", "F32", factors, (rng.standard_normal(s, np.float32).tobytes() for s in factors.values()))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return base, full, adapter


def read(files: list[Path]) -> None:
    """Read every byte of the files, one after the other, into the same buffer."""
    buffer = memoryview(bytearray(READ_SIZE))
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def timed(call: Callable[[], object], evicted: list[Path]) -> tuple[float, float]:
    """Wall and CPU seconds of a call, after the given files were dropped from the page cache."""
    for path in evicted:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(base: Path, weights: Path, workers: list[int], repeats: int) -> Iterator[list]:
    """Rows of the table for one checkpoint: reading and measuring, files in the page cache and not; the best of the repeats."""
    files = [path for folder in (base, weights) for path in folder.glob("*.safetensors")]
    size = sum(path.stat().st_size for path in files) / 2**20
    calls = {"read": partial(read, files)}
    for count in workers:
        calls[f"measure, {count} thread{'s' * (count > 1)}"] = partial(layer_changes, base, weights, workers=count)
    for where, evicted in (("in", []), ("not in", files)):
        times = take_turns({name: partial(timed, call, evicted) for name, call in calls.items()}, repeats)
        best = {name: [min(column) for column in zip(*pairs, strict=True)] for name, pairs in times.items()}
        read_wall, read_cpu = best["read"]
        for name, (wall, cpu) in best.items():
            ratios = f"{wall / read_wall:.2f}", f"{cpu / read_cpu:.2f}"
            yield [weights.name, f"{size:.0f} MiB {where} the page cache", name, f"{wall:.3f}", ratios[0], f"{cpu:.3f}", ratios[1]]


def main(args: argparse.Namespace) -> None:
    print(machine() + "\n")
    with tempfile.TemporaryDirectory() as folder:
        base, *checkpoints = write_weights(Path(folder), args.layers, args.width)
        rows = (row for weights in checkpoints for row in measure(base, weights, args.workers, args.repeats))
        print_table(["checkpoint", "files", "", "wall s", "times read", "CPU s", "times read"], rows)
    print(f"\nPeak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of threads to measure")
    main(parser.parse_args())
