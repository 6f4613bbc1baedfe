"""Folders with the workflow, a study and a Slurm, and what tests do with them."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from helpers import folders as workflow_tests
from helpers.lab import Lab, endings
from helpers.waiting import HANG

ROOT = Path(__file__).resolve().parents[2]


Folder = workflow_tests.Folder

SITE = {
    "account": "lab",
    "partitions": {"cpu": "cpu", "gpu": "gpu"},
    "device": "h100",
    "gpu_flavour": "h100",
    "cpus_per_gpu": 2,
}
# A first look at the jobs after 2 s rather than 40; two jobs at a time, which is what the machine has cores for.
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5", "--jobs", "2")


def tiny_study() -> dict:
    """One base model of two tiny layers, one training set, one recipe: as few jobs as a study can have."""
    study = workflow_tests.small_demo()
    study["study"] = "tiny"
    study["models"] = {"llama-strings": study["models"]["llama-strings"]}
    study["datasets"] = {"spelling": study["datasets"]["spelling"]}
    study["recipes"] = {"full": study["recipes"]["full"]}
    study["blocks"] = {"single": {"models": "*", "datasets": "*", "recipes": ["full"]}}
    return study


class ClusterFolder(Folder):
    """A copy of the repository's workflow with a study, a site file and a Slurm."""

    lab: Lab

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments, "--profile", "slurm", "--configfile", "study.yaml", *QUICK]

    def environment(self, **more: str) -> dict[str, str]:
        return {key: value for key, value in self.lab.client().items() if not key.startswith("SFT_ATLAS")} | more

    def site(self, **changes) -> None:
        (self.path / "slurm/site.yaml").write_text(yaml.safe_dump(SITE | changes))

    def situation(self) -> str:
        """What Snakemake printed, what Slurm says of all jobs, and the ends of the logs that were written last."""
        printed = self.path / "printed.txt"
        logs = [path for folder in ("logs", "results") for path in (self.path / folder).rglob("*.log") if path.is_file()]
        newest = sorted(logs, key=lambda path: path.stat().st_mtime)[-6:]
        return "\n".join([endings([printed], 4000) if printed.exists() else "", self.lab.situation(), endings(newest, 1500)])

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own; what it prints goes to `printed`."""
        with (self.path / "printed.txt").open("w") as handle:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.path, env=self.environment(), stdout=handle, stderr=handle, start_new_session=True
            )

    def finish(self, process: subprocess.Popen) -> None:
        """Wait until a Snakemake of :meth:`start` has done everything."""
        try:
            status = process.wait(HANG)
        except subprocess.TimeoutExpired:
            status = f"none after {HANG} s"
        assert status == 0, f"Snakemake's status: {status}\n{self.situation()}"

    def unlock(self) -> None:
        """Remove the lock that a killed Snakemake left."""
        call = [sys.executable, "-m", "snakemake", "--unlock", "--configfile", "study.yaml"]
        subprocess.run(call, cwd=self.path, env=self.environment(), check=True, capture_output=True)

    @property
    def printed(self) -> str:
        return (self.path / "printed.txt").read_text()

    def submitted(self, text: str) -> list[str]:
        """Slurm ids of the jobs that Snakemake says it submitted."""
        return re.findall(r"has been submitted with SLURM jobid (\d+)", text)

    def waiting_and_running(self) -> list[str]:
        """Slurm ids of this folder's jobs."""
        lines = self.lab.run("squeue", "--noheader", "--format=%i %Z").splitlines()
        return [line.split()[0] for line in lines if line.split(maxsplit=1)[1] == str(self.path)]


def on_cluster(folder: ClusterFolder, lab: Lab) -> ClusterFolder:
    folder.lab = lab
    shutil.copytree(ROOT / "slurm", folder.path / "slurm", dirs_exist_ok=True)
    folder.site()
    return folder


class Probes(ClusterFolder):
    """A folder with the jobs of faults.smk, and the Snakemake that runs them."""

    process: subprocess.Popen

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--snakefile", "faults.smk", "--profile", "slurm", *QUICK, *arguments]


def stop(process: subprocess.Popen) -> None:
    """End what a test left running."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(HANG)
