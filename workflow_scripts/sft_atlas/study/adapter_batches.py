"""LoRA checkpoints whose answers one job gives with one base model: which they are in a call.

The call's main process writes a batch down, and the job reads it, wherever it runs.
"""

import json
from pathlib import Path

from sft_atlas.core.files import read_json, write_text

FOLDER = Path(".snakemake/adapter_batches")  # of the last call


def write(output: str, members: list[dict[str, object]]) -> None:
    """Write down the members of the batch that makes ``output``: each has dataset, recipe, epoch, weights, state and log."""
    write_text(_place(output), json.dumps(members))


def read(output: str | Path) -> list[dict[str, object]]:
    """The members of a batch; [] where no call has written it down."""
    return read_json(_place(output)) if _place(output).exists() else []


def _place(output: str | Path) -> Path:
    return FOLDER / str(output).lstrip("/")
