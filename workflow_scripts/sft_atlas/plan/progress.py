"""How far a run of Snakemake is, from what it writes while it runs: done, running, queued, failed and waiting jobs of each block.

``begin`` has the Snakefile note what Snakemake decided about each job, and then its events (:mod:`sft_atlas.core.run_events`). Everything
else is read from the logs, trainer states and histories of the jobs themselves. Nothing here needs Snakemake, its lock, or a server.
"""

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sft_atlas.core import job as jobs_of_rules
from sft_atlas.core import processes, run_events
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table
from sft_atlas.plan import graph
from sft_atlas.plan.forecast import CLOSING_LINE, OUTSIDE
from sft_atlas.plan.graph import DONE, Decision
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE, Key
from sft_atlas.study.study import Study, from_config

RUNNING, QUEUED, FAILED, WAITING = "running", "queued", "failed", "waiting"
STATES = (DONE, RUNNING, QUEUED, FAILED, WAITING)
BASES, DATA, OTHER, PAGES = "base models", "data", "other jobs on models", "tables, figures and pages"
ON_MODELS = ("train", "evaluate", "measure")  # rooms of jobs on models
LOSS = re.compile(r"step (\d+)/(\d+), loss (-?[\d.]+)$", re.MULTILINE)  # as train/checkpointing.py logs it
TAIL = 20_000  # bytes at the end of a log that are read
LONGEST = 300  # characters of a line that is shown


def events_file(root: str | Path) -> Path:
    """Where a run of the study with results in ``root`` writes its events."""
    return Path(root) / "logs/events.jsonl"


def begin(workflow, logger, root: str, study: str, device: str) -> Callable[[bool], None]:
    """Record a run from now on; ``study`` is the study file as JSON. Returns what to call at the end, with its success."""
    dag = workflow.dag
    words = graph.Graph(workflow, root)
    jobs = {
        dag.jobid(job): {"rule": job.rule.name, "log": str(job.log[0]) if job.log else "", "state": words.state(job)}
        for job in dag.jobs
        if not job.rule.norun
    }
    handler = run_events.EventsFile(events_file(root))
    handler.begin(time.time(), study=json.loads(study), device=device, jobs=jobs)
    logger.addHandler(handler)
    return lambda success: handler.end(time.time(), success)


@dataclass
class Job:
    """One job of the run; ``since`` is the time of its last event, None where it was done before or has not begun."""

    rule: str
    log: str
    block: str
    decided: str  # by Snakemake, before the run
    state: str = WAITING
    since: float | None = None


@dataclass(frozen=True)
class Loss:
    """The last loss of a training run that is on disk. ``validation`` is None where there are no held-out samples."""

    run: str
    state: str
    step: int
    steps: int | None
    loss: float
    validation: float | None = None


@dataclass
class Run:
    """A run of a study, as it is on disk at ``now`` (seconds since 1970)."""

    root: Path
    study: Study
    device: str
    jobs: list[Job]
    began: float
    status: str  # RUNNING, DONE, FAILED, or "killed"
    last: float  # time of the last event
    host: str
    messages: list[str] = field(default_factory=list)  # errors that belong to no job

    @cached_property
    def counts(self) -> dict[str, Counter[str]]:
        """Jobs by state of each block, in the order of the study, and of the jobs that belong to none."""
        found: dict[str, Counter[str]] = {name: Counter() for name in (DATA, BASES, *self.study.blocks, OUTSIDE, OTHER, PAGES)}
        for job in self.jobs:
            found[job.block][job.state] += 1
        return {name: count for name, count in found.items() if count}

    @property
    def total(self) -> Counter[str]:
        return sum(self.counts.values(), Counter())

    def decisions(self) -> list[Decision]:
        """What is done and what is left, for a forecast."""
        return [Decision(job.rule, job.log, DONE if job.state == DONE else job.decided) for job in self.jobs]

    @property
    def failures(self) -> list[tuple[Job, str]]:
        """Failed jobs with the last line of their log, the newest first."""
        failed = [job for job in self.jobs if job.state == FAILED]
        return [(job, last_line(Path(job.log))) for job in sorted(failed, key=lambda job: -(job.since or 0))]

    def losses(self, most: int = 12) -> list[Loss]:
        """Last losses of training runs: those that run, then those that finished last."""
        trained = [job for job in self.jobs if job.rule.startswith("train_") and job.since and job.state in (RUNNING, DONE, FAILED)]
        trained.sort(key=lambda job: (job.state == DONE, -(job.since or 0)))
        found = []
        for job in trained:
            if len(found) == most:
                break
            if key := run_of(self.study, self.root, job.log):
                loss = self._finished(key, job) if job.state == DONE else self._unfinished(key, job)
                found += [loss] if loss else []
        return found

    def _finished(self, key: Key, job: Job) -> Loss | None:
        model, dataset, folder = key
        file = Path(Paths.fill(Paths(self.root).history, model=model, dataset=dataset, recipe=folder))
        try:
            row = read_table(file).sort("step").row(-1, named=True)
        except (AtlasError, OSError, IndexError):
            return None  # deleted, or damaged: the job that reads it says so
        return Loss("/".join(key), job.state, row["step"], row["step"], row["loss"], row["validation_loss"])

    def _unfinished(self, key: Key, job: Job) -> Loss | None:
        """From the newest readable trainer state or the log, whichever is further."""
        found = []
        for step, steps, loss in LOSS.findall(tail(Path(job.log)))[-1:]:
            found.append(Loss("/".join(key), job.state, int(step), int(steps), float(loss)))
        model, dataset, folder = key
        state = Path(Paths.fill(Paths(self.root).state, model=model, dataset=dataset, recipe=folder))
        for file in state.glob("trainer/checkpoint-*/trainer_state.json"):
            found += saved_loss(file, "/".join(key), job.state)
        return max(found, key=lambda loss: loss.step, default=None)


