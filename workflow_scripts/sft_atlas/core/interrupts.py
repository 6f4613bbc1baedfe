"""SIGINT (Ctrl-C) and SIGTERM of a Snakemake that runs jobs on this machine: no new jobs, and an orderly end.

SIGINT ends the running jobs too: each gets SIGTERM, upon which a training saves its state; a second SIGINT kills them. SIGTERM waits for them.

Snakemake 9.27.1 alone waits for its jobs after SIGINT and does not tell them, which only a terminal does. The KeyboardInterrupt is raised
wherever its main thread is, and is lost in some places: then the run goes on to its end. Its handler of SIGTERM takes a lock that the
interrupted main thread may hold, and waits for ever. So these handlers raise nothing and take no lock; a thread does the rest.
"""

import contextlib
import os
import signal
import sys
import time
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any

SAME = 1.0  # seconds within which two SIGINT are one: a terminal's, and that of a program which passes it on
BETWEEN_LOOKS = 0.3  # seconds
SHELLS = ("bash", "sh")  # end when their command has; one that gets SIGTERM would leave it running


class Interrupts:
    """The signals of this process; ``say`` prints a line for people."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.scheduler: Any = None
        self.server: int | None = None  # process id of the warm server, which ends by itself
        self.name: str | None = None  # of the signal that ends the run
        self.since, self.kill = 0.0, False

    def before_jobs(self) -> None:
        """Until :meth:`handle`, Ctrl-C ends the call with a line instead of a traceback."""
        shown = sys.excepthook

        def show(kind, error, trace):
            if issubclass(kind, KeyboardInterrupt):
                self.say("Interrupted.")
            else:
                shown(kind, error, trace)

        sys.excepthook = show

    def handle(self, scheduler: Any, local: bool) -> None:
        """Take the signals over from Snakemake's ``scheduler``; SIGINT only where jobs are ``local``: others are cancelled by their executor."""
        self.scheduler = scheduler
        if signal.getsignal(signal.SIGTERM) == scheduler.exit_gracefully:
            signal.signal(signal.SIGTERM, self._wait_for_jobs)
        if local and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)

    def _wait_for_jobs(self, *_) -> None:
        self.name = self.name or "SIGTERM"
        start_new_thread(self.scheduler.exit_gracefully, ())

    def _interrupt(self, *_) -> None:
        now = time.monotonic()
        if self.name != "SIGINT":
            self.name, self.since = "SIGINT", now
            start_new_thread(self._end_jobs, ())
        elif now - self.since > SAME:
            self.kill = True

    def _end_jobs(self) -> None:
        import psutil

        self.say("Interrupted: the running jobs end, after a training has saved its state. Ctrl-C again kills them at once.")
        self.scheduler.exit_gracefully()
        time.sleep(SAME)  # the SIGINT of a terminal first: to a training it is no more than the SIGTERM that follows
        told = {}
        while True:  # until this process ends; jobs that were just being started come later
            number = signal.SIGKILL if self.kill else signal.SIGTERM
            for process in self._jobs():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if told.get(process) != number and (number == signal.SIGKILL or process.name() not in SHELLS):
                        told[process] = number
                        process.send_signal(number)
            time.sleep(BETWEEN_LOOKS)

    def _jobs(self) -> list:
        """Processes of jobs. Not those in a session of their own, such as sandboxes, which end with the job that started them."""
        import psutil

        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(ProcessLookupError):
                if process.pid != self.server and os.getsid(process.pid) == os.getsid(0):
                    found.append(process)
        return found

    def how_to_go_on(self) -> str:
        """A line for the end of the run; empty if no signal ended it."""
        return f"Stopped by {self.name}. Finished jobs are kept: start the same command again to go on." if self.name else ""
