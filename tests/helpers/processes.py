"""Start Python processes and wait for what they do."""

import contextlib
import os
import subprocess
import sys
import time

from sft_atlas.core.provenance import ROOT

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {
    "PYTHONPATH": str(ROOT / "workflow_scripts")
}


def python(*words, env=(), **options):
    """Run Python to its end; the output is captured."""
    return subprocess.run(
        [sys.executable, *map(str, words)], env=ENVIRONMENT | dict(env), capture_output=True, text=True, timeout=60, **options
    )


@contextlib.contextmanager
def started(*words, env=(), **options):
    """A Python process that is killed at the end, whatever happens."""
    process = subprocess.Popen([sys.executable, *map(str, words)], env=ENVIRONMENT | dict(env), text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition, seconds=20):
    """Wait for a condition; fails when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not true after {seconds} s"
        time.sleep(0.01)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
