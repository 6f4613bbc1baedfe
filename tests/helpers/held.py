"""Training that waits where a test wants it to, however fast the machine is: in a copy of the workflow, by a few lines in the copy's trainer.

The training is real before and after. It never waits once it was asked to stop.
"""

import contextlib
from collections.abc import Iterator

from helpers.folders import Folder

CODE = """

_on_step_end = CheckpointCallback.on_step_end


def _wait_and_go_on(self, args, trainer_state, control, **more):
    while Path(f"hold-{trainer_state.global_step}").exists() and not self.stop_request.name:
        time.sleep(0.05)
    return _on_step_end(self, args, trainer_state, control, **more)


CheckpointCallback.on_step_end = _wait_and_go_on
"""


@contextlib.contextmanager
def held(folder: Folder, step: int) -> Iterator[None]:
    """Have training in a copy of the workflow wait at the end of an optimiser step until the block ends."""
    hold, trainer = folder.path / f"hold-{step}", folder.path / "workflow_scripts/sft_atlas/train/checkpointing.py"
    if CODE not in trainer.read_text():
        trainer.write_text(trainer.read_text() + CODE)
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()
