"""What the benchmarks share: copies of the workflow, measured processes, taking turns, and tables for README.md."""

import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from sft_atlas.core.markdown import escape, row

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ("Snakefile", "rules", "envs", "config", "workflow_scripts", "profiles")


class Usage(NamedTuple):
    """What a process printed, its wall and CPU seconds, and its peak resident memory in MiB; its child processes count as well."""

    text: str
    wall: float
    cpu: float
    peak: float


def run(command: list[str], **options) -> Usage:
    """Run a command to its end and measure it; ends the benchmark with the command's last lines if it fails."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return Usage(text, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def snakemake(*arguments: str) -> list[str]:
    """The command that starts Snakemake in this environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def copy_workflow(folder: Path) -> None:
    """Copy what Snakemake needs of the repository into a folder, so that the checkout's results stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WORKFLOW:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)


def take_turns(calls: dict[str, Callable], repeats: int) -> dict[str, list]:
    """Call each function once per round, so that other load on the machine affects all of them alike; their results by name."""
    results = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            results[name].append(call())
    return results


def machine() -> str:
    """Date, processor, load and Python version, to state beside the figures."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    processor = model[1] if model else platform.machine()
    return f"{date.today()}, {processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"


def print_table(header: list[str], rows: Iterable[Iterable]) -> None:
    """Print a Markdown table, each row as soon as it is there."""
    for cells in itertools.chain([header, ["---"] * len(header)], rows):
        print(row(map(escape, cells)), flush=True)
