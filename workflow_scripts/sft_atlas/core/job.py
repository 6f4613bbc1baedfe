"""How every job runs: arguments, log, errors for people, GPUs, and the environment that libraries read.

A job is a module ``sft_atlas/{room}/{rule}.py`` with the name of its rule. It has ``main(args)`` and ``add_options(p)``,
which adds its options to an argparse parser; ``NETWORK = True`` if it may use the network; ``GPUS = 1`` if it takes one in a local run, or
``gpus(args)`` if that depends on its options. ``workflow_scripts/run.py`` is the only way to start it.

Job modules import heavy libraries inside functions, so that cheap jobs start fast and libraries see the environment set below.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from sft_atlas.core import gpus
from sft_atlas.core.disk import disk_full, is_full, written_since
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG, open_log
from sft_atlas.core.provenance import resource_usage

# Libraries read these when they are imported: no progress bars in logs, no telemetry, and the hub in fetch jobs only.
QUIET = {
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
ALLOCATION = "in the allocation of Slurm job"
ATTEMPTS = ".slurm"  # ending of the file beside a log that names the Slurm jobs in which a job failed so far
PACKAGE = Path(__file__).resolve().parents[1]


def modules() -> dict[str, str]:
    """Every module of every room by its name; those named like a rule are jobs. ``{"train": "sft_atlas.train.train", ...}``"""
    return {path.stem: f"sft_atlas.{path.parent.name}.{path.stem}" for path in sorted(PACKAGE.glob("*/*.py")) if path.stem != "__init__"}


def run(rule: str, arguments: list[str]) -> None:
    """Run the job of ``rule``: parse the arguments, open the log given by ``--log`` and call ``main``.

    The log holds every message; the terminal gets warnings and errors only, and progress lines when it is a terminal.
    Exits 1 after an :class:`AtlasError` (message only) or any other exception (with traceback, in the log too), 2 for a wrong call, 130 after
    Ctrl-C.
    """
    if rule not in modules():
        sys.exit(f"run.py: there is no rule {rule!r}; `snakemake --list-rules` shows them all")
    os.environ.update(QUIET)
    module = importlib.import_module(modules()[rule])
    if not hasattr(module, "main"):
        sys.exit(f"run.py: {rule!r} is a library module, not a rule; `snakemake --list-rules` shows the rules")
    run_module(module, rule, arguments)


def long_text(value: str) -> str:
    """Type of an option whose text may be longer than an argument can be (128 KiB on Linux): ``-`` reads it from standard input."""
    return sys.stdin.read() if value == "-" else value


def parser(module: ModuleType, rule: str = "") -> argparse.ArgumentParser:
    """The command line of a job."""
    made = argparse.ArgumentParser(prog=f"run.py {rule}", description=module.__doc__)
    if hasattr(module, "add_options"):
        module.add_options(made)
    made.add_argument("--log", type=Path, help="log file of the job")
    return made


def run_module(module: ModuleType, rule: str, arguments: list[str]) -> None:
    """Run the job of a module that is imported already; see :func:`run`."""
    if not getattr(module, "NETWORK", False):
        os.environ.update(OFFLINE)
    args = parser(module, rule).parse_args(arguments)
    started, began = time.perf_counter(), time.time()
    try:
        open_log(args.log)
        LOG.info("%s", " ".join(["run.py", rule, *arguments]))
        attempts = _note_attempt(args.log)
        if taken := gpus.claim(module.gpus(args) if hasattr(module, "gpus") else getattr(module, "GPUS", 0)):
            LOG.info("on GPU %s", ", ".join(taken))
        module.main(args)
    except AtlasError as error:
        LOG.error("error: %s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        LOG.error("interrupted")
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 (logged with its traceback)
        if is_full(error):
            paths = [path for path in vars(args).values() if isinstance(path, Path)]
            LOG.error("error: %s", disk_full(error, [*paths, Path(tempfile.gettempdir())], written_since(paths, began)))
        else:
            LOG.exception("unexpected error")
        sys.exit(1)
    attempts.unlink(missing_ok=True)
    LOG.info("done in %.1f s wall, %s", time.perf_counter() - started, json.dumps(resource_usage()))


def _note_attempt(log: Path | None) -> Path:
    """Under Slurm, note the number of its job: a retry asks Slurm why that job ended (:mod:`sft_atlas.cluster.slurm`)."""
    attempts = Path(f"{log}{ATTEMPTS}")
    if log and "SLURM_JOB_ID" in os.environ:
        LOG.info("%s %s on %s", ALLOCATION, os.environ["SLURM_JOB_ID"], platform.node())
        with attempts.open("a") as handle:  # not in the log, which Snakemake deletes before a retry
            print(os.environ["SLURM_JOB_ID"], file=handle)
    return attempts
