"""Which process on which machine a record was written by, and whether that process goes on. Standard library and psutil only."""

import os
import select
import signal
import threading
from collections.abc import Mapping

SNAKEMAKE = "SFT_ATLAS_SNAKEMAKE"  # variable that names the local Snakemake to its jobs


def this_process() -> dict[str, object]:
    """What :func:`is_running` recognises this process by; its number alone may be given to another one later."""
    import psutil

    return {"pid": os.getpid(), "process_began": psutil.Process().create_time(), "host": os.uname().nodename}


def is_running(process: Mapping) -> bool | None:
    """Whether a process goes on; None for one on another machine, of which nobody here can know."""
    import psutil

    if process["host"] != os.uname().nodename:
        return None
    try:
        return abs(psutil.Process(process["pid"]).create_time() - process["process_began"]) < 1
    except psutil.NoSuchProcess:
        return False


def name_to_jobs() -> None:
    """Have the jobs that this process starts on this machine end when it does: see :func:`end_with_snakemake`."""
    if hasattr(os, "pidfd_open"):
        os.environ[SNAKEMAKE] = f"{os.getpid()}:{_start(os.getpid())}"


def end_with_snakemake() -> None:
    """In a job: get SIGTERM when the local Snakemake behind it is gone, even by SIGKILL; the shell between them would go on.

    Nothing happens where no Snakemake is named, where it is not to be seen (a container with process ids of its own), and without Linux.
    Standard library only: a job's conda environment may have no psutil.
    """
    pid, _, start = os.environ.pop(SNAKEMAKE, "").partition(":")  # this process passes the signal to those that it starts
    if not pid:
        return
    try:
        descriptor = os.pidfd_open(int(pid))
        seen = _start(int(pid)) == start
    except OSError:  # gone meanwhile, or a kernel before 5.3
        return
    if seen:
        threading.Thread(target=_end_after, args=(descriptor,), daemon=True).start()


def _start(pid: int) -> str:
    """When a process started, in ticks since the machine did (proc(5), field 22); FileNotFoundError if it is gone."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[19]


def _end_after(descriptor: int) -> None:
    select.select([descriptor], [], [])
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
