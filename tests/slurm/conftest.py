"""A real Slurm for the session, on loopback, with pretended nodes and GPUs; a study and faulty jobs that ran on it."""

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helpers.cluster import QUICK, ROOT, SITE, ClusterFolder, Faults, on_cluster, stop, tiny_study, until, workflow_tests
from helpers.lab import Lab, install


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
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def faults(lab, tmp_path_factory) -> Iterator[Faults]:
    """The probes of faults.smk, begun; one has been cancelled already. They mostly wait, so that the study can run beside them."""
    path = tmp_path_factory.mktemp("faults")
    for name in ("slurm", "workflow_scripts", "profiles"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("probe.py", "faults.smk"):
        shutil.copy(ROOT / "tests/slurm" / name, path / name)
    (path / "slurm/site.yaml").write_text(yaml.safe_dump(SITE))
    call = [sys.executable, "-m", "snakemake", "--snakefile", "faults.smk", "--profile", "slurm", *QUICK, "--jobs", "5"]
    with (path / "printed.txt").open("w") as handle:
        process = subprocess.Popen(call, cwd=path, env=lab.client(), stdout=handle, stderr=handle, start_new_session=True)
    try:
        until((path / "out/cancelled.tried").exists, process)
        queue = dict(line.split() for line in lab.run("squeue", "--noheader", "--format=%k %i").splitlines())
        lab.run("scancel", queue["rule_probe_wildcards_cancelled"])
        yield Faults(path, process)
    finally:
        stop(process)


@pytest.fixture(scope="session")
def finished(lab, faults, tmp_path_factory) -> ClusterFolder:
    """The tiny study, run on Slurm up to a figure and tables of every kind of result. Tests must not change it."""
    path = tmp_path_factory.mktemp("cluster")
    workflow_tests.fresh(path, tiny_study())
    folder = on_cluster(ClusterFolder(path, tiny_study()), lab)
    folder.targets = (
        "figures/gains.pdf",
        "tables/scores.parquet",
        "tables/layers.parquet",
        "tables/dimension.parquet",
        "tables/perplexity.parquet",
    )
    folder.targets = tuple(f"results/tiny/{name}" for name in folder.targets)
    folder.output = folder.run(*folder.targets)
    return folder
