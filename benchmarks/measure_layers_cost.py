"""Wall time, CPU time and peak memory of measure_layers against reading the same two files once, on weights made up for the purpose."""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

# As the rule has it: one thread of BLAS per process.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from sft_atlas.layers import layer_changes

BLOCK = 1 << 17  # bytes read at a time: as measure_layers reads bfloat16, and faster here than larger blocks
PIECE = 1 << 20  # elements made up at a time


def write(folder: Path, layers: int, width: int, seed: int) -> None:
    """A checkpoint of square bfloat16 matrices, written as safetensors a piece at a time and on the disk when this returns."""
    folder.mkdir()
    names = [f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in range(layers) for part in "qkvo"]
    size = width * width
    header = {
        name: {"dtype": "BF16", "shape": [width, width], "data_offsets": [i * size * 2, (i + 1) * size * 2]} for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    rng = np.random.default_rng(seed)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, len(names) * size, PIECE):
            values = rng.standard_normal(min(PIECE, len(names) * size - begin), np.float32)
            file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
        file.flush()
        os.fsync(file.fileno())


def read_once(folders: list[Path]) -> None:
    """Every byte of the files, in their order, into the same block of memory; nothing is made of them."""
    block = memoryview(bytearray(BLOCK))
    for folder in folders:
        with open(folder / "model.safetensors", "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def forget(folders: list[Path]) -> None:
    """Have the system drop the files from its page cache."""
    for folder in folders:
        with open(folder / "model.safetensors", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cpu() -> float:
    """CPU seconds of this process and of the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(call) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    before, started = cpu(), time.perf_counter()
    call()
    return time.perf_counter() - started, cpu() - before


def main(args: argparse.Namespace) -> None:
    """Take turns, so that what else the machine does falls on all alike, and show the best of each."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in "ab"]
        for seed, folder in enumerate(folders):
            write(folder, args.layers, args.width, seed)
        size = sum(path.stat().st_size for folder in folders for path in folder.iterdir()) / 2**20
        calls = {"reading": lambda: read_once(folders)}
        for workers in args.workers:
            calls[f"measuring, {workers} process{'es' * (workers > 1)}"] = lambda workers=workers: layer_changes(*folders, workers=workers)
        print("| files | | wall s | times reading | CPU s | times reading |\n|---|---|---|---|---|---|")
        for state in ("in the page cache", "not in the page cache"):
            found = {name: [] for name in calls}
            for _ in range(args.repeats):
                for name, call in calls.items():
                    if state.startswith("not"):
                        forget(folders)
                    found[name].append(timed(call))
            best = {name: [min(column) for column in zip(*times, strict=True)] for name, times in found.items()}
            for name, (wall, cpu) in best.items():
                read_wall, read_cpu = best["reading"]
                row = f"{size:.0f} MiB {state} | {name} | {wall:.3f} | {wall / read_wall:.2f} | {cpu:.3f} | {cpu / read_cpu:.2f}"
                print(f"| {row} |", flush=True)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(f"\nPeak memory of a process: {peak:.0f} MiB. Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--width", type=int, default=4096)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    main(p.parse_args())
