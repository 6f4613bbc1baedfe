"""Measure the dry run of the paper's grid against a bare Snakefile with as many jobs and files and no logic.

    make env && .venv/bin/python benchmarks/dry_run.py

Prints Markdown for benchmarks/README.md: wall and CPU seconds (best of five; the two workflows take turns) and peak memory of
`snakemake -n` from nothing, after everything exists, and with one recipe changed. Existence is made by empty files and `snakemake
--touch`, in a temporary folder. Fails where the bare file no longer has the jobs and files of the real one, and where the real one takes
more than its budget: 1.5 times the bare file's wall time, 450 MiB.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "rules", "envs", "config", "workflow_scripts", "profiles")
GRID = ["--configfile", "config/paper.yaml"]
# One recipe changed: in which file, what stands there, and what instead.
EDITS = {
    "bare": ("Snakefile", 'EDITED = ""', 'EDITED = "constant-20k"'),
    "sft-atlas": ("config/paper.yaml", "rows: 20000}", "rows: 20000, learning_rate: 9.0e-6}"),
}
BUDGET = 1.5, 450  # times the bare file's wall seconds; MiB
# Snakemake's own command, which sleeps for a tenth of a second before each job that it touches.
TOUCH = "from snakemake.executors.touch import Executor; Executor.SLEEPING_TIME = 0; from snakemake.cli import main; main()"


def snakemake(folder: Path, *arguments: str, call: tuple[str, ...] = ("-m", "snakemake")) -> tuple[str, float, float, float]:
    """What a call printed, its wall and CPU seconds, and its peak resident memory in MiB."""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *call, *arguments], cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        printed.seek(0)
        text = printed.read()
    if status:
        sys.exit(f"snakemake {' '.join(arguments)} failed:\n{text[-2000:]}")
    return text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def jobs_of(text: str) -> int:
    """Jobs of a dry run."""
    jobs = re.search(r"^total +(\d+)$", text, re.M)
    return int(jobs[1]) if jobs else 0


def files_of(text: str) -> dict[str, int]:
    """How many inputs, outputs and logs the jobs of a dry run name."""
    named = {key: re.findall(rf"^    {key}: (.*)$", text, re.M) for key in ("input", "output", "log")}
    return {key: sum(len(line.split(", ")) for line in lines) for key, lines in named.items()}


def dry_runs(calls: dict[str, tuple[Path, list[str]]], repeats: int) -> dict[str, tuple[int, float, float, float]]:
    """Of each workflow: jobs of a dry run, least wall and CPU seconds, peak memory in MiB."""
    found = {name: [] for name in calls}
    for _ in range(repeats):
        for name, (folder, arguments) in calls.items():
            found[name].append(snakemake(folder, "-n", *arguments))
    return {
        name: (jobs_of(runs[0][0]), *(min(run[i] for run in runs) for i in (1, 2)), max(run[3] for run in runs))
        for name, runs in found.items()
    }


def make_everything(folder: Path, arguments: list[str]) -> None:
    """Empty files for all outputs of the dry run, and Snakemake's records of them; it deletes what is temporary."""
    text = snakemake(folder, "-n", *arguments)[0]
    for line in re.findall(r"^    output: (.*)$", text, re.M):
        for name in line.split(", "):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if path.name == "weights" else path.touch()
    snakemake(folder, "--touch", "--forceall", "--cores", "500", "--quiet", "all", *arguments, call=("-c", TOUCH))


def check_alike(calls: dict[str, tuple[Path, list[str]]]) -> None:
    """End the call where the bare file has other jobs than the real workflow, or a thousandth more or fewer files."""
    texts = [snakemake(folder, "-n", *arguments)[0] for folder, arguments in calls.values()]
    jobs, files = [jobs_of(text) for text in texts], [files_of(text) for text in texts]
    if jobs[0] != jobs[1] or any(abs(files[0][key] - files[1][key]) > files[1][key] / 1000 for key in files[0]):
        sys.exit(
            f"benchmarks/bare.smk has {jobs[0]} jobs with {files[0]}, config/paper.yaml {jobs[1]} with {files[1]}: bring it up to date"
        )
    print(f"{jobs[1]:,} jobs with " + ", ".join(f"{number:,} {key}s" for key, number in files[1].items()) + "\n")


def main(repeats: int) -> None:
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch:
        real, bare = Path(scratch) / "real", Path(scratch) / "bare"
        for folder in (bare, real):
            folder.mkdir()
            for part in PARTS:
                copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
                copy(ROOT / part, folder / part)
        shutil.copy(ROOT / "benchmarks/bare.smk", bare / "Snakefile")
        calls = {"bare": (bare, []), "sft-atlas": (real, GRID)}
        edited = {calls[name][0] / file: replaced(calls[name][0] / file, old, new) for name, (file, old, new) in EDITS.items()}
        check_alike(calls)
        print("| state | workflow | jobs | wall s | x bare | CPU s | x bare | peak MiB |\n|---|---|---|---|---|---|---|---|")
        over = report("nothing done", dry_runs(calls, repeats))
        for folder, arguments in calls.values():
            make_everything(folder, arguments)
        over |= report("everything exists", dry_runs(calls, repeats))
        for path, text in edited.items():
            path.write_text(text, encoding="utf-8")
        over |= report("one recipe changed", dry_runs(calls, repeats))
    if over:
        sys.exit(f"over the budget of {BUDGET[0]} times the bare file's wall time or of {BUDGET[1]} MiB")


def report(state: str, measured: dict[str, tuple[int, float, float, float]]) -> bool:
    """Print the rows of a state; whether one is over the budget."""
    for name, (jobs, wall, cpu, memory) in measured.items():
        times = f"{wall:.1f} | {wall / measured['bare'][1]:.2f} | {cpu:.1f} | {cpu / measured['bare'][2]:.2f}"
        print(f"| {state} | {name} | {jobs:,} | {times} | {memory:.0f} |", flush=True)
    return any(wall > BUDGET[0] * measured["bare"][1] or memory > BUDGET[1] for _, wall, _, memory in measured.values())


def replaced(path: Path, old: str, new: str) -> str:
    """The text of a file with the first occurrence replaced."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        sys.exit(f"{path.name} has no {old!r} to change")
    return text.replace(old, new, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    main(parser.parse_args().repeats)
