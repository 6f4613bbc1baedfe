"""Write kept epochs and resume states while training goes on.

A kept epoch is copied to host memory in the type it is published in, and written, hashed and renamed into place by a
thread beside the training. Resume states are the trainer's own and stop the training, so they are rationed by time.
"""

import copy
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from transformers import TrainerCallback

from sft_atlas.core.files import atomic, hash_weights
from sft_atlas.core.log import progress
from sft_atlas.study.schema import Hyperparameters

SHARE = 0.1  # of the time that resume states may cost
WRITING = 1e9  # bytes per second, a guess until the first state was written


class Keeper(TrainerCallback):
    """Saves the kept epochs, decides when resume states are due, marks complete ones, shows progress, takes times."""

    def __init__(self, settings: Hyperparameters, state: Path, dtype: torch.dtype, name: str, state_bytes: float):
        self.settings, self.state, self.dtype, self.name = settings, state, dtype, name
        self.adapter = settings.method == "lora"
        self.cost = state_bytes / WRITING  # seconds that one resume state takes
        self.first_step: float | None = None
        self.last_step: float | None = None
        self.hashes: dict[str, dict[str, str]] = {}
        self.trainer = None  # set once it exists
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeper")
        self._written: Future | None = None
        self._blank = None

    def on_train_begin(self, args, trainer_state, control, model=None, **_):
        self._last_state = time.perf_counter()
        if not self.adapter:
            self._blank = blank(model, self.dtype)

    def on_step_end(self, args, trainer_state, control, **_):
        self.last_step = time.perf_counter()
        self.first_step = self.first_step or self.last_step

    def on_epoch_end(self, args, trainer_state, control, model=None, **_):
        epoch = round(trainer_state.epoch)
        if epoch in self.settings.kept_epochs:
            self._keep(epoch, model)
        self._began = time.perf_counter()
        due = self._began - self._last_state >= self.cost / SHARE
        if self.settings.gpus > 1:  # every process must come to the same decision
            answer = [due]
            torch.distributed.broadcast_object_list(answer)
            due = answer[0]
        control.should_save = due and epoch != self.settings.epochs  # at the end nothing is left to resume
        return control

    def on_log(self, args, trainer_state, control, logs=None, **_):
        if (
            trainer_state.is_world_process_zero
            and logs
            and "loss" in logs
            and trainer_state.global_step % max(1, trainer_state.max_steps // 4) == 0
        ):
            progress(f"{self.name}: step {trainer_state.global_step}/{trainer_state.max_steps}, loss {float(logs['loss']):.3f}")

    def on_save(self, args, trainer_state, control, **_):
        self.wait()  # a state must not be whole before the epochs that it stands on
        if trainer_state.is_world_process_zero:
            newest = Path(args.output_dir) / f"checkpoint-{trainer_state.global_step}"
            (newest / "complete").touch()
            # The trainer's own `save_total_limit` would remove the one before while this one is not marked yet.
            for older in newest.parent.glob("checkpoint-*"):
                if older != newest:
                    shutil.rmtree(older)
        self._last_state = time.perf_counter()
        self.cost = self._last_state - self._began

    def _keep(self, epoch: int, model) -> None:
        gathered = self.trainer.accelerator.get_state_dict(self.trainer.model_wrapped) if self.settings.gpus > 1 else None
        self.wait()
        if not self.trainer.is_world_process_zero():
            return
        if self.adapter:  # a few megabytes: not worth a thread
            with atomic(self.state / f"epoch-{epoch}") as part:
                model.save_pretrained(part, state_dict=gathered)
            return
        tensors = snapshot(gathered or model.state_dict(), self.dtype)
        self._written = self._thread.submit(self._write, epoch, tensors)

    def _write(self, epoch: int, tensors: dict[str, torch.Tensor]) -> None:
        with atomic(self.state / f"epoch-{epoch}") as part:
            self._blank.save_pretrained(part, state_dict=tensors)
            self.hashes[str(epoch)] = hash_weights(part)

    def wait(self) -> None:
        """Wait until what was kept so far is on disk; raises what went wrong there."""
        if self._written:
            self._written.result()
            self._written = None

    def close(self) -> None:
        """Wait and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def snapshot(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Copies in host memory; tensors that share memory (tied embeddings) share it still."""
    copies: dict[tuple, torch.Tensor] = {}
    result = {}
    for key, value in tensors.items():
        same = (value.data_ptr(), value.shape, value.stride())
        if same not in copies:
            copies[same] = value.detach().to("cpu", dtype, copy=True)
        result[key] = copies[same]
    return result


def blank(model, dtype: torch.dtype):
    """A model like ``model`` without weights, with the configuration to be published; saving it races with no training."""
    config = copy.deepcopy(model.config)
    config.dtype, config.use_cache = dtype, True
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        shell = type(model)(config)
    shell.generation_config = copy.deepcopy(model.generation_config)
    return shell
