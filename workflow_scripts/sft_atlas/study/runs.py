"""What a study consists of: runs, and the checkpoints that they give. Standard library only."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sft_atlas.study.schema import Hyperparameters

BASE = "base"  # dataset and recipe of a base model's own results
WITHOUT = "without-"  # prefix of leave-one-out sets
UNKNOWN = "unknown"  # dataset of a checkpoint that was trained elsewhere, on nobody knows what
Key = tuple[str, str, str]  # base model, dataset, folder of the run


def run_folder(recipe: str, seed: int, own_seed: int) -> str:
    """The folder of a run below its base model and dataset: the recipe's name, with the seed unless it is the recipe's own.

    So a run keeps its folder when seeds are added to its block.
    """
    return recipe if seed == own_seed else f"{recipe}-seed-{seed}"


@dataclass(frozen=True)
class Run:
    """One training job: base model x dataset x recipe x seed, with its hyper-parameters (among them the seed).

    ``folder`` is the recipe's name, or that and the seed (:func:`run_folder`). Commands and the files of a run call it ``recipe``; tables
    have ``recipe`` and ``seed``.
    """

    model: str
    dataset: str
    recipe: str
    folder: str
    settings: "Hyperparameters"
    blocks: tuple[str, ...]
    measure_representation: bool

    @property
    def key(self) -> Key:
        return self.model, self.dataset, self.folder

    def within(self, blocks: set[str]) -> "Run":
        """The same run as a member of these blocks only."""
        return replace(self, blocks=tuple(block for block in self.blocks if block in blocks))


@dataclass(frozen=True)
class Checkpoint:
    """One kept epoch of a run, or a base model (dataset and recipe ``base``, epoch 0). ``recipe`` is the folder of the run."""

    model: str
    dataset: str
    recipe: str
    epoch: int
    measure_representation: bool = True

    @classmethod
    def of_base(cls, model: str) -> "Checkpoint":
        """The base model itself."""
        return cls(model, BASE, BASE, 0)

    @property
    def run(self) -> Key:
        """The run that the checkpoint belongs to."""
        return self.model, self.dataset, self.recipe

    def keys(self, **more: str) -> dict[str, str | int]:
        """The keys that every result of this checkpoint carries."""
        return {"model": self.model, "dataset": self.dataset, "recipe": self.recipe, "epoch": self.epoch, **more}
