"""A run of a small study whose events a test makes up, through the handler that the Snakefile uses."""

import logging
import time
from pathlib import Path

from helpers import plan_study
from sft_atlas.core import run_events
from sft_atlas.plan import progress

HOSTILE = "ERROR error: <script>alert(1)</script> \x1b[2J loss is nan"
RED, BLUE, LORA = "ant/red/full", "ant/blue/full", "ant/red/lora"


def decided(root):
    """Jobs of the study as the Snakefile notes them: (rule, log below logs/, state)."""
    jobs = [
        ("fetch_model", "fetch_model/ant", "done"),
        ("resolve_study", "resolve_study", "to do"),
        ("train_full", f"train/{RED}", "to do"),
        ("train_full", f"train/{BLUE}", "to do"),
        ("train_full", "train/ant/all/full", "again"),
        ("train_lora", f"train/{LORA}", "to do"),
        ("evaluate", "evaluate/ant/base/base/epoch-0/short", "to do"),
        ("evaluate", f"evaluate/{RED}/epoch-5/short", "to do"),
        ("plot", "plot/gains", "to do"),
        ("answer_adapters", "answer_adapters/ant/short-1", "to do"),
    ]
    return {number: {"rule": rule, "log": f"{root}/logs/{log}.log", "state": state} for number, (rule, log, state) in enumerate(jobs)}


class Recording:
    """A run of the study whose events a test makes up, through the handler that the Snakefile uses."""

    def __init__(self, root):
        self.root, self.handler = root, run_events.EventsFile(progress.events_file(root))
        self.handler.begin(time.time() - 100, study=plan_study.STUDY, device="cpu", jobs=decided(root))

    def event(self, name, **fields):
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", None, None)
        vars(record).update(fields, event=name)
        self.handler.emit(record)

    def start(self, number, log=None):
        self.event("job_info", jobid=number, rule_name="x", log=[])
        if log is not None:
            path = self.path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(log)

    def finish(self, number):
        self.event("job_finished", job_id=number)

    def fail(self, number, indent=False):
        self.event("job_error", jobid=number, rule_name="x", log=[], output=[], shellcmd="secret", indent=indent)

    def path(self, number):
        return Path(decided(self.root)[number]["log"])

    def close(self):
        if self.handler.stream:
            self.handler.stream.close()
