"""Run untrusted Python, such as a model's answers to HumanEval and MBPP, so that it can do no harm and cannot pass by anything but right values.

A program and its tests run in two processes (:mod:`sft_atlas.evaluate.jail`). The tests call the program's functions through pipes and
compare plain values of exact types; their process alone has the expected values, the token of the run and the verdict's descriptor.
Both have limits on CPU time, memory, file size and open files, an empty environment, no network and no sight of other processes
(namespaces), a file system of a stated size in memory (tmpfs in a mount namespace), no new processes or programs and no calls that reach
other processes (seccomp), no file outside their folder but the standard library to read (Landlock), and are killed at their time limit.

Where the system lacks any of these nothing runs, unless the study says ``sandbox: best_effort``: :func:`require`. Without a tmpfs the
size of the folder is then checked every POLL seconds.
"""

import contextlib
import functools
import glob
import json
import os
import secrets
import select
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.evaluate import jail

PACKAGES = Path(__file__).parents[2]
START = f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); from sft_atlas.evaluate import jail; del sys.path[0]; jail.main()"
MEBIBYTE = 2**20
ANSWER_LIMIT = 4096  # bytes read from the jail
POLL = 0.1  # seconds between looks at a folder without a quota
LIBRARIES = "LD_LIBRARY_PATH"  # an interpreter from a cluster's modules does not start without it
POLICIES = ("strict", "best_effort")
WARNED = "SFT_ATLAS_SANDBOX_WARNED"  # environment variable: what is missing on this machine was already said on the terminal
REMEDIES = {
    jail.NO_NAMESPACES: "allow user namespaces (sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 on Debian's and "
    "kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu's kernels; in a container also its seccomp profile, "
    "for example docker run --security-opt seccomp=unconfined)",
    jail.NO_QUOTA: "allow a tmpfs in a user namespace",
    jail.NO_LANDLOCK: "use Linux 5.13 or later with landlock among its security modules (boot option lsm=landlock,...)",
    jail.NO_SECCOMP: "use a kernel with seccomp filters, on x86-64 or arm64",
}


@dataclass(frozen=True)
class Limits:
    """What one program may use; its tests have the same limits. ``wall_seconds`` counts from the start, interpreter included."""

    cpu_seconds: int = 8
    wall_seconds: float = 12.0
    memory: int = 1024 * MEBIBYTE  # address space, bytes
    file_size: int = 4 * MEBIBYTE  # of each file, bytes
    disk: int = 16 * MEBIBYTE  # of all files, bytes
    files: int = 1024  # files and folders
    processes: int = 32  # of the user, unless that is root; new processes are refused in any case


@dataclass(frozen=True)
class Outcome:
    """``passed``: the tests ran to their last line. ``reason``: ``passed``, ``timeout``, ``ended early``, ``quota`` or an exception's name."""

    passed: bool
    reason: str
    missing: tuple[str, ...]  # protections that this system does not support


@dataclass
class Agreed:
    """What a job has agreed to: its policy, and what the system was found to lack (None: not looked at)."""

    policy: str = POLICIES[0]
    lacking: tuple[str, ...] | None = None


AGREED = Agreed()  # of this process


def require(policy: str | None = None) -> tuple[str, ...]:
    """What the system lacks, looked at once: AtlasError if that is something and the policy is ``strict``, a warning if ``best_effort``.

    The policy stays that of the process, so a job states it at its start and scoring functions need not know it.
    """
    policy = policy or AGREED.policy
    if AGREED.lacking is None or policy != AGREED.policy:
        lacking = missing()
        if lacking and policy == "strict":
            raise AtlasError(refusal(lacking))
        if lacking:
            (LOG.info if os.environ.get(WARNED) else LOG.warning)("warning: %s", best_effort_warning(lacking))
        AGREED.policy, AGREED.lacking = policy, lacking
    return AGREED.lacking


def refusal(lacking: Collection[str]) -> str:
    """Why no program is run, with both remedies."""
    remedies = "; ".join(REMEDIES[name] for name in lacking if name in REMEDIES)
    return (
        f"this machine ({os.uname().nodename}) lacks what the sandbox for code written by models needs: {', '.join(lacking)}; nothing was run. "
        f"Either provide it{': ' + remedies if remedies else ''}. Or set `sandbox: best_effort` in the study to run such code without it, "
        "where the code can do no harm, such as in a virtual machine of its own"
    )


def best_effort_warning(lacking: Collection[str]) -> str:
    """What it means that something is missing."""
    alone = jail.NO_NAMESPACES in lacking and jail.NO_SECCOMP in lacking
    danger = "; it can end every process of this user" if alone else ""
    return (
        f"code written by models runs with `sandbox: best_effort` on {os.uname().nodename}, without {', '.join(lacking)}; the column "
        f"`sandbox_missing` of the scores says so{danger}"
    )


def missing() -> tuple[str, ...]:
    """The protections that this system does not support, as an empty program reports them."""
    return run("", policy="best_effort").missing


