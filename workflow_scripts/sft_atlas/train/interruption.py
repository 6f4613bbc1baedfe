"""SIGTERM and SIGINT during training: the run saves a resume checkpoint after the current optimiser step and ends.

Slurm sends SIGTERM to every process of a job that it preempts, cancels or has run out of time, and SIGKILL some seconds later
(``KillWait``, ``GraceTime``). A job that Snakemake's death or a user ends gets the signal alone, and passes it to its workers.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LONGEST_WAIT = 900  # seconds


class Interrupted(AtlasError):
    """Training was ended by a signal, whose name is in ``signal_name``, and its state is saved."""

    def __init__(self, message: str, signal_name: str):
        super().__init__(message)
        self.signal_name = signal_name


@contextlib.contextmanager
def handled(handler: Callable) -> Iterator[None]:
    """Have ``handler`` take the signals until the block ends."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopRequest:
    """Whether a signal asked this process to stop. A second SIGINT (Ctrl-C) ends it at once, without saving."""

    def __init__(self):
        self.name: str | None = None

    def _note(self, number: int, _frame) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name  # Snakemake sends SIGTERM after the SIGINT of a terminal

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note the signals instead of dying of them, until the block ends."""
        with handled(self._note):
            yield

    def anywhere(self, processes: int) -> bool:
        """Whether any process of the run was asked; every one gets the same answer, as all must save at the same step."""
        if processes == 1:
            return self.name is not None
        import torch

        asked = torch.tensor([self.name is not None], dtype=torch.int32)
        if torch.distributed.get_backend() == "nccl":
            asked = asked.cuda()
        torch.distributed.all_reduce(asked)
        return bool(asked.item())


def run_workers(command: list[str], lock: int) -> int:
    """Run ``command`` (torchrun, perhaps under srun), passing signals to every process below it; returns its exit code.

    torchrun itself ignores the signals: it ends when its workers have saved their state.
    """
    import psutil

    with subprocess.Popen(command, pass_fds=[lock], preexec_fn=_ignore_signals) as process:

        def forward(number: int, _frame) -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.send_signal(number)

        with handled(forward):
            return process.wait()


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def wait_for_the_scheduler(interrupted: Interrupted) -> None:
    """Under Slurm, wait for the SIGKILL after a SIGTERM: a job that ends before it would count as failed, not as preempted or timed out."""
    if "SLURM_JOB_ID" in os.environ and interrupted.signal_name == "SIGTERM":
        LOG.warning("%s", interrupted)
        time.sleep(LONGEST_WAIT)
