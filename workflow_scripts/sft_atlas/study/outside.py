"""Checkpoints that were trained elsewhere, as runs of the study: one checkpoint each, whose facts may be unknown."""

import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sft_atlas.study.messages import nearest
from sft_atlas.study.runs import UNKNOWN, Checkpoint, Key
from sft_atlas.study.schema import OutsideCheckpoint, StudyFile

EPOCH = 1  # of the folder: the only checkpoint of its run; how many epochs it was trained is a fact of its own
FACTS = ("rows", "epochs", "seed", "learning_rate", "batch_size", "lr_scheduler_type")  # null where nobody stated them
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Outside:
    """A checkpoint of a study that no run of it trained. ``folder`` is its name; ``dataset`` is UNKNOWN where it is not known."""

    model: str
    dataset: str
    recipe: str
    folder: str
    method: str
    entry: OutsideCheckpoint

    @property
    def key(self) -> Key:
        return self.model, self.dataset, self.folder

    @property
    def is_adapter(self) -> bool:
        """Whether its files are an adapter beside the base model."""
        return self.method == "lora" and not self.entry.merged

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(*self.key, EPOCH, self.entry.measure_representation)

    def facts(self) -> dict[str, object]:
        """What is known of its training, without what is not."""
        known = {name: value for name in FACTS if (value := getattr(self.entry, name)) is not None}
        return {"method": self.method, **({"merged": True} if self.entry.merged else {}), **known}

    def facts_option(self) -> str:
        """Those facts as an option of a job."""
        return f"--facts {shlex.quote(json.dumps(self.facts()))}"

    def resolved(self) -> dict[str, object]:
        """Its entry among the runs of `study.json`."""
        entry = self.entry
        keys = {"model": self.model, "dataset": self.dataset, "recipe": self.recipe, "seed": entry.seed, "folder": self.folder}
        keys |= {"method": self.method, "rows": entry.rows, "epochs": entry.epochs, "schedule": entry.lr_scheduler_type}
        source = {name: value for name in ("hub", "revision", "path") if (value := getattr(entry, name)) is not None}
        keys |= {"save_epochs": [EPOCH], "blocks": [], "measure_representation": entry.measure_representation}
        return {**keys, "settings": self.facts(), "outside": source}

    def resolved_recipe(self) -> dict[str, object]:
        """The recipe of `study.json` that it stands for where the study file has none of this name."""
        own = self.recipe == self.folder
        return {"label": (own and self.entry.label) or self.recipe, **self.facts(), "save_epochs": [EPOCH], "outside": True}


def resolve(file: StudyFile, path: Callable[[str], str]) -> dict[Key, Outside]:
    """The study's checkpoints of others; ``path`` resolves a `path` of the study file. A method that is not stated is that of the files."""
    found = {}
    for name, entry in file.checkpoints.items():
        method = entry.method or ("lora" if os.path.isfile(os.path.join(path(entry.path), ADAPTER)) else "full")
        outside = Outside(entry.model, entry.dataset or UNKNOWN, entry.recipe or name, name, method, entry)
        found[outside.key] = outside
    return found


def contradictions(file: StudyFile, path: Callable[[str], str]) -> Iterator[str]:
    """Local checkpoints whose files are not those of the method that is stated."""
    for name, entry in file.checkpoints.items():
        if not entry.path or not entry.method or not os.path.isdir(path(entry.path)):
            continue
        adapter = os.path.isfile(os.path.join(path(entry.path), ADAPTER))
        full = os.path.isfile(os.path.join(path(entry.path), "config.json"))
        if adapter and not full and entry.method == "full":
            yield f"checkpoints.{name}.method: is full, but {path(entry.path)} holds an adapter ({ADAPTER}); correct it to lora"
        if full and not adapter and entry.method == "lora" and not entry.merged:
            yield (
                f"checkpoints.{name}.method: is lora, but {path(entry.path)} holds no {ADAPTER}; correct it to full, or add `merged: true` if an "
                "adapter was merged into these weights"
            )


def warnings(file: StudyFile) -> list[str]:
    """One line for each training set that a checkpoint names and the study does not have."""
    known = [*file.datasets, *file.leave_one_out]
    return [
        f"checkpoints.{name}.dataset: the study has no training set {entry.dataset!r}{nearest(entry.dataset, known)}; analyses that need its "
        "text leave the checkpoint out"
        for name, entry in file.checkpoints.items()
        if entry.dataset and entry.dataset not in known
    ]
