"""Install Debian's packages that tests need, where that is possible."""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Sequence

LOCKED = ("Could not get lock", "Unable to lock", "Unable to acquire the dpkg", "is another process using it")
PATIENCE = 600  # seconds that another program may keep the package manager busy


def missing(names: Sequence[str]) -> list[str]:
    """Programs, and shared libraries (``lib*.so*``), that are not installed."""
    return [
        name for name in names if not (_is_library(name) if ".so" in name else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"))
    ]


def _is_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def install(packages: Sequence[str], programs: Sequence[str], patience: float = PATIENCE, pause: float = 5) -> str | None:
    """Install ``packages`` unless their ``programs`` and libraries are there; returns why that is not possible, or nothing.

    Waits while the package manager is busy, up to ``patience`` seconds, and tries again after a failed download.
    """
    if not (absent := missing(programs)):
        return None
    if os.geteuid() or not shutil.which("apt-get"):
        return f"{', '.join(absent)} not installed, and only root with apt-get could change that ({' '.join(packages)})"
    end = time.monotonic() + patience
    # What update cannot fetch may be in its lists already, so that only the failure of install counts.
    _apt(["update"], end, pause)
    return _apt(["install", "--yes", "--no-install-recommends", *packages], end, pause)


def _apt(words: list[str], end: float, pause: float, tries: int = 3) -> str | None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "LC_ALL": "C"}
    while True:
        wait = max(1, round(end - time.monotonic()))
        call = ["apt-get", "-o", f"DPkg::Lock::Timeout={wait}", "-o", "Acquire::Retries=3", *words]  # the lists' lock has no time-out
        done = subprocess.run(call, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return None
        locked = any(words in done.stderr for words in LOCKED)
        tries -= not locked
        if tries == 0 or time.monotonic() > end:
            last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
            return f"apt-get {words[0]} failed: {last}"
        time.sleep(pause)
