"""Trainer states on a node's own disk instead of the shared file system.

Only the large part of a state moves there, the folder ``trainer`` that is written after every epoch; it becomes a link. What makes the
run, and its kept epochs, stay in the state folder. A job that comes back to its node goes on from the newest epoch there. On another
node the link leads to an empty folder: the job starts clean, and since training is deterministic its kept epochs come out as before.
"""

import getpass
import hashlib
import json
import os
import platform
import shutil
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG

VARIABLE = "SFT_ATLAS_SCRATCH"


def announce(folder: str | None) -> None:
    """Tell the jobs that this process starts, here or through Slurm, where the site file puts scratch."""
    if folder:
        os.environ[VARIABLE] = folder


def attach(state: Path, identity: dict[str, object], folder: str | None = None) -> None:
    """Make ``state/trainer`` a link to a folder of its own on scratch, if there is a scratch ``folder`` (default: the variable's).

    The folder's name has a hash of the state's place and of what makes the run, so a state of other settings is never found.
    """
    folder = folder or os.environ.get(VARIABLE)
    link = state / "trainer"
    if not folder:
        if link.is_symlink():  # the site file named scratch before
            link.unlink()
        return
    root = os.path.expanduser(os.path.expandvars(folder))
    if "$" in root or not os.path.isabs(root):
        raise AtlasError(f"scratch of the site file is {folder!r}, which on {platform.node()} gives {root!r}: an absolute folder is needed")
    key = hashlib.sha256(json.dumps([str(state.resolve()), identity], sort_keys=True).encode()).hexdigest()[:24]
    target = Path(root) / f"sft-atlas-{getpass.getuser()}" / key
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    if link.is_symlink():
        link.unlink()
    if not link.exists():  # else it has a state in the shared folder already, and goes on from there
        link.symlink_to(target)
        LOG.info("trainer states are in %s", target)


def detach(state: Path) -> None:
    """Remove the trainer states of a finished run, wherever they are."""
    link = state / "trainer"
    shutil.rmtree(link.resolve(), ignore_errors=True)
    if link.is_symlink():
        link.unlink()
