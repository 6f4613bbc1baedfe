"""The state folder of an unfinished run: what may be resumed, and how the kept epochs are published at the end.

It holds ``identity.json`` (settings, inputs and versions of the run), ``trainer/`` (the trainer's own checkpoints) and the epochs kept
so far. It lies outside the outputs that Snakemake knows, because Snakemake deletes the outputs of failed jobs.

A site file may name a node's own disk (scratch) for ``trainer/``, the large part that is written after every epoch; it is then a link.
A job that comes back to its node resumes from the newest epoch there. On another node the link leads to an empty folder: the job starts
from the beginning, and since training is deterministic it gives the same epochs.

Light to import: the workflow takes SCRATCH from here while it is being parsed.
"""

import getpass
import hashlib
import json
import os
import platform
import shutil
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import hash_weights, write_json
from sft_atlas.core.log import LOG
from sft_atlas.study.paths import CHECKPOINT, WEIGHTS
from sft_atlas.study.schema import Hyperparameters

DIVERGED = "diverged.json"  # in the state folder of a run that met a number that is not finite: the error message
EFFECT = "effect"  # folder in the state folder: logits and weights before training
SCRATCH = "SFT_ATLAS_SCRATCH"  # environment variable
COMPLETE = "complete"  # empty file in a trainer checkpoint that was written to its end


def open_state(state: Path, identity: dict[str, object], scratch: bool = True) -> None:
    """Make the state folder ready for a run. What a run with another identity left there is removed, never resumed.

    ``scratch`` false: trainer checkpoints stay in the shared folder, because several nodes write them.

    Raises AtlasError where the same run has diverged before.
    """
    for part in state.glob(".*.part"):  # epochs that were being written when the job was killed
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    record = state / "identity.json"
    if not record.exists() or json.loads(record.read_text()) != json.loads(json.dumps(identity)):
        for path in state.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        write_json(record, identity)
    raise_if_diverged(state)
    if scratch:
        link_to_scratch(state, identity)


def raise_if_diverged(state: Path) -> None:
    """Raise AtlasError where training stopped at a number that is not finite; the run is never resumed past it."""
    if (state / DIVERGED).exists():
        raise AtlasError(json.loads((state / DIVERGED).read_text())["error"])


def publish_epochs(state: Path, output: Path, settings: Hyperparameters, known: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Move the kept epochs to ``output/epoch-N/weights`` by rename; returns SHA-256 by epoch and file name (from ``known``, else computed)."""
    hashes = {}
    for epoch in settings.kept_epochs:
        target = output / WEIGHTS.format(epoch=epoch)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (state / CHECKPOINT.format(epoch=epoch)).rename(target)
        hashes[str(epoch)] = known.get(str(epoch)) or hash_weights(target)
    return hashes


def close_state(state: Path) -> None:
    """Remove what is left of a published run, on scratch too."""
    trainer = state / "trainer"
    shutil.rmtree(trainer.resolve(), ignore_errors=True)
    if trainer.is_symlink():
        trainer.unlink()
    shutil.rmtree(state / EFFECT, ignore_errors=True)
    for path in [*state.glob("*.json"), *state.glob("*.parquet")]:
        path.unlink()


def checkpoint_to_resume(state: Path, settings: Hyperparameters, steps: int) -> Path | None:
    """The newest complete trainer checkpoint of a run of ``steps`` optimiser steps; None to train from the beginning.

    That is so where a kept epoch before it is missing: the job was killed while it published its epochs.
    """
    newest = newest_checkpoint(state / "trainer")
    if newest is None:
        return None
    epoch = int(newest.name.split("-")[1]) * settings.epochs // steps
    missing = [kept for kept in settings.kept_epochs if kept <= epoch and not (state / CHECKPOINT.format(epoch=kept)).exists()]
    if missing:
        LOG.warning("%s has no epoch %d; training starts from the beginning", state, missing[0])
        return None
    return newest


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete trainer checkpoint in ``folder``; incomplete ones are removed."""
    complete = []
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])):
        if (path / COMPLETE).exists():
            complete.append(path)
        else:
            LOG.warning("removing the incomplete checkpoint %s", path)
            shutil.rmtree(path)
    return complete[-1] if complete else None


def link_to_scratch(state: Path, identity: dict[str, object]) -> None:
    """Make ``state/trainer`` a link to a folder on scratch where scratch is announced; AtlasError where that is no absolute path here.

    The folder's name is a hash of the state's path and of the run's identity, so that no run finds the state of another.
    """
    folder, link = os.environ.get(SCRATCH), state / "trainer"
    if not folder:
        if link.is_symlink():  # the site file named scratch before
            link.unlink()
        return
    root = os.path.expanduser(os.path.expandvars(folder))
    if "$" in root or not os.path.isabs(root):
        raise AtlasError(f"scratch of the site file is {folder!r}, which on {platform.node()} gives {root!r}: give an absolute path")
    key = hashlib.sha256(json.dumps([str(state.resolve()), identity], sort_keys=True).encode()).hexdigest()[:24]
    target = Path(root) / f"sft-atlas-{getpass.getuser()}" / key
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    if link.is_symlink():
        link.unlink()
    if not link.exists():  # else an earlier attempt left its checkpoints in the shared folder: resume there
        link.symlink_to(target)
        LOG.info("trainer checkpoints are in %s", target)
