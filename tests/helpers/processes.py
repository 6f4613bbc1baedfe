"""Start Python processes and wait for what they do."""

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import traceback

from helpers.waiting import HANG, until
from sft_atlas.core.provenance import ROOT

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {
    "PYTHONPATH": str(ROOT / "workflow_scripts")
}


def python(*words, env=(), **options):
    """Run Python to its end; the output is captured."""
    return subprocess.run(
        [sys.executable, *map(str, words)], env=ENVIRONMENT | dict(env), capture_output=True, text=True, timeout=HANG, **options
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


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def exit_codes(processes: int, function) -> list[int]:
    """Call ``function(rank)`` in each process of a distributed job (gloo); they are forked, so that nothing is imported again.

    The first that fails ends the others, as `accelerate launch` does it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def one(rank: int) -> None:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)  # that of this process's parent
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        try:
            function(rank)
        except BaseException:  # noqa: BLE001 (shown; the fork must not go on with the tests)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    started = [multiprocessing.get_context("fork").Process(target=one, args=(rank,)) for rank in range(processes)]
    for process in started:
        process.start()
    try:
        until(lambda: any(process.exitcode for process in started) or all(process.exitcode == 0 for process in started))
    finally:
        for process in started:
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def forked(processes: int, function) -> None:
    """The same, where no process may fail."""
    assert exit_codes(processes, function) == [0] * processes


def shard_on_the_cpu() -> None:
    """Let accelerate use FSDP2 on the CPU too, where it would only copy the model."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    init = AcceleratorState.__init__

    def sharded(self, *args, fsdp_plugin=None, **more):
        init(self, *args, fsdp_plugin=fsdp_plugin, **more)
        if fsdp_plugin is not None:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = sharded