@functools.cache
def readable() -> tuple[str, ...]:
    """What a program may read: the standard library, the C libraries, time zones."""
    python = {
        f"{sys.base_prefix}/lib",
        *(sysconfig.get_path(kind, vars={"platbase": sys.base_prefix}) for kind in ("stdlib", "platstdlib")),
    }
    system = {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"}
    return tuple(sorted({*python, *system, *filter(os.path.isabs, os.environ.get(LIBRARIES, "").split(":"))}))


@functools.cache
def hidden() -> tuple[str, ...]:
    """Folders of installed packages among what is readable: a package may hold a benchmark with its solutions."""
    found = {os.path.realpath(path) for root in readable() for inner in ("", "python*/") for path in glob.glob(f"{root}/{inner}*-packages")}
    return tuple(sorted(filter(os.path.isdir, found)))


def run(program: str, tests: str = "", names: Collection[str] = (), limits: Limits = Limits(), policy: str | None = None) -> Outcome:
    """Run a program, then its tests, both given as text; never raises for what the program does.

    ``names``: what the tests take from the program. Raises AtlasError where the system lacks a protection and the policy (default: that of
    :func:`require`, else strict) does not permit it, ValueError where the tests pass an object that cannot leave their process.
    """
    if "\0" in program or not _encodable(program):
        return Outcome(False, "not a text", ())
    strict = (policy or AGREED.policy) == "strict"
    token = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="sft-atlas-run-")
    order = {
        **limits.__dict__,
        "program": program,
        "folder": folder,
        "readable": readable(),
        "hidden": hidden(),
        "strict": strict,
        "parent": os.getpid(),
    }
    environment = {name: os.environ[name] for name in (LIBRARIES,) if name in os.environ}
    try:
        # -I: no environment, no user site; -S: no site-packages. Standard library only, as both benchmarks need.
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", "-c", START],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            judge = {"tests": tests, "names": list(names), "token": token}
            lines, stopped = _converse(process, b"".join(map(_message, (order, judge))), folder, limits)
        finally:
            ending = _end(process)
    finally:
        _remove(folder)
    return _judge(lines, stopped or ending, token, strict)


def _message(content: dict) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack(">Q", len(text)) + text


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _converse(process: subprocess.Popen, messages: bytes, folder: str, limits: Limits) -> tuple[list[bytes], str]:
    """Send the messages, read the answer to its end; (its lines, why it was stopped: ``timeout``, ``quota``, or nothing)."""
    until = time.monotonic() + limits.wall_seconds
    text = b""
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(messages)
    while len(text) < ANSWER_LIMIT:
        polled = jail.NO_QUOTA.encode() in text
        rest = max(0.0, until - time.monotonic())
        ready, _, _ = select.select([process.stdout], [], [], min(rest, POLL) if polled else rest)
        if not ready and rest <= POLL * polled:
            return text.split(b"\n"), "timeout"
        if polled and _exceeds(folder, limits):
            return text.split(b"\n"), "quota"
        if not ready:
            continue
        part = os.read(process.stdout.fileno(), ANSWER_LIMIT)
        if not part:
            break
        text += part
    return text.split(b"\n"), ""


def _exceeds(folder: str, limits: Limits) -> bool:
    """Whether a folder holds more than a program may have. A tree so deep that its paths are too long for the system is too much."""
    size = count = 0
    waiting = [folder]
    try:
        while waiting:
            # What is gone by now, or may not be read, holds nothing.
            with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
            if size > limits.disk or count > limits.files:
                return True
    except OSError:
        return True
    return False


def _end(process: subprocess.Popen) -> str:
    """Kill the whole process group, whatever state it is in; the signal that had ended its first process before, if any."""
    state = None
    if hasattr(os, "waitid"):  # not on macOS before Python 3.13
        state = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # not waited for: its group's number stays its own
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.poll()
    process.stdout.close()
    process.wait()
    with process.stderr:
        error = process.stderr.read(ANSWER_LIMIT)
    if error and process.returncode > 0:
        raise AtlasError(f"the sandbox failed: {error.decode(errors='replace').strip().splitlines()[-1]}")
    killed = state is not None and state.si_code == os.CLD_KILLED
    return f"killed by {signal.Signals(state.si_status).name}" if killed else ""


def _remove(folder: str) -> None:
    """Remove a program's folder. It is empty, unless there was no tmpfs: then whatever the program made of it."""
    try:
        os.rmdir(folder)
    except OSError:
        # shutil.rmtree recurses, and fails on folders that are nested deeper than Python's stack or may not be read.
        for command in ("chmod", "-R", "u+rwx"), ("rm", "-rf"):
            subprocess.run([*command, "--", folder], stderr=subprocess.DEVNULL, check=False)


def _judge(lines: list[bytes], ending: str, token: str, strict: bool) -> Outcome:
    """Read the two lines of the jail: missing protections, then the verdict with the token of this run."""
    lacking, verdict = (_parsed(line) for line in [*lines, b"", b""][:2])
    if not isinstance(lacking, list) and not ending:
        raise AtlasError(
            f"the sandbox did not start: {os.path.realpath(sys.executable)} ended without a word; report this as an error of sft-atlas"
        )
    lacking = tuple(map(str, lacking or ()))
    if lacking and strict:
        raise AtlasError(refusal(lacking))
    if not isinstance(verdict, dict) or verdict.get("token") != token:
        return Outcome(False, ending or "ended early", lacking)
    if "unsupported" in verdict:
        raise ValueError(f"the tests pass an object of type {verdict['unsupported']} to the program, which cannot leave their process")
    passed = verdict.get("passed") is True
    return Outcome(passed, "passed" if passed else str(verdict.get("error"))[:80], lacking)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
