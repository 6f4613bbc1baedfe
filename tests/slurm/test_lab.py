"""The Slurm of the tests: several side by side, and nothing left behind, however a test run ends."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from helpers.lab import HELPERS, members, take_ports
from helpers.waiting import until
from sft_atlas.machine import facilities
from sft_atlas.machine.needs import Needs
from sft_atlas.study.site import Site

OTHER = """
import sys, time
from pathlib import Path
from helpers.lab import Lab
lab = Lab(Path(sys.argv[1]), nodes=1)
lab.up()
lab.run("sbatch", "--wrap=sleep 3600", "--output=/dev/null")
print(lab.port, flush=True)
time.sleep(3600)
"""


def test_a_second_lab_runs_beside_the_first_and_goes_with_the_process_that_started_it(lab):
    root = Path(tempfile.mkdtemp(prefix="slurm-lab-"))
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(root)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": HELPERS}
    )
    try:
        port = int(process.stdout.readline())
        assert port != lab.port
        assert lab.run("sinfo", "--noheader", "--partition=cpu", "--format=%D") == "2", "the first lab has its two nodes still"
        names = {each.name() for each in members(root)}
        assert {"slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged"} <= names
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not root.exists())
    assert members(root) == []
    again, handle = take_ports(4, "127.0.0.1")
    handle.close()
    assert again == port, "the next lab can have the ports"
    assert not [each for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port in range(port, port + 4)]
    assert lab.run("sinfo", "--noheader", "--partition=cpu", "--format=%D") == "2"


def test_the_doctor_sees_the_partitions_and_gpus_of_a_cluster(lab, monkeypatch):
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    needs = Needs(gpu="recipes.full.gpus", slurm="--profile slurm")
    found = {each.thing: each for each in facilities.slurm(needs, Site(partitions={"cpu": "cpu", "gpu": "gpus"}))}
    assert found["Slurm"].ok and found["Slurm plugin"].ok and "gpu (2 nodes, 3-00:00:00, gpu:h100:8)" in found["Slurm"].here
    assert found["partitions of slurm/site.yaml"].here == "gpus" and not found["partitions of slurm/site.yaml"].ok
    assert all(each.ok for each in facilities.slurm(needs, Site(partitions={"cpu": "cpu", "gpu": "gpu"})))
