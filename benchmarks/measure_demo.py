"""Measure the demo: wall time and peak memory of a run from nothing, the time of a second run, and the imports of each kind of job.

    .venv/bin/python benchmarks/measure_demo.py
    .venv/bin/python benchmarks/measure_demo.py --finished results/demo     # only the job times of a finished run, and the imports

Runs Snakemake in a copy of the repository, so the results of the checkout stay as they are. Prints Markdown for benchmarks/README.md.
"""

import argparse
import contextlib
import os
import re
import statistics
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import psutil
from harness import ROOT, copy_workflow, machine, print_table, run, snakemake

from sft_atlas.plan.forecast import logged_seconds

CPU_SECONDS = re.compile(r'"cpu_seconds": ([0-9.]+)')
BASE = "import torch; from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM"
# What each kind of job that needs torch imports.
IMPORTS = {
    "train": "import polars, torch, datasets, trl.trainer.sft_trainer, peft, transformers.models.llama.modeling_llama",
    "evaluate": "import polars, torch, transformers.models.llama.modeling_llama, lm_eval.models.huggingface, lm_eval.evaluator",
    "measure_perplexity": "import polars, torch, transformers.models.llama.modeling_llama",
    "measure_representation": "import polars, torch, transformers.models.llama.modeling_llama, skdim.id",
    "pretrain_demo_model": "import torch, tokenizers, transformers.models.llama.modeling_llama; "
    "from sft_atlas.data import procedural; procedural.import_reasoning_gym()",
}


class PeakMemory(threading.Thread):
    """Samples the memory of all child processes every half second while the `with` block runs; `mib` is the highest sum.

    Sums proportional set sizes (PSS), in which a page that several processes share counts once.
    """

    def __enter__(self) -> "PeakMemory":
        self.mib, self.ended = 0.0, threading.Event()
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # the process has ended
                    total += process.memory_full_info().pss
            self.mib = max(self.mib, total / 2**20)


def job_seconds(logs: Path) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every finished job by kind, from the logs; wall seconds leave out the start of the process."""
    seconds = defaultdict(list)
    for path in logs.rglob("*.log"):
        if (wall := logged_seconds(path)) is not None:
            cpu = float(CPU_SECONDS.findall(path.read_text(encoding="utf-8", errors="replace"))[-1])
            seconds[path.relative_to(logs).parts[0].removesuffix(".log")].append((wall, cpu))
    return seconds


def import_seconds(code: str, repeats: int = 3) -> float:
    """Median CPU seconds of a fresh process that runs the imports."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "workflow_scripts")}
    return statistics.median(run([sys.executable, "-c", code], env=environment).cpu for _ in range(repeats))


def run_demo(study: str, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Run a study twice, print what both calls took, and return the job times of the first."""
    copy_workflow(folder)
    command = snakemake("--configfile", f"config/{study}.yaml", "--cores", "2")
    with PeakMemory() as memory:
        first = run(command, cwd=folder)
    jobs = job_seconds(folder / "results" / study / "logs")
    second = run(command, cwd=folder)
    idle = "nothing to do" if "Nothing to be done" in second.text else "BUT JOBS RAN"
    rows = [
        (f"`snakemake`, study {study}, from nothing", f"{first.wall / 60:.1f} min"),
        ("peak memory of all processes (sum of PSS)", f"{memory.mib / 1024:.2f} GiB"),
        (f"second call ({idle})", f"{second.wall:.1f} s"),
    ]
    print(machine() + "\n")
    print_table(["", "measured"], rows)
    return jobs


def report_jobs(jobs: dict[str, list[tuple[float, float]]]) -> None:
    """Print how long the jobs of each kind took, most CPU time first."""
    rows = []
    for kind, pairs in sorted(jobs.items(), key=lambda item: -sum(cpu for _, cpu in item[1])):
        walls, cpus = zip(*pairs, strict=True)
        rows.append(
            (
                kind,
                len(pairs),
                *(f"{number:.{digits}f}" for times in (walls, cpus) for number, digits in ((statistics.median(times), 2), (sum(times), 0))),
            )
        )
    every = [pair for pairs in jobs.values() for pair in pairs]
    rows.append(("all", len(every), "", f"{sum(wall for wall, _ in every):.0f}", "", f"{sum(cpu for _, cpu in every):.0f}"))
    print()
    print_table(["kind of job", "jobs", "median wall s", "total wall s", "median CPU s", "total CPU s"], rows)


def report_imports() -> None:
    """Print the CPU time that the imports of each kind of job cost in a fresh process."""
    base = import_seconds(BASE)
    times = {"base: torch, and transformers up to a model class": base} | {kind: import_seconds(code) for kind, code in IMPORTS.items()}
    print()
    print_table(["imports", "CPU s", "times base"], ((name, f"{time:.2f}", f"{time / base:.2f}") for name, time in times.items()))


def main(args: argparse.Namespace) -> None:
    if args.finished:
        jobs = job_seconds(args.finished / "logs")
    else:
        with contextlib.nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
            jobs = run_demo(args.study, Path(folder))
    report_jobs(jobs)
    report_imports()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--folder", type=Path, help="run in this new folder and keep it")
    parser.add_argument("--finished", type=Path, metavar="results/STUDY", help="report the job times of a finished run, and run nothing")
    main(parser.parse_args())
