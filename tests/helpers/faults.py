"""Random faults on a small study: killed processes, cut files, flipped bits; and what the workflow makes of them.

A pass runs the study from nothing. While it runs, something is killed; while it stands still, files are damaged and keep their time
stamps. Each error must be one clear message; its remedy is followed to the letter. At the end the results must be those of an undisturbed run.
"""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.edits import smallest_study
from helpers.folders import ROOT, Folder
from helpers.waiting import HANG

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("group", "main", "job", "warm server")
FILES = {
    "weights": ("results/*/**/*.safetensors",),
    "states": ("results/*/state/**/trainer/**/*", "results/*/state/**/*.json", "results/*/state/**/*.safetensors"),
    "tables": ("results/*/**/*.parquet",),
    "records": ("results/*/**/*.json", "results/*/**/*.jsonl"),
    "caches": (".snakemake/sft-atlas/**/*", "results/*/snapshot.json.gz", "results/*/state/**/answers/*"),
    "inputs": ("mine.jsonl", "config/benchmarks/generate.yaml", "config/benchmarks/choice.yaml"),
}  # fmt: skip
ASKED = (
    "data/**/*.parquet",
    "benchmarks/*/*.jsonl",
    "suites/*.json",
    "models/*/model.json",
    "runs/**/train.json",
    "runs/**/*.parquet",
)  # made by rules, each under its name
REMEDY = re.compile(r"\bdelete ((?:it|the file|\S+)(?: and \S+)*?),? and run again")
TARGETS = ("tables", "contamination")
ROUNDS = 12  # calls until a study must be finished once nothing is disturbed any more


def fault_study(folder: Path) -> dict:
    """The smallest study with one base model, and a recipe that takes long enough to be killed while it trains."""
    study = smallest_study(folder)
    del study["models"]["qwen3"]
    study["recipes"]["full"] |= {"epochs": 12, "save_epochs": [1, 12]}
    study["keep_weights"] = "all"
    study["blocks"] = {
        "single": {"models": "*", "datasets": ["mine"], "recipes": ["full", "lora"]},
        "merged": {"models": "*", "datasets": ["both"], "recipes": ["lora"]},
    }
    return study


# ---------------------------------------------------------------- damage


def _replace(path: Path, content: bytes) -> None:
    stat = path.stat()
    with open(path, "r+b") as file:  # the same inode: links lead to the damaged file too
        file.write(content)
        file.truncate()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes, rng: random.Random) -> bytes:
    return b""


def invert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(max(1, len(content) - 4096))
    return content[:start] + bytes(byte ^ 0xFF for byte in content[start : start + 4096]) + content[start + 4096 :]


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    where = rng.randrange(len(content))
    return content[:where] + bytes([content[where] ^ 1 << rng.randrange(8)]) + content[where + 1 :]


DAMAGES = {"cut": cut, "emptied": empty, "4 kB inverted": invert, "one bit flipped": flip_bit}


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """Damage a file, which keeps its time stamps."""
    _replace(path, DAMAGES[kind](path.read_bytes(), rng))


# ---------------------------------------------------------------- a study under faults


def interrupted_imports(text: str) -> bool:
    """Whether the one traceback is of Ctrl-C while Snakemake imported itself, before it read the Snakefile: nothing of ours could catch that."""
    _, *traces = text.split("Traceback (most recent call last)")
    return (
        len(traces) == 1
        and "\nKeyboardInterrupt" in traces[0]
        and "from snakemake.cli import" in traces[0]
        and "Snakefile" not in traces[0]
    )


@dataclass
class Report:
    """What was tried, and what went wrong."""

    tries: Counter = field(default_factory=Counter)
    refused: int = 0  # calls that ended with a clear error, whose remedy was followed
    wrong: list[str] = field(default_factory=list)  # silently wrong results
    unclear: list[str] = field(default_factory=list)  # tracebacks, errors without a remedy, studies that never end

    def __str__(self) -> str:
        tried, failed = self.tries.total(), len(self.wrong) + len(self.unclear)
        lines = [
            f"{tried} tries: {', '.join(f'{count} {name}' for name, count in sorted(self.tries.items()))}",
            f"{tried - failed} survived ({self.refused} calls were refused with an error and right after its remedy), {len(self.wrong)} wrong"
            f" results, {len(self.unclear)} without a clear error",
        ]
        return "\n".join([*lines, *self.wrong, *self.unclear])


