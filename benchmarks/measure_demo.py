"""Measure the demo: wall time, CPU time and peak memory of a run from nothing, of a second run, and imports per kind of job.

    make env && .venv/bin/python benchmarks/measure_demo.py

Runs `snakemake` in a copy of the repository in a temporary folder, so results of the checkout stay as they are; prints
Markdown for benchmarks/README.md. Memory is the sum over all processes of the run, sampled every half second (PSS: pages
that several processes share count once).
"""

import argparse
import contextlib
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "rules", "envs", "config", "workflow_scripts", "profiles")
BASE = "import torch; from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM"
# What each kind of job that needs torch imports, as its script does.
IMPORTS = {
    "train": "import polars, torch, datasets, trl.trainer.sft_trainer, peft, transformers.models.llama.modeling_llama",
    "evaluate": "import polars, torch, transformers.models.llama.modeling_llama, lm_eval.models.huggingface, lm_eval.evaluator",
    "measure_perplexity": "import polars, torch, transformers.models.llama.modeling_llama",
    "measure_representation": "import polars, torch, transformers.models.llama.modeling_llama, skdim.id",
    "pretrain_demo_model": "import torch, tokenizers, reasoning_gym, transformers.models.llama.modeling_llama",
}


def sample(pid: int, peak: list[float], stop: threading.Event) -> None:
    """Keep the highest sum of PSS (MiB) over a process and all that it started."""
    root = psutil.Process(pid)
    while not stop.wait(0.5):
        total = 0
        try:
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue  # it ended meanwhile
        peak[0] = max(peak[0], total / 2**20)


def run(folder: Path, study: str) -> tuple[float, float, str]:
    """Wall seconds, peak MiB and output of one call of Snakemake."""
    started = time.perf_counter()
    call = [sys.executable, "-m", "snakemake", "--configfile", f"config/{study}.yaml", "--cores", "2"]
    with open(folder / "printed.txt", "w") as printed:
        process = subprocess.Popen(call, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
        peak, stop = [0.0], threading.Event()
        watcher = threading.Thread(target=sample, args=(process.pid, peak, stop))
        watcher.start()
        code = process.wait()
    wall = time.perf_counter() - started
    stop.set()
    watcher.join()
    text = (folder / "printed.txt").read_text()
    if code:
        sys.exit(text[-3000:])
    return wall, peak[0], text


def job_seconds(logs: Path) -> dict[str, list[float]]:
    """Wall seconds of every job by kind, from the logs."""
    found = defaultdict(list)
    for path in logs.rglob("*.log"):
        done = [line for line in path.read_text().splitlines() if "INFO done in" in line]
        if done:
            found[path.relative_to(logs).parts[0].removesuffix(".log")].append(float(done[-1].split("done in ")[1].split()[0]))
    return found


def import_seconds(code: str, repeats: int = 3) -> float:
    """Median CPU seconds of a fresh process that imports."""
    spent = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stderr=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


def main(args: argparse.Namespace) -> None:
    if args.finished:
        report_jobs(job_seconds(args.finished / "logs"))
        report_imports()
        return
    with contextlib.nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        folder.mkdir(exist_ok=True)
        for part in PARTS:
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
        first, peak, _ = run(folder, args.study)
        second, _, text = run(folder, args.study)
        kinds = job_seconds(folder / "results" / args.study / "logs")
    print(f"Measured {datetime.now():%Y-%m-%d} on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}.\n")
    print("| what | measured |\n|---|---|")
    print(f"| `snakemake`, study {args.study}, from nothing | {first / 60:.1f} min |")
    print(f"| peak memory of all processes | {peak / 1024:.2f} GiB |")
    print(f"| second call ({'nothing to be done' if 'Nothing to be done' in text else 'SOMETHING WAS DONE'}) | {second:.1f} s |")
    report_jobs(kinds)
    report_imports()


def report_jobs(kinds: dict[str, list[float]]) -> None:
    """Print how long the jobs of each kind took."""
    print("\n| kind of job | jobs | median wall s | sum wall s |\n|---|---|---|---|")
    for kind, seconds in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        print(f"| {kind} | {len(seconds)} | {statistics.median(seconds):.2f} | {sum(seconds):.0f} |")


def report_imports() -> None:
    """Print what each kind of job that needs torch pays for its imports when it starts cold."""
    base = import_seconds(BASE)
    print("\n| imports, CPU s of a fresh process | seconds | share of the base |\n|---|---|---|")
    print(f"| base: torch, and transformers up to a model class | {base:.2f} | 1 |")
    for kind, code in IMPORTS.items():
        seconds = import_seconds(code)
        print(f"| {kind} | {seconds:.2f} | {seconds / base:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--folder", type=Path, help="a new folder to run in, which is kept")
    parser.add_argument("--finished", type=Path, help="results/{study} of a finished run: report its jobs and the imports, run nothing")
    main(parser.parse_args())
