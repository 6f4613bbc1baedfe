"""Run a job script in a process forked from one that has already imported torch, transformers, trl and lm-eval.

    python workflow_scripts/warm.py workflow_scripts/train.py --base ...

does what `python workflow_scripts/train.py --base ...` does. Under a local Snakemake the Snakefile has started a server
(see `start`), and the job skips the 5 to 7 CPU-seconds that these imports cost, which on a small study is most of a job;
without a server, or with SFT_ATLAS_WARM=0, the script is simply run. Each job still is a process of its own with its own
memory, environment, directory, output streams and exit code, and dies with the process that asked for it.

The server imports nothing before the first job asks; it forks only while it has a single thread, uses no accelerator,
and ends with the Snakemake process that started it, also when that is killed.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence

VARIABLE = "SFT_ATLAS_WARM"
# One thread per library, and none that only tidies memory: a process with threads must not be forked.
SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# polars is left out: it starts threads when imported.
PRELOAD = (
    "torch",
    "transformers.modeling_utils",
    "trl.trainer.sft_trainer",
    "peft",
    "lm_eval.models.huggingface",
    "lm_eval.evaluator",
    "skdim.id",
    "sft_atlas.layers",
)
PRELOAD += tuple(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "qwen3", "gemma3"))


def start(folder: str, log: str) -> None:
    """Start the server beside this process and name it in the environment; it ends when this process does."""
    import subprocess

    address = os.path.join(folder, "warm.sock")
    with open(log, "a") as handle:
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", address], stdin=subprocess.PIPE, stdout=handle, stderr=handle, env=environment
        )
    os.environ[VARIABLE] = address
    start.server = server  # keeps its stdin open: end of file there tells the server that we are gone


def useful() -> bool:
    """Linux without an accelerator: forking is safe there, and the imports weigh most."""
    return sys.platform == "linux" and os.environ.get(VARIABLE) != "0" and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd")))


def put_python_on_path() -> None:
    """Jobs call `python`: let it be that of the environment that Snakemake runs in (a job's own conda environment goes before)."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


# ---------------------------------------------------------------- client


def main() -> None:
    script = sys.argv[1:]
    address = os.environ.get(VARIABLE, "0")
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
        ready = connection.recv(4) == b"warm"
    except OSError:
        ready = False
    if not ready:
        os.execv(sys.executable, [sys.executable, *script])
    request = json.dumps({"argv": script, "cwd": os.getcwd(), "env": {**os.environ}}).encode()
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], [1, 2])
    connection.sendall(request)
    answer = connection.recv(16)
    if not answer:
        print(f"{script[0]}: the job's process died without an exit code (killed, perhaps for want of memory)", file=sys.stderr)
    sys.exit(int(answer or 137))


# ---------------------------------------------------------------- server


def serve(address: str, modules: Sequence[str]) -> None:
    """Answer jobs at the socket ``address`` until standard input ends; the first job waits for the ``modules`` to be imported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the jobs themselves
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    os.chmod(address, 0o600)
    listener.listen(1024)
    ready = None
    while True:
        readable, _, _ = select.select([listener, 0], [], [])
        if 0 in readable:
            os.unlink(address)
            return
        connection, _ = listener.accept()
        ready = _preload(modules) if ready is None else ready
        if ready and os.fork() == 0:
            listener.close()
            _job(connection)
        connection.close()


def _preload(modules: Sequence[str]) -> bool:
    """Import the libraries; whether forking is safe afterwards, that is, no library has started a thread."""
    import importlib

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from sft_atlas.job import OFFLINE, QUIET

    os.environ.update(SINGLE | QUIET | OFFLINE)
    for name in modules:
        importlib.import_module(name)
    sys.stdout.flush()  # or every job would print it again
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        print(f"warm start is off: {threads} threads after the imports", flush=True)
    return threads == 1


def _job(connection: socket.socket) -> None:
    """In the forked process: take over the client's streams, directory, environment and arguments, and run the script."""
    import runpy
    import threading
    import traceback

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        connection.sendall(b"warm")
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
        sys.argv = request["argv"]
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
        runpy.run_path(sys.argv[0], run_name="__main__")
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
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:] or PRELOAD)
        sys.stdout.flush()
        os._exit(0)  # at once: Python would first take every imported module apart, which can take 20 seconds
    elif sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
    else:
        main()
