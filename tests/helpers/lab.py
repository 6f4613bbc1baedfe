"""A Slurm of one's own on the loopback address: munge, accounting, controller and pretended nodes, all in one folder.

    lab = Lab(folder)
    lab.up(); lab.run("sinfo"); lab.down()

Nodes claim more cores, memory and GPUs than the machine has. No systemd, no control groups: memory limits are enforced by sampling.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "slurmdbd", "munged", "mariadbd")
PORT = 16817  # first of a block of 4 + nodes
GPUS = 8

SLURM_CONF = """
ClusterName=lab
SlurmctldHost={host}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={port}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/pid/slurmctld
SlurmdPidFile={root}/pid/slurmd-%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0,default_queue_depth=10000,max_rpc_cnt=0
KillWait=2
OverTimeLimit=0
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
MinJobAge=300
DefMemPerCPU=100
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}
AccountingStoragePass={root}/munge/socket
AccountingStoragePort={dbd_port}
AccountingStorageTRES=gres/gpu,gres/gpu:h100
AccountingStoreFlags=job_comment
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr={address} Port=[{first}-{last}] CPUs=64 RealMemory=512000 Gres=gpu:h100:{gpus} State=UNKNOWN
PartitionName=cpu Nodes=n[1-{nodes}] Default=YES MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=gpu Nodes=n[1-{nodes}] MaxTime=3-00:00:00 DefaultTime=10 State=UP
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost={host}
DbdAddr={address}
CommunicationParameters=NoInAddrAny
DbdPort={dbd_port}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/pid/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""

SQL = """CREATE DATABASE IF NOT EXISTS slurm_acct;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1';
"""


