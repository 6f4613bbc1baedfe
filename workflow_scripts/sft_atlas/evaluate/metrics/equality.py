"""Whether two expressions are equal, by math-verify (Hugging Face), in a process of its own.

math-verify stops a comparison that does not end by an alarm signal, which works in a main thread only and counts the time of a busy
machine too. Here each comparison has a limit of CPU time and of memory in a process that is started when it is first needed, with fixed
random seeds, so that any thread gets the same answer on any day. A comparison beyond the limits counts as not equal, with a warning.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG

CPU_SECONDS = 5.0  # of one comparison; a usual one takes milliseconds
WALL_SECONDS = 60.0  # until the process is replaced: big integers do not let the CPU limit's signal through
MEMORY = 4 * 2**30  # bytes of address space

READY, TOO_LONG = b"ready\n", b"too long\n"

_lock = threading.Lock()
_running: dict[int, subprocess.Popen] = {}  # process id of the caller -> its process; a fork must not share pipes


def equal(answer: str, gold: str) -> bool:
    """Whether two LaTeX expressions are equal; the right one second, as math-verify is not symmetric (x = 5 is 5).

    Raises AtlasError where math-verify does not start.
    """
    with _lock:
        line = _ask(answer, gold) or _ask(answer, gold)  # again, as the process may have died of something else
    if line not in (b"true\n", b"false\n"):
        LOG.warning("math-verify does not decide within its limits, so these count as not equal: %.80r and %.80r", answer, gold)
    return line == b"true\n"


def _ask(answer: str, gold: str) -> bytes:
    """The answer of the process; nothing where it dies, so that the next one is asked of a new process."""
    process = _running.get(os.getpid())
    if process is None or process.poll() is not None:
        process = _running[os.getpid()] = _start()
    try:
        process.stdin.write(json.dumps([answer, gold]).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], WALL_SECONDS)
        line = process.stdout.readline() if ready else TOO_LONG
    except BrokenPipeError:
        line = b""
    if line in (b"", TOO_LONG):
        _stop(process)
    return line


def _start() -> subprocess.Popen:
    package = Path(__file__).resolve().parents[3]
    program = f"import sys; sys.path.insert(0, {str(package)!r}); from sft_atlas.evaluate.metrics.equality import serve; serve()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONHASHSEED": "0"}
    )  # fmt: skip
    if process.stdout.readline() != READY:
        _stop(process)
        raise AtlasError("math-verify does not start, and mathematics cannot be scored; `python -c 'import math_verify'` says why")
    atexit.register(_stop_at_exit, process, os.getpid())
    return process


def _stop_at_exit(process: subprocess.Popen, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork of the caller
        _stop(process)


def _stop(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def serve() -> None:
    """Answer each line of standard input, a JSON pair, by ``true`` or ``false``, until it ends, by ``null`` beyond a limit."""
    import resource
    import signal

    import math_verify  # noqa: F401 (before the limits, which are for comparisons)

    class OutOfTime(BaseException):  # not an Exception: math-verify catches those
        pass

    def stop(*_):
        raise OutOfTime

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGPROF, stop)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    answers.write(READY)
    for line in sys.stdin.buffer:
        result = None
        try:
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            result = compare(*json.loads(line))
        except (OutOfTime, MemoryError, RecursionError):
            result = None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(result).encode() + b"\n")


def compare(answer: str, gold: str) -> bool:
    """:func:`equal` without any limit, in this process."""
    import sympy.core.random
    from math_verify import LatexExtractionConfig, parse, verify

    sympy.core.random.seed(0)
    # Only the whole expression: math-verify would else compare a number in it where it cannot read the rest (Math-Verify#82).
    settings = {
        "extraction_config": [LatexExtractionConfig(boxed_match_priority=0)],
        "fallback_mode": "no_fallback",
        "parsing_timeout": None,
    }
    parsed, right = (parse(f"\\boxed{{{text}}}", **settings) for text in (answer, gold))
    return verify(right, parsed, allow_set_relation_comp=True, timeout_seconds=None) and not _far_apart(right, parsed)


def _far_apart(right: list, parsed: list) -> bool:
    """Whether two numbers differ by more than 0.001 %: math-verify takes those below 10**-6 for equal (Math-Verify#14)."""
    from math_verify.grader import get_pct_val
    from sympy import Expr

    one, other = (get_pct_val(listed[0], listed[0]) for listed in (right, parsed))
    if not all(isinstance(value, Expr) and value.is_number and value.is_zero is False for value in (one, other)):
        return False
    ratio = abs((one / other).evalf(20))
    return bool(ratio.is_number and all(abs(ratio * scale - 1) > 1e-5 for scale in (1, 100, 0.01)))
