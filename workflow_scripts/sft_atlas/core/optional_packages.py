"""Packages that `make env` leaves out because few studies need them, and the commands that install them into the Python that asks."""

import os
import shlex
import sys

from sft_atlas.core.provenance import ROOT

IN_ENVIRONMENT = {"tensorboard"}
LOCKED = {"bitsandbytes", "wandb"}  # in `envs/locks/optional.txt`, with what they require, and hashes
IN_NO_LOCK = {  # for GPUs alone, or in need of another version of what is pinned
    "flash-attn": "flash-attn --no-build-isolation",
    "liger-kernel": "liger-kernel==0.8.5",
    "trackio": "trackio==0.43.0",
}


def how_to_install(package: str) -> str:
    """The command for a package named above, to run in the repository's folder; KeyError for another."""
    if package in IN_ENVIRONMENT:
        return "make env"
    return pip_install("--no-deps --require-hashes -r envs/locks/optional.txt" if package in LOCKED else IN_NO_LOCK[package])


def pip_install(words: str) -> str:
    """`pip install` of this Python."""
    python = os.path.relpath(sys.executable, ROOT) if sys.executable.startswith(f"{ROOT}/") else sys.executable
    return f"{shlex.quote(python)} -m pip install {words}"
