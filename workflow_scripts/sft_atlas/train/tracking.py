"""Live curves of a run in a tracker: loss, learning rate, gradient norm, tokens per second and validation loss.

Tracking is no part of a run's identity and changes no result. Trackers write below `results/{study}/tracking`; only wandb can send anything
elsewhere, and only where WANDB_API_KEY is in the environment.
"""

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.study.checks import tracker_missing

# Variables with which trackio would send to a Space, a server or a webhook.
REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "TRACKIO_WEBHOOK_URL")
KEY = "WANDB_API_KEY"


@dataclass(frozen=True)
class Tracking:
    """A tracker (tensorboard, trackio or wandb), its folder, and the study whose runs it shows together."""

    tracker: str
    folder: Path
    study: str

    def attach(self, trainer, name: str) -> None:
        """Let a trainer report the run ``name``. AtlasError where the tracker is not installed."""
        from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

        if missing := tracker_missing(self.tracker):
            raise AtlasError(missing)
        os.environ.update(self.environment(name))
        for variable in REMOTE:
            os.environ.pop(variable, None)
        # accelerate imports trackio, which reads its folder when it is imported: once more, with the folder of this study.
        for module in [module for module in sys.modules if module.partition(".")[0] == "trackio"]:
            del sys.modules[module]
        self.folder.mkdir(parents=True, exist_ok=True)
        trainer.args.run_name, trainer.args.project = name, self.study
        trainer.args.trackio_space_id, trainer.args.trackio_static_space_id = None, False  # else the library uploads the run when it ends
        callback = {"tensorboard": TensorBoardCallback, "trackio": TrackioCallback, "wandb": WandbCallback}[self.tracker]
        trainer.add_callback(TokensPerSecond())
        trainer.add_callback(callback)
        LOG.info("%s: tracked by %s in %s", name, self.tracker, self.folder)

    def environment(self, name: str) -> dict[str, str]:
        """Variables that the tracker reads: its folder, and nothing to send but what is asked for."""
        folder = str(self.folder.absolute())
        if self.tracker == "tensorboard":
            return {"TENSORBOARD_LOGGING_DIR": str(self.folder.absolute() / name)}
        if self.tracker == "trackio":
            return {"TRACKIO_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        # A run that resumes goes on under its id. Neither code, nor the terminal, nor weights, nor error reports are sent.
        identity = hashlib.sha256(f"{self.study}/{name}".encode()).hexdigest()[:16]
        run = {"WANDB_DIR": folder, "WANDB_PROJECT": self.study, "WANDB_RUN_ID": identity, "WANDB_RESUME": "allow"}
        quiet = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_LOG_MODEL": "false", "WANDB_WATCH": "false"}
        private = {"WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_CODE": "true", "WANDB_DISABLE_GIT": "true"}
        return run | quiet | private | ({} if os.environ.get(KEY) else {"WANDB_MODE": "offline"})


class TokensPerSecond(TrainerCallback):
    """Adds the speed since the step before to what trackers get; the trainer's own log stays as it is."""

    def __init__(self):
        self.before: tuple[float, float] | None = None  # tokens so far, and when

    def on_train_begin(self, args, state, control, **_):
        self.before = None

    def on_log(self, args, state, control, logs=None, **_):
        if logs is None or "num_tokens" not in logs:
            return
        now = time.perf_counter()
        if self.before and now > self.before[1]:
            logs["tokens_per_second"] = (logs["num_tokens"] - self.before[0]) / (now - self.before[1])
        self.before = logs["num_tokens"], now
