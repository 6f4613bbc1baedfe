"""State of an unfinished training run: when it may be resumed, and how its kept epochs are published at the end.

A state folder holds ``identity.json`` (what the run is made with), ``trainer/`` (the trainer's own states) and the kept
epochs so far. It lies outside the outputs that Snakemake knows, because Snakemake deletes outputs of failed jobs.
"""

import json
import shutil
from pathlib import Path

from sft_atlas.core.files import hash_weights, write_json
from sft_atlas.core.log import LOG
from sft_atlas.study.schema import Hyperparameters


def open_state(state: Path, identity: dict[str, object]) -> None:
    """Make the state folder ready; what another configuration left there is removed, never resumed."""
    for part in state.glob(".*.part"):  # epochs that a kill cut off
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    mark = state / "identity.json"
    if mark.exists() and json.loads(mark.read_text()) == json.loads(json.dumps(identity)):
        return
    for path in state.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(mark, identity)


def publish(state: Path, output: Path, settings: Hyperparameters, known: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Move the kept epochs to ``output/epoch-N/weights`` by rename; returns the hash of each file by epoch (``known``, or read)."""
    hashes = {}
    for epoch in settings.kept_epochs:
        target = output / f"epoch-{epoch}" / "weights"
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (state / f"epoch-{epoch}").rename(target)
        hashes[str(epoch)] = known.get(str(epoch)) or hash_weights(target)
    return hashes


def close_state(state: Path) -> None:
    """Remove what is left of a run that has been published."""
    shutil.rmtree(state / "trainer", ignore_errors=True)
    for name in ("fit.json", "facts.json", "identity.json"):
        (state / name).unlink(missing_ok=True)


def resumable(state: Path, settings: Hyperparameters, steps: int) -> Path | None:
    """The newest whole trainer state, unless a kept epoch before it is gone (a kill while the epochs were being published)."""
    newest = newest_complete(state / "trainer")
    if newest is None:
        return None
    epoch = int(newest.name.split("-")[1]) * settings.epochs // steps
    lost = [kept for kept in settings.kept_epochs if kept <= epoch and not (state / f"epoch-{kept}").exists()]
    if lost:
        LOG.warning("%s has no epoch %d; training starts anew", state, lost[0])
        return None
    return newest


def newest_complete(folder: Path) -> Path | None:
    """The newest trainer state that was written to its end; states cut off by a kill are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in found:
        if not (path / "complete").exists():
            LOG.warning("removing the unfinished state %s", path)
            shutil.rmtree(path)
    return next((path for path in reversed(found) if path.exists()), None)