def missing() -> list[str]:
    """Programs of Slurm that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]


def install() -> str | None:
    """Install the Debian packages; returns why that is not possible, or nothing."""
    if not missing():
        return None
    if os.geteuid() or not shutil.which("apt-get"):
        return f"{', '.join(missing())} not installed, and only root with apt-get could change that ({' '.join(PACKAGES)})"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for call in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(call, env=environment, capture_output=True, text=True)
        if done.returncode:
            return f"{' '.join(call[:2])} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    return None


class Lab:
    """One test Slurm in a folder; ``environment`` is what its clients need."""

    def __init__(self, root: Path, nodes: int = 2):
        self.root, self.nodes = Path(root), nodes
        self.host = socket.gethostname().split(".")[0]
        self.environment = {
            # The plugin's job step drops SLURM_CONF before it calls srun: this srun puts it back.
            "SLURM_CONF": str(self.root / "etc/slurm.conf"),
            "PATH": f"{self.root}/bin:{os.environ['PATH']}:/usr/sbin",
        }

    def up(self) -> None:
        """Start everything and wait until the nodes take jobs."""
        self._configure()
        munge = self.root / "munge"
        self._run("munged", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={self.root}/pid/munged",
                  f"--log-file={self.root}/log/munged.log", f"--seed-file={munge}/seed")  # fmt: skip
        self._database()
        self._run("slurmdbd")
        self._until(lambda: self._answers("sacctmgr", "--noheader", "show", "cluster"), "slurmdbd")
        for entry in (["cluster", "lab"], ["account", "lab", "Cluster=lab"], ["user", "root", "Account=lab", "Cluster=lab"]):
            self._answers("sacctmgr", "--quiet", "--immediate", "add", *entry)
        self._run("slurmctld", "-f", self.environment["SLURM_CONF"])
        self._until(lambda: self._answers("scontrol", "ping"), "slurmctld")
        for node in self.names:
            self.start_node(node)
        self._until(lambda: all(self.state(node) in ("idle", "mixed") for node in self.names), "slurmd")

    def down(self) -> None:
        """Cancel every job and end every process that this Slurm started."""
        if self._process("slurmctld"):
            self._answers("scancel", "--quiet", "--user=root")
            self._until(lambda: not self.run("squeue", "--noheader"), "the end of jobs")
        for name in ("slurmctld", *(f"slurmd-{node}" for node in self.names), "slurmdbd", "mariadbd", "munged"):
            if process := self._process(name):
                process.terminate()
                psutil.wait_procs([process], timeout=20, callback=None)
                if process.is_running():
                    process.kill()
        self.kill_steps()

    def client(self) -> dict[str, str]:
        """The environment of a program that uses this Slurm; one thread for each job, as the machine is small."""
        return os.environ | self.environment | {"OMP_NUM_THREADS": "1"}

    @property
    def names(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    def run(self, *call: str) -> str:
        """What a Slurm client prints; AssertionError where it fails."""
        done = subprocess.run(call, env=self.client(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(call)}: {done.stderr}"
        return done.stdout.strip()

    # ---------------------------------------------------------------- nodes

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)

    def kill_node(self, node: str) -> None:
        """What a power cut does to a node: its daemon and all it started are gone at once."""
        process = self._process(f"slurmd-{node}")
        process.send_signal(signal.SIGKILL)
        self.kill_steps(node)

    def kill_steps(self, node: str = "") -> None:
        """Kill the job steps of a node (or of all) and everything that they started."""
        doomed = []
        for process in psutil.process_iter(["name"]):
            try:
                if process.info["name"].startswith("slurmstepd") and Path(process.cwd()).is_relative_to(self.root):
                    children = process.children(recursive=True)
                    nodes = {child.environ().get("SLURMD_NODENAME") for child in process.children()}
                    doomed += [process, *children] if not node or node in nodes else []
            except psutil.Error:
                continue
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def state(self, node: str) -> str:
        """The state of a node, as sinfo names it."""
        return self.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--partition=cpu", "--format=%T").split("\n")[0]

    # ---------------------------------------------------------------- starting

    def _configure(self) -> None:
        for folder in ("etc", "bin", "pid", "log", "state", "spool", "munge", "dev"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for folder in (self.root, self.root / "munge"):
            folder.chmod(0o755)
        facts = {
            "root": self.root,
            "host": self.host,
            "address": socket.gethostbyname(self.host),
            "port": PORT,
            "dbd_port": PORT + 1,
            "sql_port": PORT + 2,
            "first": PORT + 3,
            "last": PORT + 2 + self.nodes,
            "nodes": self.nodes,
            "gpus": GPUS,
        }
        etc = self.root / "etc"
        (etc / "slurm.conf").write_text(SLURM_CONF.format(**facts))
        (etc / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**facts))
        (etc / "slurmdbd.conf").chmod(0o600)
        (etc / "init.sql").write_text(SQL)
        for i in range(GPUS):
            device = self.root / f"dev/gpu{i}"
            try:
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # a null device poses as a GPU
            except PermissionError:
                device.touch()  # schedulable, but without CUDA_VISIBLE_DEVICES
        (etc / "gres.conf").write_text(f"Name=gpu Type=h100 File={self.root}/dev/gpu[0-{GPUS - 1}]\n")
        srun = self.root / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={etc}/slurm.conf exec /usr/bin/srun "$@"\n')
        srun.chmod(0o755)
        key = self.root / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    def _database(self) -> None:
        data, log = self.root / "db", self.root / "log/mariadbd.log"
        self._run("mysql_install_db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
                  "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M")  # fmt: skip
        with log.open("w") as handle:
            subprocess.Popen(
                [
                    *("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={self.root}/db.sock"),
                    *(f"--pid-file={self.root}/pid/mariadbd", "--bind-address=127.0.0.1", f"--port={PORT + 2}", "--skip-name-resolve"),
                    *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=16M"),
                    *("--innodb-lock-wait-timeout=900", f"--init-file={self.root}/etc/init.sql"),
                ],
                env=self.client(),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
            )
        ask = ("mariadb", "--no-defaults", "-h127.0.0.1", f"-P{PORT + 2}", "-uslurm", "-pslurm", "-e", "select 1", "slurm_acct")
        self._until(lambda: self._answers(*ask), "mariadbd")

    def _run(self, *call: str) -> None:
        """Run a program that ends or goes into the background by itself."""
        log = self.root / "log" / f"{call[0]}.out"
        with log.open("w") as handle:
            done = subprocess.run(call, env=self.client(), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, timeout=60)
        assert done.returncode == 0, f"{' '.join(call)}: {log.read_text()}"

    def _answers(self, *call: str) -> bool:
        return subprocess.run(call, env=self.client(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0

    def _process(self, name: str) -> psutil.Process | None:
        """The running process behind a pid file."""
        file = self.root / "pid" / name
        try:
            process = psutil.Process(int(file.read_text()))
            return process if process.name() == name.split("-")[0] else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(f"{path.name}: {path.read_text()[-600:]}" for path in sorted((self.root / "log").glob("*.log")))
            assert time.monotonic() < deadline, f"{what} does not come up\n{logs}"
            time.sleep(0.1)
