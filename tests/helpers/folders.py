"""Run the real workflow on a cut-down demo study, in a folder of its own."""

import copy
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

from helpers.waiting import HANG

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("all", "data", "train", "scores", "tables", "figures", "cards", "correctness")
PARTS = ("Snakefile", "rules", "envs", "config", "workflow_scripts", "profiles", "tests")


def small_demo() -> dict:
    """The demo study with models of two tiny layers, few rows and few items: the same rules in seconds."""
    study = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    study["study"] = "small"
    study["models"] = {name: study["models"][name] for name in ("llama-strings", "qwen3-numbers")}
    for model in study["models"].values():
        model["pretrain"] |= {"steps": 12, "hidden_size": 32, "layers": 2, "vocabulary": 300, "batch_size": 4}
    study["datasets"] = {name: study["datasets"][name] for name in ("arithmetic", "spelling", "all")}
    for name in ("arithmetic", "spelling"):
        study["datasets"][name]["size"] = 60
    chosen = ("sums", "spell-backward", "syllogisms")
    study["benchmarks"] = {name: study["benchmarks"][name] | {"size": 12} for name in chosen}
    study["suites"] = {"tasks": {"benchmarks": list(chosen), "batch_size": 12, "max_length": 256}}
    for recipe in study["recipes"].values():
        recipe |= {"rows": 48 if recipe["rows"] > 160 else 24, "epochs": 2, "batch_size": 8}
    del study["blocks"]["seeds"]
    study["blocks"]["single"]["recipes"] = ["full", "lora"]
    del study["blocks"]["lora"]
    study["blocks"]["leave-one-out"]["models"] = ["qwen3-numbers"]
    study["blocks"]["trajectory"]["datasets"] = ["spelling"]
    study["measure"] = {"representation": {"items_per_benchmark": 8, "max_length": 256}}
    study["analyse"] = {}
    return study


class Folder:
    """A copy of the repository's workflow with a study file `study.yaml`."""

    def __init__(self, path: Path, study: dict):
        self.path = path
        self.starter: tuple[str, ...] = ()  # what starts Snakemake, such as helpers/lesser_kernel.py
        self.write(study)

    def write(self, study: dict) -> None:
        self.study = study
        (self.path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        return [*self.starter, sys.executable, "-m", "snakemake", "--configfile", "study.yaml", "--cores", "2", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if not key.startswith("SFT_ATLAS")} | more

    def run(self, *arguments: str, ok: bool = True, **environment: str) -> str:
        """Run Snakemake; returns what it printed."""
        try:
            done = subprocess.run(
                self.command(*arguments),
                cwd=self.path,
                env=self.environment(**environment),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=HANG,
            )
        except subprocess.TimeoutExpired as error:
            printed = (error.stdout or b"").decode(errors="replace")
            raise AssertionError(f"not done after {HANG} s\n{printed[-4000:]}\n{self.situation()}") from None
        assert (done.returncode == 0) == ok, f"{done.stdout[-4000:]}\n{self.situation()}"
        return done.stdout

    def situation(self) -> str:
        """What else explains a failure."""
        return ""

    def planned(self, *arguments: str) -> Counter:
        """Jobs of a dry run by rule."""
        text = self.run("-n", "--quiet=rules", *arguments)
        if "Nothing to be done" in text:
            return Counter()
        table = text.split("Job stats:")[1].split("total")[0]
        return Counter({name: int(count) for name, count in re.findall(r"^([\w.-]+) +(\d+)$", table, re.M) if name not in TARGETS})

    def jobs(self, *arguments: str) -> dict[str, tuple[list[str], list[str], str]]:
        """Rule -> inputs, outputs and command of that of its jobs with the most inputs, if possible one whose inputs are all there."""
        text = self.run("-n", "-p", "--forceall", *arguments)
        found: dict[str, tuple[list[str], list[str], str]] = {}

        def rank(inputs: list[str]) -> tuple[bool, int]:
            return bool(inputs) and all((self.path / name).exists() for name in inputs), len(inputs)

        for block in re.split(r"^(?:local)?rule ", text, flags=re.MULTILINE)[1:]:
            command = re.search(
                r"^(?:Shell command: )?((?:exec |OPENBLAS\S+ OMP\S+ )?python workflow_scripts/run\.py (\w+).*)$", block, re.MULTILINE
            )
            lists = [re.search(rf"^    {name}: (.*)$", block, re.MULTILINE) for name in ("input", "output")]
            if command and "<<'" not in command[1]:
                inputs, outputs = (line[1].split(", ") if line else [] for line in lists)
                if rank(inputs) >= rank(found.get(command[2], ([],))[0]):
                    found[command[2]] = (inputs, outputs, command[1])
        return found

    def result(self, path: str) -> Path:
        return self.path / "results" / self.study["study"] / path

    def copy(self, path: Path) -> "Folder":
        """The same folder elsewhere, results and time stamps included (Snakemake's records too)."""
        shutil.copytree(self.path, path, symlinks=True, dirs_exist_ok=True)
        return self.at(path)

    def at(self, path: Path) -> "Folder":
        """A copy of this folder that exists already."""
        return Folder(path, copy.deepcopy(self.study))


def fresh(path: Path, study: dict) -> Folder:
    path.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, path / part)
    return Folder(path, study)