class Faults:
    """A study that is disturbed ``path``, and the results of an undisturbed run."""

    def __init__(self, pristine: Folder, undisturbed: Path, path: Path, seed: object, say: Callable[[str], None] = print):
        self.pristine, self.undisturbed, self.rng, self.say = pristine, undisturbed, random.Random(seed), say
        self.path, self.report = path, Report()

    def run(self, tries: int) -> Report:
        """Make at least ``tries`` faults, in as many passes as they need."""
        while self.report.tries.total() < tries:
            if self.path.exists():
                shutil.rmtree(self.path)
            self.folder = self.pristine.copy(self.path)
            self.done: list[str] = []
            self._disturbed_pass(tries)
            self.say(f"pass: {'; '.join(self.done)}\n{self.report}")
        return self.report

    def _disturbed_pass(self, tries: int) -> None:
        finished = False
        for _ in range(self.rng.randrange(5, 9)):
            finished = self._kill_once()
            for _ in range(self.rng.randrange(4, 11)):
                self._damage_once()
            if self.report.tries.total() >= tries or finished:
                break
        if self._finish():
            self._compare()

    def _note(self, kind: str, what: str) -> None:
        self.report.tries[kind] += 1
        self.done.append(what)

    def _kill_once(self) -> bool:
        """Start Snakemake and kill something after a while; returns whether the call succeeded all the same."""
        (victim,), how = self.rng.choices(VICTIMS, (2, 2, 1, 1)), self.rng.choice(SIGNALS)
        output = self.path / "printed.txt"
        with output.open("w") as handle:
            process = subprocess.Popen(
                self.folder.command(*TARGETS),
                cwd=self.path,
                env=self.folder.environment(),
                stdout=handle,
                stderr=handle,
                start_new_session=True,
            )
        jobs, wait = self.rng.randrange(9), self.rng.uniform(0, 4)
        while process.poll() is None and output.read_text().count("Finished jobid") < jobs:
            time.sleep(0.05)
        time.sleep(wait)
        if process.poll() is None:
            self._kill(process, victim, how)
            self._note(f"kill of {victim}", f"{how.name} to {victim} {wait:.1f} s after {jobs} jobs")
        self._wait(process)
        if victim in ("group", "main"):
            self._check_gone()
        else:
            self._look(output.read_text(), process.returncode)
        self._unlock()
        return process.returncode == 0

    def _kill(self, process: subprocess.Popen, victim: str, how: signal.Signals) -> None:
        if victim == "group":
            os.killpg(process.pid, how)
            return
        children, found = psutil.Process(process.pid).children(recursive=True), None
        for child in self.rng.sample(children, len(children)):
            try:
                words = child.cmdline()
            except psutil.Error:
                continue
            is_server = "sft_atlas.core.warm" in words
            is_job = any(word.endswith("run.py") for word in words) or (is_server and child.ppid() != process.pid)
            if (victim == "warm server" and is_server and child.ppid() == process.pid) or (victim == "job" and is_job):
                found = child
                break
        try:
            (psutil.Process(process.pid) if found is None else found).send_signal(how)
        except psutil.NoSuchProcess:
            return

    def _wait(self, process: subprocess.Popen) -> None:
        try:
            process.wait(HANG)
        except subprocess.TimeoutExpired:
            self.report.unclear.append(f"Snakemake hangs after {self.done[-1:]}")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _check_gone(self) -> None:
        """After a killed call nothing may go on behind the user's back."""
        deadline = time.monotonic() + HANG  # a warm server that is importing notices after its imports
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            self.report.unclear.append(f"after {self.done[-1]} these go on: {[process.cmdline() for process in left]}")
            for process in left:
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        left = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.path) and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
            except psutil.Error:
                continue
        return left

    def _unlock(self) -> None:
        release = [sys.executable, "workflow_scripts/run.py", "release_lock"]
        done = subprocess.run(release, cwd=self.path, env=self.folder.environment(), capture_output=True, text=True)
        if done.returncode:
            self.report.unclear.append(f"release_lock after {self.done[-1:]}: {done.stderr}")

    def _damage_once(self) -> None:
        """Damage a file that is there; a user's own file only when the study has read it, because nobody knows what it was before."""
        group, kind = self.rng.choice(list(FILES)), self.rng.choice(list(DAMAGES))
        if group == "inputs" and not self._inputs_are_known():
            return
        found = {path for pattern in FILES[group] for path in self.path.glob(pattern) if path.is_file() and path.stat().st_size}
        if not found:
            return
        path = self.rng.choice(sorted(found))
        damage(path, kind, self.rng)
        self._note(f"{kind}: {group}", f"{path.relative_to(self.path)} {kind}")

    def _inputs_are_known(self) -> bool:
        results = self.folder.result("")
        return (results / "data/mine/source.parquet").exists() and len(list((results / "suites").glob("*.json"))) == 2

    def _look(self, text: str, code: int) -> bool:
        """Follow the remedies of the errors in what a call printed; returns whether there was one."""
        if "Traceback (most recent call last)" in text and not interrupted_imports(text):
            self.report.unclear.append(f"traceback after {self.done}: {text[text.index('Traceback') :][:3000]}")
        followed = False
        for line in text.splitlines():
            for match in REMEDY.finditer(line):
                named = re.findall(r"\S+", match[1].replace(" and ", " "))
                if named[0] in ("it", "the"):
                    named = [word for word in re.findall(r"[^\s;:,]+/[^\s;:,]+", line) if (self.path / word).exists()][:1]
                for path in [self.path / name.rstrip(",.;:") for name in named]:
                    followed = True
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif self.path in path.parents:
                        path.unlink(missing_ok=True)
        if re.search(r"\brestore\b|\bis not YAML\b|mine\.jsonl|config/benchmarks/", text) and code:
            followed = True
            for path in [self.pristine.path / "mine.jsonl", *(self.pristine.path / "config/benchmarks").glob("*.yaml")]:
                shutil.copy2(path, self.path / path.relative_to(self.pristine.path))
        if code and re.search(r"run again|trained again", text):
            followed = True
        if code and followed:
            self.report.refused += 1
        return followed

    def _finish(self) -> bool:
        """Call Snakemake until it is done, and have the results verified; returns whether it came to an end."""
        for _ in range(ROUNDS):
            done = self._call(self.folder.command(*TARGETS))
            if done.returncode == 0:
                done = self._call([sys.executable, "workflow_scripts/run.py", "verify_results", "--results", str(self.folder.result(""))])
                if done.returncode == 0 and not (deleted := self._deleted()):
                    return True
                if done.returncode == 0:
                    done = self._call([*self.folder.command(), *deleted])
            if done.returncode and not self._look(done.stdout, done.returncode) and not self.killed_jobs(done.stdout):
                self.report.unclear.append(f"an error without a remedy after {self.done}: {done.stdout[-3000:]}")
                return False
        self.report.unclear.append(f"not finished after {ROUNDS} calls and {self.done}: {done.stdout[-3000:]}")
        return False

    def _deleted(self) -> list[str]:
        """Files that a remedy deleted and that nothing needed since, because what is made of them was whole: made again when asked for."""
        names = [path.relative_to(self.undisturbed) for pattern in ASKED for path in sorted(self.undisturbed.glob(pattern))]
        return [str(self.folder.result(str(name)).relative_to(self.path)) for name in names if not self.folder.result(str(name)).exists()]

    @staticmethod
    def killed_jobs(text: str) -> bool:
        return "exit status -" in text or "died without an exit code" in text

    def _call(self, command: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.path, env=self.folder.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=HANG
        )

    def _compare(self) -> None:
        for difference in differences(self.undisturbed, self.folder.result("")):
            self.report.wrong.append(f"{difference}, after {self.done}")


def differences(one: Path, other: Path) -> list[str]:
    """How two result trees differ, but for times: weights and their recorded hashes, tables, items, suites, findings."""
    spec = importlib.util.spec_from_file_location("compare_results", ROOT / "benchmarks/compare_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.compare(one, other, {})[1]
    for pattern in ("benchmarks/**/*.jsonl", "suites/*.json", "models/*/model.json"):
        left, right = ({path.relative_to(root): path for path in root.glob(pattern)} for root in (one, other))
        found += [f"{path}: is in one of the trees only" for path in sorted(left.keys() ^ right.keys())]
        found += [f"{path}: differs" for path in sorted(left.keys() & right.keys()) if _content(left[path]) != _content(right[path])]
    return found


def _content(path: Path) -> object:
    if path.suffix != ".json":
        return path.read_bytes()
    content = json.loads(path.read_bytes())
    return {key: value for key, value in content.items() if key not in ("checksum", "provenance")}
