"""How long tests wait: the same everywhere, and long.

The limit ends tests that hang. It is no measure of speed: tests run beside others, on machines of any speed.
"""

import subprocess
import time
from collections.abc import Callable

HANG = 1800  # seconds
EXPLAIN = 120  # seconds for each question about the state of something that hangs


def until(condition: Callable[[], object], process: subprocess.Popen | None = None, explain: Callable[[], str] = str):
    """Wait until a condition holds and return its value.

    Fails when ``process`` ends before, or after :data:`HANG`, with what ``explain`` says at that moment.
    """
    deadline = time.monotonic() + HANG
    while True:
        ended = process is not None and process.poll() is not None
        if value := condition():
            return value
        assert not ended, f"the process ended before, with status {process.returncode}\n{explain()}"
        assert time.monotonic() < deadline, f"still not true after {HANG} s\n{explain()}"
        time.sleep(0.02)
