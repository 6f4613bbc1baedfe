"""Write kept epochs and resume checkpoints while training goes on.

A kept epoch is copied to host memory in the type it is published in, then written, hashed and renamed into place by a thread beside
the training. Resume checkpoints are the trainer's own and stop the training, so they may cost a share of its time only.
"""

import copy
import math
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import TrainerCallback

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, write_json
from sft_atlas.core.log import progress
from sft_atlas.study.paths import CHECKPOINT
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train.interruption import Interrupted, StopRequest
from sft_atlas.train.resume_state import DIVERGED, complete_checkpoints, mark_complete, record_epoch

TIME_SHARE = 0.1  # of the training time that resume checkpoints may cost
BYTES_PER_SECOND = 1e9  # writing speed, a guess until the first checkpoint was written


class CheckpointCallback(TrainerCallback):
    """Saves the kept epochs in ``state/epoch-N``, decides when a resume checkpoint is due, shows progress, takes times.

    Raises AtlasError where a loss, a gradient norm or a weight is not finite, before anything of that step is saved, and Interrupted
    after a resume checkpoint was saved because a signal asked for it (``stop_request``).
    ``dtype``: the type in which full weights are published. ``checkpoint_bytes``: size of one resume checkpoint.
    ``first_step``, ``last_step``: seconds of ``perf_counter``.
    """

    def __init__(self, settings: Hyperparameters, state: Path, dtype: torch.dtype, name: str, checkpoint_bytes: float):
        self.settings, self.state, self.dtype, self.name = settings, state, dtype, name
        self.is_adapter = settings.method == "lora"
        self.checkpoint_seconds = checkpoint_bytes / BYTES_PER_SECOND
        self.first_step: float | None = None
        self.last_step: float | None = None
        self.trainer = None  # set by the caller, who makes the trainer with this callback
        self.stop_request = StopRequest()
        self._stopping = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future | None = None
        self._shell = None

    def on_train_begin(self, args, trainer_state, control, model=None, **_):
        self._last_checkpoint = time.perf_counter()
        if not self.is_adapter:
            self._shell = without_weights(model, self.dtype)

    def on_step_end(self, args, trainer_state, control, **_):
        self.last_step = time.perf_counter()
        self.first_step = self.first_step or self.last_step
        self._stopping = self._stopping or self.stop_request.anywhere(self.settings.gpus)
        ends_epoch = trainer_state.global_step * self.settings.epochs % trainer_state.max_steps == 0
        if self._stopping and not ends_epoch:  # an epoch that ends here is kept first
            self._save_began = self.last_step
            control.should_save = True
            self._make_room(args, trainer_state)
        return control

    def on_epoch_end(self, args, trainer_state, control, model=None, **_):
        epoch = round(trainer_state.epoch)
        if not self._weights_are_finite(model):  # the last update of an epoch shows in no loss
            self._stop("a weight is not finite after", trainer_state)
        if epoch in self.settings.kept_epochs:
            self._keep(epoch, model)
        self._save_began = time.perf_counter()
        due = self._stopping or self._save_began - self._last_checkpoint >= self.checkpoint_seconds / TIME_SHARE
        if self.settings.gpus > 1:  # every process must come to the same decision
            decision = [due]
            torch.distributed.broadcast_object_list(decision)
            due = decision[0]
        control.should_save = due and epoch != self.settings.epochs  # after the last epoch nothing is left to resume
        if control.should_save:
            self._make_room(args, trainer_state)
        return control

    def _make_room(self, args, trainer_state) -> None:
        """Before a resume checkpoint is written, keep only the newest of those before it: two are on disk at most, and one is complete."""
        if trainer_state.is_world_process_zero:
            for older in complete_checkpoints(Path(args.output_dir))[:-1]:
                shutil.rmtree(older)

    def on_log(self, args, trainer_state, control, logs=None, **_):
        for key, quantity in (("loss", "the loss"), ("grad_norm", "the gradient norm"), ("eval_loss", "the validation loss")):
            if logs and not math.isfinite(float(logs.get(key, 0))):
                self._stop(f"{quantity} is {float(logs[key])} at", trainer_state)
        step, steps = trainer_state.global_step, trainer_state.max_steps
        if trainer_state.is_world_process_zero and logs and "loss" in logs and step % max(1, steps // 4) == 0:
            progress(f"{self.name}: step {step}/{steps}, loss {float(logs['loss']):.3f}")

    def on_save(self, args, trainer_state, control, **_):
        self.wait()  # a checkpoint must not be complete before the kept epochs up to it are
        self.trainer.accelerator.wait_for_everyone()  # nor before every process has written its part
        if trainer_state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{trainer_state.global_step}")
        self._last_checkpoint = time.perf_counter()
        self.checkpoint_seconds = self._last_checkpoint - self._save_began
        if self._stopping:
            signal_name = self.stop_request.name or "SIGTERM"  # another process of the run got it
            raise Interrupted(
                f"{self.name}: stopped by {signal_name} after optimiser step {trainer_state.global_step} of"
                f" {trainer_state.max_steps}; the state is saved in {self.state}, and the next start goes on from there",
                signal_name,
            )

    def _weights_are_finite(self, model) -> bool:
        """Whether all trained weights are finite, on every process."""
        trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in trained]  # the shard of this process
        finite = torch.stack([tensor.isfinite().all() for tensor in local]).all()
        return bool(self.trainer.accelerator.gather(finite.reshape(1).int()).all())

    def _stop(self, what: str, trainer_state) -> None:
        """Raise AtlasError on every process, and leave the message in the state folder for the job and for the next attempt."""
        self.wait()
        step, steps = trainer_state.global_step, trainer_state.max_steps
        rate = next(entry["learning_rate"] for entry in reversed(trainer_state.log_history) if "learning_rate" in entry)
        kept = [epoch for epoch in self.settings.kept_epochs if epoch * steps < step * self.settings.epochs]
        error = (
            f"{self.name}: {what} optimiser step {step} of {steps} (learning rate {rate:.3g}); the run diverged"
            f" and nothing of it is published. {f'The last good kept epoch is {self.state / CHECKPOINT.format(epoch=kept[-1])}' if kept else 'No epoch was kept before'}."
            " Lower learning_rate or max_grad_norm, or check the data and the base model. For the results of all other runs, add --config"
            f" select='{{without: [{self.name}]}}'. To repeat the same run, delete {self.state}"
        )
        if trainer_state.is_world_process_zero:
            write_json(self.state / DIVERGED, {"error": error}, durable=True)
        self.trainer.accelerator.wait_for_everyone()  # the first process to fail ends the others
        raise AtlasError(error)

    def _keep(self, epoch: int, model) -> None:
        gathered = self.trainer.accelerator.get_state_dict(self.trainer.model_wrapped) if self.settings.gpus > 1 else None
        self.wait()
        if not self.trainer.is_world_process_zero():
            return
        if gathered:
            tie(gathered, model)
        if self.is_adapter:  # a few megabytes: not worth a thread
            with atomic(self.state / CHECKPOINT.format(epoch=epoch), durable=True) as part:
                model.save_pretrained(part, state_dict=gathered)
                with safe_open(part / "adapter_model.safetensors", "pt") as saved:
                    written, trained = len(saved.keys()), sum(parameter.requires_grad for parameter in model.parameters())
                if written != trained:  # an adapter without weights would score as the base model
                    raise AtlasError(
                        f"{self.name}: epoch {epoch} was saved with {written} of the adapter's {trained} tensors; please report this"
                    )
                record_epoch(self.state, epoch, part)
            return
        tensors = copy_to_host(gathered or model.state_dict(), self.dtype)
        self._writing = self._writer.submit(self._write, epoch, tensors)

    def _write(self, epoch: int, tensors: dict[str, torch.Tensor]) -> None:
        with atomic(self.state / CHECKPOINT.format(epoch=epoch), durable=True) as part:
            self._shell.save_pretrained(part, state_dict=tensors)
            record_epoch(self.state, epoch, part)

    def wait(self) -> None:
        """Wait until the kept epochs so far are on disk; raises what the writing thread raised."""
        if self._writing:
            self._writing.result()
            self._writing = None

    def close(self) -> None:
        """Wait and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()


def copy_to_host(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Copies in host memory; tensors that share memory (tied embeddings) share it in the copy too."""
    copies: dict[tuple, torch.Tensor] = {}
    result = {}
    for key, value in tensors.items():
        same = (value.data_ptr(), value.shape, value.stride())
        if same not in copies:
            copies[same] = value.detach().to("cpu", dtype, copy=True)
        result[key] = copies[same]
    return result


def tie(gathered: dict[str, torch.Tensor], model) -> None:
    """Make names that are one parameter of the model one tensor of its gathered weights, where each has its copy."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in gathered:
            gathered[name] = gathered[first.setdefault(id(parameter), name)]


def without_weights(model, dtype: torch.dtype):
    """A model like ``model`` on the meta device, with the configuration to publish; it can be saved while training goes on."""
    config = copy.deepcopy(model.config)
    config.dtype, config.use_cache = dtype, True
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        shell = type(model)(config)
    shell.generation_config = copy.deepcopy(model.generation_config)
    return shell
