"""Run untrusted Python, such as a model's answers to HumanEval and MBPP, so that it can do no harm and cannot pass by exiting early.

A program runs in a process of its own group with limits on CPU time, memory, file size and processes, an empty environment, an empty
temporary folder, no network (its own namespace), no new processes or programs (seccomp), no file outside its folder but the Python
installation to read (Landlock), and is killed at its time limit. Protections that the system does not support are listed in :attr:`Outcome.missing`.
It passes only by reaching its last line: exit codes, output and swallowed exceptions do not count. A program written against this
harness, which searches the interpreter's memory for the key, could still forge a pass.
"""

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

JAIL = Path(__file__).with_name("jail.py")
MEBIBYTE = 2**20
ANSWER_LIMIT = 4096  # bytes read from a program's answer


@dataclass(frozen=True)
class Limits:
    """What one program may use. ``wall_seconds`` counts from its start, interpreter included."""

    cpu_seconds: int = 8
    wall_seconds: float = 12.0
    memory: int = 1024 * MEBIBYTE  # address space, bytes
    file_size: int = 4 * MEBIBYTE  # of each file, bytes
    processes: int = 32  # of the user, unless that is root; new processes are refused in any case


@dataclass(frozen=True)
class Outcome:
    """``passed``: the program ran to its last line. ``reason``: ``passed``, ``timeout``, ``ended early`` or an exception's name."""

    passed: bool
    reason: str
    missing: tuple[str, ...]  # protections that this system does not support


def readable() -> list[str]:
    """Folders that a program may read: the interpreter, its standard library, the C library."""
    python = {sys.base_prefix, sysconfig.get_path("stdlib"), os.path.dirname(os.path.realpath(sys.executable))}
    return sorted(
        {*python, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"}
    )


def run(program: str, limits: Limits = Limits()) -> Outcome:
    """Run a program, given as text; never raises for what the program does."""
    if "\0" in program or not _encodable(program):
        return Outcome(False, "not a text", ())
    key = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="sft-atlas-run-", ignore_cleanup_errors=True) as folder:
        order = {**limits.__dict__, "program": program, "key": key, "folder": folder, "readable": readable()}
        # -I: no environment, no user site; -S: no site-packages. Standard library only, as both benchmarks need.
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", str(JAIL)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            lines, in_time = _converse(process, json.dumps(order).encode() + b"\n", limits.wall_seconds)
        finally:
            _end(process)
    return _judge(lines, in_time, key)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _converse(process: subprocess.Popen, order: bytes, seconds: float) -> tuple[list[bytes], bool]:
    """Send the order, read at most ANSWER_LIMIT bytes until the answer ends; (its lines, whether it ended in time)."""
    until = time.monotonic() + seconds
    text = b""
    try:
        process.stdin.write(order)
        process.stdin.close()
    except BrokenPipeError:
        return [], True
    while len(text) < ANSWER_LIMIT:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return text.split(b"\n"), False
        part = os.read(process.stdout.fileno(), ANSWER_LIMIT)
        if not part:
            break
        text += part
    return text.split(b"\n"), True


def _end(process: subprocess.Popen) -> None:
    """Kill the whole process group, whatever state it is in."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.poll()
    process.stdout.close()
    process.wait()


def _judge(lines: list[bytes], in_time: bool, key: str) -> Outcome:
    """Read the answer: missing protections, then the key or an error. The program may have written to the same channel."""
    missing, ending = (_parsed(line) for line in [*lines, b"", b""][:2])
    lacking = tuple(map(str, missing)) if isinstance(missing, list) else ()
    if lines[1:2] == [json.dumps({"key": key}).encode()]:
        return Outcome(True, "passed", lacking)
    reason = str(ending.get("error", "ended early"))[:80] if isinstance(ending, dict) else "ended early"
    return Outcome(False, reason if in_time else "timeout", lacking)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def missing() -> tuple[str, ...]:
    """The protections that this system does not support, as an empty program reports them."""
    return run("").missing
