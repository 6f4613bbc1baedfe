"""The warm server: jobs forked from a process that has already imported torch, transformers, trl and lm-eval.

Under a local Snakemake the Snakefile starts a server (see :func:`start`), and the jobs of ``RULES`` skip the 5 to 7 CPU-seconds that these
imports cost, which is most of a job in a small study. Without a server, or with SFT_ATLAS_WARM=0, a job runs in a new Python. Either way
each job is a process with its own memory, environment, directory, output streams and exit code, and it dies with its client.

The server imports nothing unless a job will ask; it forks only while it has a single thread, uses no accelerator,
and ends with the Snakemake process that started it, even when that process is killed.

Standard library only: every job imports this first.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Sequence

VARIABLE = "SFT_ATLAS_WARM"
RULES = (
    "evaluate",
    "generate",
    "measure_layers",
    "measure_perplexity",
    "measure_representation",
    "pretrain_demo_model",
    "train",
)
AT_ONCE, WHEN_ASKED = "at once", "when asked"  # when the server imports
# One thread per library, and no background threads: a process with several threads must not be forked.
SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Not polars, which starts threads when it is imported.
PRELOAD = (
    "torch",
    "transformers.modeling_utils",
    "trl.trainer.sft_trainer",
    "peft",
    "lm_eval.models.huggingface",
    "lm_eval.evaluator",
    "skdim.id",
    "sft_atlas.data.pretrain_demo_model",
    "sft_atlas.evaluate.evaluate",
    "sft_atlas.evaluate.lm_eval_runner",
    "sft_atlas.measure.measure_representation",
    "sft_atlas.measure.weight_change",
    "sft_atlas.train.train",
    "sft_atlas.train.trainer",
)
PRELOAD += tuple(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "qwen3", "gemma3"))


def start(folder: str, log: str, rules: Iterable[str] = ()) -> int:
    """Start the server beside this process and name it in the environment; it ends when this process does. Returns its process id.

    If jobs of ``rules`` will ask it, it imports at once, while jobs run that do not; else when it is asked.
    """
    import atexit
    import subprocess

    address = os.path.join(folder, f"warm-{os.getpid()}.sock")  # of this call alone: a killed one's server may end later than ours starts
    _remove_stale(folder)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(log, "a") as handle, listen(address) as listener:  # at once: no job comes before the server can be asked
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": package}
        when = AT_ONCE if any(name.startswith(RULES) for name in rules) else WHEN_ASKED
        command = [sys.executable, "-m", "sft_atlas.core.warm", str(listener.fileno()), when]
        streams = {"stdin": subprocess.PIPE, "stdout": handle, "stderr": handle}
        server = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment, **streams)
    os.environ[VARIABLE] = address
    start.server = server  # keeps its stdin open: end of file there tells the server that we are gone
    atexit.register(_stop, server, address)
    return server.pid


def listen(address: str) -> socket.socket:
    """The socket of a server, which this user alone can ask."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    os.chmod(address, 0o600)
    listener.listen(1024)
    return listener


def _stop(server, address: str) -> None:
    """End the server at once: while it imports it would notice late that we are gone."""
    server.kill()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)


def _remove_stale(folder: str) -> None:
    """Remove the sockets of calls that have ended, whose servers were killed."""
    for name in os.listdir(folder):
        if name.startswith("warm-") and name.endswith(".sock") and not os.path.exists(f"/proc/{name[5:-5]}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


def useful() -> bool:
    """Whether a server pays off: on Linux without an accelerator forking is safe, and imports take most of the time."""
    return sys.platform == "linux" and os.environ.get(VARIABLE) != "0" and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd")))


def put_python_on_path() -> None:
    """Make `python` in jobs that of Snakemake's environment; a job's conda environment takes precedence."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


# ---------------------------------------------------------------- client


def forward(argv: list[str]) -> bool:
    """Have the server run the job of ``[script, rule, *arguments]`` and exit with its exit code; False where there is no server.

    SIGTERM is passed to the job, for whose end this process waits; SIGINT reaches the job itself.
    """
    connection = socket.socket(socket.AF_UNIX)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a server that still imports: end without a traceback
    try:
        connection.connect(os.environ.get(VARIABLE, "0"))
        process = int(connection.recv(16) or 0)
    except OSError:
        process = 0
    if not process:
        signal.signal(signal.SIGINT, before)
        return False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    passed_on = []
    signal.signal(signal.SIGTERM, lambda number, _: (passed_on.append(number), _pass_on(number, process)))
    request = json.dumps({"argv": argv, "cwd": os.getcwd(), "env": {**os.environ}}).encode()
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], [1, 2])
    connection.sendall(request)
    answer = connection.recv(16)
    if not answer and passed_on:
        sys.exit(128 + passed_on[0])
    if not answer:
        print(f"{argv[1]}: the job's process died without an exit code (killed, perhaps because memory ran out)", file=sys.stderr)
    sys.exit(int(answer or 137))


def _pass_on(number: int, process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


# ---------------------------------------------------------------- server


def serve(listener: socket.socket, when: str, modules: Sequence[str]) -> None:
    """Answer jobs that ask at ``listener`` until standard input ends; the first job waits for the ``modules`` to be imported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the jobs themselves
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    ready = _preload(modules) if when == AT_ONCE else None
    while True:
        readable, _, _ = select.select([listener, 0], [], [])
        if 0 in readable:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(listener.getsockname())
            return
        connection, _ = listener.accept()
        ready = _preload(modules) if ready is None else ready
        if ready and os.fork() == 0:
            listener.close()
            _job(connection)
        connection.close()


def _preload(modules: Sequence[str]) -> bool:
    """Import the libraries and return whether forking is still safe, that is, whether no library has started a thread."""
    import gc
    import importlib

    from sft_atlas.core.job import OFFLINE, QUIET

    os.environ.update(SINGLE | QUIET | OFFLINE)
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is imported is never freed; each collection in a job (accelerate asks for several) would walk it, a second of CPU time
    sys.stdout.flush()  # or every job would print it again
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        print(f"warm start is off: {threads} threads after the imports", flush=True)
    return threads == 1


def _job(connection: socket.socket) -> None:
    """In the forked process: take over the client's streams, directory and environment, and run the job."""
    import threading
    import traceback

    from sft_atlas.core import job

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        connection.sendall(str(os.getpid()).encode())
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 2)
        size, body = int.from_bytes(head, "big"), b""
        while len(body) < size:
            body += connection.recv(size - len(body))
        request = json.loads(body)
        for target, descriptor in zip((1, 2), descriptors, strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
        sys.argv = request["argv"]  # a job with several GPUs starts itself again
        job.run(sys.argv[1], sys.argv[2:])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 (shown, as Python itself would)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(str(code).encode())
        os._exit(code)


def _die_with(connection: socket.socket) -> None:
    """End this job when its client or the Snakemake behind the server (standard input) is gone."""
    select.select([connection, 0], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:] or PRELOAD)
    sys.stdout.flush()
    os._exit(0)  # at once: tearing down every imported module can take 20 seconds