def saved_loss(file: Path, run: str, state: str) -> list[Loss]:
    """The last loss in a trainer state; none while it is being written, or where it was deleted for a newer one."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        entry = [entry for entry in saved["log_history"] if "loss" in entry][-1]
        held_out = [entry["eval_loss"] for entry in saved["log_history"] if "eval_loss" in entry]
    except (OSError, ValueError, LookupError):
        return []
    return [Loss(run, state, entry["step"], saved["max_steps"], entry["loss"], *held_out[-1:])]


def read(root: Path) -> Run:
    """The last run of the study with results in ``root``, which may still go on. AtlasError where there was none."""
    path = events_file(root)
    try:
        first, *events = run_events.read(path)
        study = from_config(first["study"], str(path))
    except FileNotFoundError:
        raise AtlasError(f"no run of this study has begun here: there is no {path}. Start Snakemake, then watch it") from None
    except (ValueError, LookupError) as error:
        raise AtlasError(f"{path} is damaged ({error}); the next run of Snakemake writes it again") from error
    jobs = {
        int(number): Job(
            entry["rule"], entry["log"], block_of(study, root, entry), entry["state"], DONE if entry["state"] == DONE else WAITING
        )
        for number, entry in first["jobs"].items()
    }
    messages = []
    for event in events:
        number = event.get("jobid", event.get("job_id"))
        state = {"job_info": QUEUED, "job_finished": DONE, "job_error": FAILED}.get(event["event"])
        if number in jobs and state == FAILED and event.get("indent") and ended_well_or_never_began(jobs[number]):
            state = WAITING
        if state and number in jobs:
            jobs[number].state, jobs[number].since = state, event["time"]
        elif event["event"] == "message" and event["level"] != "WARNING":
            messages.append(event["text"])
    last = (events or [first])[-1]
    status = status_of(first, last)
    for job in jobs.values():
        if job.state == QUEUED:
            job.state = WAITING if status != RUNNING else RUNNING if has_begun(job) else QUEUED
    return Run(root, study, first["device"], list(jobs.values()), first["time"], status, last["time"], first["host"], messages)


def status_of(first: dict, last: dict) -> str:
    """Whether a run goes on, and how it ended. Of a run on another machine that has not ended nobody can know, and it counts as running."""
    if last["event"] == run_events.END:
        return DONE if last["success"] else FAILED
    return "killed" if processes.is_running(first) is False else RUNNING


def has_begun(job: Job) -> bool:
    """Whether a job that Snakemake started or submitted has opened its log; on a cluster it may wait in the queue."""
    try:
        return not job.log or os.stat(job.log).st_mtime >= math.floor(job.since or 0)
    except FileNotFoundError:
        return False


def ended_well_or_never_began(job: Job) -> bool:
    """Whether a job of a failed group is not what failed."""
    return not has_begun(job) or bool(CLOSING_LINE.search(last_line(Path(job.log))))


def block_of(study: Study, root: Path, entry: dict) -> str:
    """The block whose run a job belongs to (the first of several), or what else the job is about."""
    room = jobs_of_rules.modules().get(re.sub(r"^train_.*", "train", entry["rule"]), "..").split(".")[1]
    if room in ON_MODELS:
        key = run_of(study, root, entry["log"])
        if tuple(_names(root, entry["log"])[1:4]) in study.outside:
            return OUTSIDE
        return study.runs[key].blocks[0] if key else BASES if _names(root, entry["log"])[2:3] in ([], [BASE]) else OTHER
    return DATA if room in ("data", "models") else PAGES


def run_of(study: Study, root: Path, log: str) -> Key | None:
    """The training run that a log is about: ``logs/{rule}/{model}/{dataset}/{recipe}``, with or without more."""
    key = tuple(_names(root, log)[1:4])
    return key if key in study.runs else None


def _names(root: Path, log: str) -> list[str]:
    return list(Path(os.path.relpath(log.removesuffix(".log"), f"{root}/logs")).parts)


def tail(log: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - TAIL))
            return handle.read().decode("utf-8", "replace")
    except OSError:
        return ""


def last_line(log: Path) -> str:
    """The last line of a log that is not empty, shortened, without characters that steer a terminal."""
    lines = [line for line in tail(log).splitlines() if line.strip()]
    text = "".join(char if char.isprintable() else " " for char in lines[-1]).strip() if lines else ""
    return text[:LONGEST] + ("..." if len(text) > LONGEST else "") or "(the job ended before it wrote its log)"
