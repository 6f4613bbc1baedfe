"""A Slurm of one's own on the loopback address: munge, accounting, controller and pretended nodes, all in one folder.

    lab = Lab(folder)
    lab.up(); lab.run("sinfo"); lab.down()

Nodes claim more cores, memory and GPUs than the machine has. No systemd, no control groups: memory limits are enforced by sampling.

Several labs can run side by side, as each takes ports of its own. Its daemons are nobody's children; so a keeper, which is this file run
as a program, waits until the process that started the lab has ended, however it ends, and then ends the lab and removes its folder.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

from helpers import debian
from helpers.waiting import EXPLAIN, HANG, until

HELPERS = str(Path(__file__).resolve().parents[1])
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "slurmdbd", "munged", "mariadbd")
FIRST_PORT, BLOCK, BLOCKS = 20_000, 16, 500  # below the ports that systems give to clients; a lab uses 3 + nodes of a block
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
SlurmdTimeout=300
SlurmctldTimeout=300
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=300
InactiveLimit=0
MinJobAge=3600
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


def install() -> str | None:
    """Install the Debian packages; returns why that is not possible, or nothing."""
    return debian.install(PACKAGES, PROGRAMS)


def take_ports(count: int, address: str):
    """The first of ``count`` free ports in a row, and an open file; the ports are taken by no other lab while it is open."""
    for index in range(BLOCKS):
        first = FIRST_PORT + index * BLOCK
        try:
            handle = open(Path(tempfile.gettempdir()) / f"sft-atlas-lab-{first}.lock", "w")  # noqa: SIM115 (stays open)
        except PermissionError:  # another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            return first, handle
        except OSError:
            handle.close()
    raise AssertionError(f"no {count} free ports between {FIRST_PORT} and {FIRST_PORT + BLOCKS * BLOCK}")


def members(root: Path) -> list[psutil.Process]:
    """The processes of a lab: its daemons, jobs, and the clients that use it."""
    found = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                mine = process.environ().get("SLURM_CONF", "").startswith(f"{root}/") or any(
                    f"{root}/" in word for word in process.cmdline()
                )
        except psutil.Error:
            continue
        if mine and process.pid != os.getpid():
            found.append(process)
    return found


def endings(files: Iterable[Path], characters: int) -> str:
    """The last characters of text files, each under its name."""
    return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-characters:]}" for path in files)


def keep(root: Path) -> None:
    """Wait for the end of standard input; then kill what is left of the lab and remove its folder."""
    sys.stdin.buffer.read()
    while left := members(root):  # again, because a process may have started another meanwhile
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
    shutil.rmtree(root, ignore_errors=True)


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
        keeper = [sys.executable, __file__, str(self.root)]
        self.keeper = subprocess.Popen(keeper, stdin=subprocess.PIPE, start_new_session=True, env=os.environ | {"PYTHONPATH": HELPERS})
        self.port, self._lock = take_ports(3 + self.nodes, socket.gethostbyname(self.host))
        self._configure()
        munge = self.root / "munge"
        self._run("munged", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={self.root}/pid/munged",
                  f"--log-file={self.root}/log/munged.log", f"--seed-file={munge}/seed")  # fmt: skip
        self._database()
        self._run("slurmdbd")
        until(lambda: self._answers("sacctmgr", "--noheader", "show", "cluster"), explain=self.situation)
        for entry in (["cluster", "lab"], ["account", "lab", "Cluster=lab"], ["user", "root", "Account=lab", "Cluster=lab"]):
            self._answers("sacctmgr", "--quiet", "--immediate", "add", *entry)
        self._run("slurmctld", "-f", self.environment["SLURM_CONF"])
        until(lambda: self._answers("scontrol", "ping"), explain=self.situation)
        for node in self.names:
            self.start_node(node)
        until(lambda: all(self.state(node) in ("idle", "mixed") for node in self.names), explain=self.situation)

    def down(self) -> None:
        """Cancel every job, end every process of this Slurm and remove its folder."""
        if self._process("slurmctld"):
            self._answers("scancel", "--quiet", "--user=root")
            until(lambda: not self.run("squeue", "--noheader"), explain=self.situation)
        for name in ("slurmctld", *(f"slurmd-{node}" for node in self.names), "slurmdbd", "mariadbd", "munged"):
            if process := self._process(name):
                process.terminate()
                psutil.wait_procs([process], timeout=60)
        self.keeper.stdin.close()  # ends the rest
        self.keeper.wait(HANG)
        self._lock.close()

    def client(self) -> dict[str, str]:
        """The environment of a program that uses this Slurm; one thread for each job, as the machine is small."""
        return os.environ | self.environment | {"OMP_NUM_THREADS": "1"}

    @property
    def names(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    def run(self, *call: str) -> str:
        """What a Slurm client prints; AssertionError where it fails."""
        done = subprocess.run(call, env=self.client(), capture_output=True, text=True, timeout=HANG)
        assert done.returncode == 0, f"{' '.join(call)}: {done.stderr}"
        return done.stdout.strip()

    def situation(self) -> str:
        """What Slurm says of its nodes and jobs, and the accounting of all jobs so far, and the ends of the daemons' logs."""
        said = []
        for call in (
            ["sinfo", "--Node", "--format=%N %P %T %E"],
            ["squeue", "--states=all", "--format=%i %k %T %M of %l %r %N"],
            [
                "sacct",
                "--allocations",
                "--duplicates",
                "--parsable2",
                "--format=JobID,State,ExitCode,Elapsed,Timelimit,ReqMem,NodeList,Comment",
            ],
        ):
            try:
                done = subprocess.run(call, env=self.client(), capture_output=True, text=True, timeout=EXPLAIN)
                said.append(f"--- {call[0]}\n{done.stdout}{done.stderr}")
            except subprocess.TimeoutExpired:
                said.append(f"--- {call[0]}\nno answer in {EXPLAIN} s")
        return "\n".join([*said, endings(sorted((self.root / "log").glob("*.log")), 600)])

    # ---------------------------------------------------------------- nodes

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)

    def kill_node(self, node: str) -> None:
        """What a power cut does to a node: its daemon and all it started are gone at once.

        The controller is told: it would notice after SlurmdTimeout, which must be longer than a busy machine takes to answer.
        """
        process = self._process(f"slurmd-{node}")
        process.send_signal(signal.SIGKILL)
        self.kill_steps(node)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power cut")

    def steps(self) -> list[psutil.Process]:
        """The processes that run the job steps of this Slurm."""
        found = []
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"].startswith("slurmstepd") and Path(process.cwd()).is_relative_to(self.root):
                    found.append(process)
        return found

    def kill_steps(self, node: str = "") -> None:
        """Kill the job steps of a node (or of all) and everything that they started."""
        doomed = []
        for process in self.steps():
            try:
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
            "port": self.port,
            "dbd_port": self.port + 1,
            "sql_port": self.port + 2,
            "first": self.port + 3,
            "last": self.port + 2 + self.nodes,
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
                    *(f"--pid-file={self.root}/pid/mariadbd", "--bind-address=127.0.0.1", f"--port={self.port + 2}", "--skip-name-resolve"),
                    *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=16M"),
                    *("--innodb-lock-wait-timeout=900", f"--init-file={self.root}/etc/init.sql"),
                ],
                env=self.client(),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
            )
        ask = ("mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.port + 2}", "-uslurm", "-pslurm", "-e", "select 1", "slurm_acct")
        until(lambda: self._answers(*ask), explain=self.situation)

    def _run(self, *call: str) -> None:
        """Run a program that ends or goes into the background by itself."""
        log = self.root / "log" / f"{call[0]}.out"
        with log.open("w") as handle:
            done = subprocess.run(call, env=self.client(), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, timeout=HANG)
        assert done.returncode == 0, f"{' '.join(call)}: {log.read_text()}"

    def _answers(self, *call: str) -> bool:
        return subprocess.run(call, env=self.client(), stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG).returncode == 0

    def _process(self, name: str) -> psutil.Process | None:
        """The running process behind a pid file."""
        file = self.root / "pid" / name
        try:
            process = psutil.Process(int(file.read_text()))
            return process if process.name() == name.split("-")[0] else None
        except (OSError, ValueError, psutil.Error):
            return None


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
