"""A real Slurm for the session, on loopback, with pretended nodes and GPUs; a study and faulty jobs that ran on it."""

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helpers.cluster import ROOT, SITE, ClusterFolder, Probes, on_cluster, stop, tiny_study, workflow_tests
from helpers.lab import Lab, install
from helpers.waiting import until


@pytest.fixture(scope="session")
def lab():
    """A running Slurm with two nodes."""
    if sys.platform != "linux":
        pytest.skip("Slurm runs on Linux only")
    if reason := install():
        pytest.skip(f"no Slurm: {reason}")
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("no Slurm: this machine's host name does not resolve; add it to /etc/hosts")
    root = Path(tempfile.mkdtemp(prefix="slurm-lab-"))  # a short path: it holds a socket
    lab = Lab(root)
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session")
def faults(lab, tmp_path_factory) -> Iterator[Probes]:
    """The probes of faults.smk, begun. They mostly wait, so that the study can run beside them.

    One has been cancelled already, and another has been told that its time ends after a minute: at the start that would be too early for
    a slow machine.
    """
    path = tmp_path_factory.mktemp("faults")
    for name in ("slurm", "workflow_scripts", "profiles"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("probe.py", "faults.smk"):
        shutil.copy(ROOT / "tests/slurm" / name, path / name)
    (path / "slurm/site.yaml").write_text(yaml.safe_dump(SITE))
    probes = Probes(path, {})
    probes.lab = lab
    probes.process = probes.start("--jobs", "5")
    try:
        for fault in ("cancelled", "time"):
            until((path / f"out/{fault}.tried").exists, probes.process, probes.situation)
        queue = dict(line.split() for line in lab.run("squeue", "--noheader", "--format=%k %i").splitlines())
        lab.run("scancel", queue["rule_probe_wildcards_cancelled"])
        lab.run("scontrol", "update", f"JobId={queue['rule_probe_wildcards_time']}", "TimeLimit=1")
        yield probes
    finally:
        stop(probes.process)


@pytest.fixture(scope="session")
def finished(lab, faults, tmp_path_factory) -> ClusterFolder:
    """The tiny study, run on Slurm up to a figure, a table and every kind of measurement. Tests must not change it."""
    path = tmp_path_factory.mktemp("cluster")
    workflow_tests.fresh(path, tiny_study())
    folder = on_cluster(ClusterFolder(path, tiny_study()), lab)
    folder.targets = (
        "figures/gains.pdf",
        "tables/scores.parquet",
        "perplexity/llama-strings/spelling.parquet",
        *(f"runs/llama-strings/{epoch}/dimension.parquet" for epoch in ("base/base/epoch-0", "spelling/full/epoch-2")),
        "runs/llama-strings/spelling/full/epoch-2/layers.parquet",
    )
    folder.targets = tuple(f"results/tiny/{name}" for name in folder.targets)
    folder.output = folder.run(*folder.targets)
    return folder
