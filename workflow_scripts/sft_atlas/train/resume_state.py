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
from sft_atlas.core.files import flush, read_json, write_json
from sft_atlas.core.integrity import damage, hash_files
from sft_atlas.core.log import LOG
from sft_atlas.study.paths import CHECKPOINT, WEIGHTS
from sft_atlas.study.schema import Hyperparameters

DIVERGED = "diverged.json"  # in the state folder of a run that met a number that is not finite: the error message
EFFECT = "effect"  # folder in the state folder: logits and weights before training
SCRATCH = "SFT_ATLAS_SCRATCH"  # environment variable
COMPLETE = "complete"  # in a trainer checkpoint that was written to its end: SHA-256 of its files by name; empty in older states
HASHES = "weights.json"  # in the state folder: SHA-256 of the kept epochs' weights, by epoch and file name


def open_state(state: Path, identity: dict[str, object], scratch: bool = True) -> None:
    """Make the state folder ready for a run. What a run with another identity left there is removed, never resumed; so is what is damaged.

    ``scratch`` false: trainer checkpoints stay in the shared folder, because several nodes write them.

    Raises AtlasError where the same run has diverged before.
    """
    for part in state.glob(".*.part"):  # epochs that were being written when the job was killed
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    record = state / "identity.json"
    if _read(record) != json.loads(json.dumps(identity)):
        for path in state.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        write_json(record, identity, durable=True)
    raise_if_diverged(state)
    if scratch:
        link_to_scratch(state, identity)
    remove_damaged(state)


def _read(path: Path) -> dict:
    """A JSON file of the state folder; empty where there is none, or where it is damaged: the run then does without it, and the log says so."""
    try:
        return read_json(path, "it is not used")
    except FileNotFoundError:
        return {}
    except AtlasError as error:
        LOG.warning("%s", error)
        return {}


def remove_damaged(state: Path) -> None:
    """Remove kept epochs and trainer checkpoints that are not what was written; training goes on from what is left, or starts anew."""
    hashes = _read(state / HASHES)
    epochs = [(path, hashes.get(path.name.split("-")[1], {})) for path in sorted(state.glob(CHECKPOINT.format(epoch="*")))]
    for path, recorded in [*epochs, *((path, _recorded(path)) for path in complete_checkpoints(state / "trainer"))]:
        problem = f"{path / COMPLETE} is damaged" if recorded is None else damage(path, recorded)
        if problem:
            LOG.warning("%s; removing %s: training goes on from the state before it, or from the beginning", problem, path)
            shutil.rmtree(path)


def _recorded(checkpoint: Path) -> dict[str, str] | None:
    """The hashes in a checkpoint's mark; none of an older state, None where the mark is damaged."""
    mark = checkpoint / COMPLETE
    try:
        return read_json(mark) if mark.stat().st_size else {}
    except AtlasError:
        return None


def record_epoch(state: Path, epoch: int, folder: Path) -> None:
    """Record the hashes of weights and configuration in ``folder``, which become the kept epoch ``epoch``."""
    write_json(state / HASHES, _read(state / HASHES) | {str(epoch): _file_hashes(folder)}, durable=True)


def _file_hashes(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json"))
    return dict(zip([path.name for path in paths], hash_files(paths), strict=True))


def mark_complete(checkpoint: Path) -> None:
    """Flush a trainer checkpoint to the disk and mark it as complete, with the hashes of its files."""
    flush(checkpoint)
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    names = [path.relative_to(checkpoint).as_posix() for path in paths]
    write_json(checkpoint / COMPLETE, dict(zip(names, hash_files(paths), strict=True)), durable=True)


def raise_if_diverged(state: Path) -> None:
    """Raise AtlasError where training stopped at a number that is not finite; the run is never resumed past it."""
    if (state / DIVERGED).exists():
        raise AtlasError(read_json(state / DIVERGED, f"delete {state} to train the run again")["error"])


def publish_epochs(state: Path, output: Path, settings: Hyperparameters) -> dict[str, dict[str, str]]:
    """Move the kept epochs to ``output/epoch-N/weights`` by rename; returns SHA-256 by epoch and file name, as recorded when they were written.

    AtlasError where one is not what was written; it is removed, and nothing is published.
    """
    known, hashes = _read(state / HASHES), {}
    for epoch in settings.kept_epochs:
        kept = state / CHECKPOINT.format(epoch=epoch)
        hashes[str(epoch)] = known.get(str(epoch)) or _file_hashes(kept)
        if problem := damage(kept, hashes[str(epoch)]):
            shutil.rmtree(kept)
            raise AtlasError(f"{problem}; epoch {epoch} was removed and nothing is published: run again, and it is trained again")
    for epoch in settings.kept_epochs:
        target = output / WEIGHTS.format(epoch=epoch)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (state / CHECKPOINT.format(epoch=epoch)).rename(target)
        flush(target.parent)
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

    Every kept epoch up to it must be there. One is missing where it was damaged, or where the job was killed while it published its epochs.
    """
    for checkpoint in reversed(complete_checkpoints(state / "trainer")):
        epoch = int(checkpoint.name.split("-")[1]) * settings.epochs // steps
        missing = [kept for kept in settings.kept_epochs if kept <= epoch and not (state / CHECKPOINT.format(epoch=kept)).exists()]
        if not missing:
            return checkpoint
        LOG.warning("%s has no epoch %d; training does not go on from %s", state, missing[0], checkpoint.name)
    return None


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete trainer checkpoints in ``folder``, the newest last; incomplete ones are removed."""
    complete = []
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])):
        if (path / COMPLETE).exists():
            complete.append(path)
        else:
            LOG.warning("removing the incomplete checkpoint %s", path)
            shutil.rmtree(path)
    return complete


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
