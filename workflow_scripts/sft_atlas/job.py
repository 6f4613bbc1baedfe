"""What every job shares: a log, errors for people, outputs that appear whole or not at all, and provenance.

Imports only the standard library at module level, so that starting a cheap job stays cheap.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from sft_atlas import local_gpus

# Libraries read these when they are imported: no progress bars in logs, nothing phones home, no hub but in fetch jobs.
QUIET = {
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
ALLOCATION = "in the allocation of Slurm job"
ATTEMPTS = ".slurm"  # ending of the file beside a log that names the Slurm jobs in which a job was tried without success

LOG = logging.getLogger("sft_atlas")
_terminal = sys.stderr  # where a person may be watching
_output = sys.stdout  # where what was asked for is shown
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "lm_eval", "accelerate", "safetensors", "polars", "numpy")


class AtlasError(Exception):
    """An error whose message tells a user what is wrong, where, and what to do; shown without a traceback."""


def run(
    main: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    network: bool = False,
    gpus: Callable[[argparse.Namespace], int] = lambda args: 0,
) -> None:
    """Parse the arguments, open the log given by ``--log`` and call ``main``; only ``network`` jobs may ask the hub.

    ``gpus``: how many GPUs the job takes in a local run, where there are any.

    The log holds every message; the terminal gets warnings and errors only, and progress lines when it is a terminal.
    Exits 1 after an :class:`AtlasError` (message only) or any other exception (with traceback, in the log too).
    """
    parser.add_argument("--log", type=Path, help="file that says what the job did")
    args = parser.parse_args()
    os.environ.update(QUIET if network else QUIET | OFFLINE)
    _open_log(args.log)
    started = time.perf_counter()
    LOG.info("%s", " ".join(sys.argv))
    attempts = _note_attempt(args.log)
    try:
        if taken := local_gpus.claim(gpus(args)):
            LOG.info("on GPU %s", ", ".join(taken))
        main(args)
    except AtlasError as error:
        LOG.error("error: %s", error)
        sys.exit(1)
    except Exception:
        LOG.exception("unexpected error")
        sys.exit(1)
    attempts.unlink(missing_ok=True)
    LOG.info("done in %.1f s wall, %s", time.perf_counter() - started, json.dumps(usage()))


def _note_attempt(log: Path | None) -> Path:
    """Under Slurm, write down which of its jobs this is: a retry asks Slurm why that one ended (:mod:`sft_atlas.slurm`)."""
    attempts = Path(f"{log}{ATTEMPTS}")
    if log and "SLURM_JOB_ID" in os.environ:
        LOG.info("%s %s on %s", ALLOCATION, os.environ["SLURM_JOB_ID"], platform.node())
        with attempts.open("a") as handle:  # not in the log, which Snakemake deletes before a retry
            print(os.environ["SLURM_JOB_ID"], file=handle)
    return attempts


def _open_log(path: Path | None) -> None:
    """Messages go to the log and, from warnings on, to the terminal; whatever libraries print goes to the log."""
    global _terminal, _output
    _terminal, _output = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (2, 1))
    terminal = logging.StreamHandler(_terminal)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
        for stream in (1, 2):
            os.dup2(file.stream.fileno(), stream)
        sys.stdout.reconfigure(line_buffering=True)  # what is printed stands in the log when it happens, also if the job is killed
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for noisy in ("httpx", "urllib3", "filelock", "fsspec", "datasets", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").propagate = False  # third-party warnings belong in the log, not on the terminal
    for handler in handlers[1:]:
        logging.getLogger("py.warnings").addHandler(handler)


def progress(message: str) -> None:
    """Log a line of progress, and show it when a person watches."""
    LOG.info("%s", message)
    if _terminal.isatty():
        print(f"  {message}", file=_terminal)


def say(text: str) -> None:
    """Show what a person asked for, whatever becomes of the log."""
    print(text, file=_output)


def usage() -> dict[str, float]:
    """CPU seconds and peak resident memory (MiB) of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": round(used.ru_utime + used.ru_stime, 2), "peak_memory_mib": round(used.ru_maxrss / 1024, 1)}


# ---------------------------------------------------------------- outputs


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``path`` to write a file or fill a folder at; rename it into place only on success."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with sorted keys, atomically."""
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(path: Path, frame) -> None:
    """Write a polars frame as Parquet, atomically."""
    with atomic(path) as part:
        frame.write_parquet(part)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[int]:
    """Hold ``folder`` for this process, and for those that it gives the file descriptor to; wait while another process of the same machine (an orphan of a killed
    workflow, say) holds it. The kernel frees the lock when the holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning("%s is in use by another process; waiting for it to end", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


# ---------------------------------------------------------------- provenance


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """Hash of each safetensors file of a folder, by name."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}


def provenance(settings: object, inputs: dict[str, Path] | None = None, **more: object) -> dict[str, object]:
    """What is needed to say how a result came to be: settings, versions, code, machine, hashes of the input files."""
    return {
        "settings": settings,
        "inputs": {name: {"path": str(path), "sha256": sha256(path)} for name, path in (inputs or {}).items()},
        "versions": {"python": platform.python_version(), **_versions()},
        "code": git_state(),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        **more,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_state() -> dict[str, object]:
    """Commit and dirty flag of the checkout; nulls where this is no git checkout."""
    if not (ROOT / ".git").exists():
        return {"commit": None, "dirty": None}
    call = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    head = subprocess.run([*call, "rev-parse", "--verify", "-q", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*call, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!slurm/site.yaml"], capture_output=True, text=True
    )
    return {"commit": head.stdout.strip() or None, "dirty": bool(changed.stdout.strip())}
