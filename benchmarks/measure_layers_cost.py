"""Wall time, CPU time and peak memory of measure_layers against reading the same files once, on weights made up for the purpose.

    make env && .venv/bin/python benchmarks/measure_layers_cost.py

Full weights: two files of bfloat16 matrices, all of whose elements differ. LoRA: one of them and factors of rank 16 for every matrix.
"""

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# As the rule has it: one thread of BLAS per process.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from sft_atlas.measure.weight_change import layer_changes

BLOCK = 1 << 18  # bytes read at a time: faster here than smaller or larger blocks
RANK = 16
PIECE = 1 << 20  # elements made up at a time


def save(path: Path, dtype: str, shapes: dict[str, tuple[int, int]], pieces: Iterator[bytes]) -> None:
    """A safetensors file, written a piece at a time and on the disk when this returns."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def write(scratch: Path, layers: int, width: int) -> tuple[Path, Path, Path]:
    """Folders of a base model of square matrices, of full weights and of a LoRA adapter."""
    base, full, adapter = folders = [scratch / name for name in ("base", "full", "adapter")]
    names = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(layers) for part in "qkvo"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        rng, left = np.random.default_rng(seed), len(names) * width * width
        if folder == adapter:
            shapes = {
                f"base_model.model.{name}.lora_{side}.weight": (RANK, width) if side == "A" else (width, RANK)
                for name in names
                for side in "AB"
            }
            pieces = (rng.standard_normal(shape, np.float32).tobytes() for shape in shapes.values())
            save(folder / "adapter_model.safetensors", "F32", shapes, pieces)
            config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none"}
            (folder / "adapter_config.json").write_text(json.dumps(config))
        else:
            sizes = [min(PIECE, left - begin) for begin in range(0, left, PIECE)]
            pieces = ((rng.standard_normal(size, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes() for size in sizes)
            save(folder / "model.safetensors", "BF16", dict.fromkeys([f"{name}.weight" for name in names], (width, width)), pieces)
    return base, full, adapter


def read_once(files: list[Path]) -> None:
    """Every byte of the files, in their order, into the same block of memory; nothing is made of them."""
    block = memoryview(bytearray(BLOCK))
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def forget(files: list[Path]) -> None:
    """Have the system drop the files from its page cache."""
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(call) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    before, started = cpu(), time.perf_counter()
    call()
    return time.perf_counter() - started, cpu() - before


def main(args: argparse.Namespace) -> None:
    """Take turns, so that what else the machine does falls on all alike, and show the best of each."""
    print("| checkpoint | files | | wall s | times reading | CPU s | times reading |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        base, *checkpoints = write(Path(scratch), args.layers, args.width)
        for weights in checkpoints:
            files = [path for folder in (base, weights) for path in folder.glob("*.safetensors")]
            size = sum(path.stat().st_size for path in files) / 2**20
            calls = {"reading": lambda files=files: read_once(files)}
            for workers in args.workers:
                name = f"measuring, {workers} thread{'s' * (workers > 1)}"
                calls[name] = lambda weights=weights, workers=workers: layer_changes(base, weights, workers=workers)
            for state in ("in the page cache", "not in the page cache"):
                found = {name: [] for name in calls}
                for _ in range(args.repeats):
                    for name, call in calls.items():
                        if state.startswith("not"):
                            forget(files)
                        found[name].append(timed(call))
                best = {name: [min(column) for column in zip(*times, strict=True)] for name, times in found.items()}
                for name, (wall, cpu) in best.items():
                    read_wall, read_cpu = best["reading"]
                    row = f"{size:.0f} MiB {state} | {name} | {wall:.3f} | {wall / read_wall:.2f} | {cpu:.3f} | {cpu / read_cpu:.2f}"
                    print(f"| {weights.name} | {row} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory: {peak:.0f} MiB. Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--width", type=int, default=4096)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    main(p.parse_args())
