"""Run a study with Snakemake and show one line per stage, with the time left; at the end what was found and where to look.

    python workflow_scripts/run.py run_study demo          what `make demo` runs
    python workflow_scripts/run.py run_study demo scores   more arguments are Snakemake's

Snakemake's own output, with the warnings of jobs, goes to results/{study}/logs/snakemake.log. Errors are shown in full. The exit code is
Snakemake's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean

from sft_atlas.core import job
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import print_to_terminal
from sft_atlas.report import show_findings
from sft_atlas.study.paths import RESULTS

PLUGIN = "events"  # workflow_scripts/snakemake_logger_plugin_events
VARIABLE = "SFT_ATLAS_EVENTS"
STAGES = {
    "data": "Base models and data",
    "train": "Training",
    "evaluate": "Scoring",
    "measure": "Measuring",
    "tables": "Tables",
    "analyse": "Analyses",
    "report": "Figures and findings",
    "atlas": "Atlas",
}
OTHER = "Other jobs"
# Seconds of a job of the demo with its start, until one of its kind has finished here: means of the run in benchmarks/README.md, from the
# times in its logs/events.jsonl. Only their ratios count.
DEMO_SECONDS = {
    "pretrain_demo_model": 21.0,
    "train": 2.6,
    "evaluate": 1.2,
    "measure_representation": 0.6,
    "plot": 1.7,
    "fetch_benchmark": 3.2,
    "fetch_dataset": 2.2,
    "write_atlas": 5.7,
}
OTHERWISE = 0.3
OF_MODELS = ("train", "evaluate", "measure_representation")  # whose seconds depend on the size of the models
EVERY = 30  # seconds between lines of progress where output is no terminal
CONTINUE = "Finished jobs are kept, and training resumes from its last saved epoch. Go on with: {command}"


def kind(rule: str) -> str:
    """The job module behind a rule: `train_full` is `train`."""
    return next((rule[: len(name)] for name in ("train", "evaluate") if rule.startswith(f"{name}_")), rule)


@cache
def stage(rule: str) -> str:
    """The title of the stage that a rule belongs to, which is the room of its module."""
    module = job.modules().get(kind(rule), "..")
    return STAGES.get(module.split(".")[1], OTHER)


@dataclass
class Progress:
    """What is known of a run from the events of the plugin."""

    planned: Counter[str] = field(default_factory=Counter)  # jobs by rule
    done: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # of finished jobs by kind
    running: dict[int, tuple[str, float]] = field(default_factory=dict)  # job -> rule, when it started
    failed: int = 0
    busy: float = 0.0  # seconds of all jobs together
    began: float | None = None

    def see(self, event: dict) -> None:
        """Take note of an event."""
        now, what = event["time"], event["event"]
        if what == "run_info":
            modules = job.modules()
            targets = {"total", *(rule for rule in event["stats"] if kind(rule) not in modules)}
            self.planned = Counter({rule: count for rule, count in event["stats"].items() if rule not in targets})
            self.began = now
        elif what == "job_info" and event["rule_name"] in self.planned:  # not a target
            self.running[event["jobid"]] = (event["rule_name"], now)
        elif what == "job_finished" and event["job_id"] in self.running:
            rule, since = self.running.pop(event["job_id"])
            self.done[rule] += 1
            self.seconds[kind(rule)].append(now - since)
            self.busy += now - since
        elif what == "job_error":
            self.failed += 1
            self.running.pop(event["jobid"], None)

    def stages(self) -> dict[str, tuple[int, int]]:
        """Jobs done and planned of each stage, in the order of the chain."""
        counts: dict[str, tuple[int, int]] = {}
        for title in (*STAGES.values(), OTHER):
            rules = [rule for rule in self.planned if stage(rule) == title]
            if rules:
                counts[title] = (sum(self.done[rule] for rule in rules), sum(self.planned[rule] for rule in rules))
        return counts

    def seconds_left(self, now: float) -> float | None:
        """Wall seconds until the end; None while nothing is known about the jobs to come.

        Jobs of a kind of which one has finished take the mean of these. For the others, the demo's seconds are scaled to this machine by
        the kinds that have finished. The jobs side by side stay as many as they were.
        """
        if self.began is None or not self.seconds or not self.busy:
            return None
        known = {name: fmean(values) for name, values in self.seconds.items()}
        pace = sum(sum(values) for values in self.seconds.values()) / sum(
            len(values) * DEMO_SECONDS.get(name, OTHERWISE) for name, values in self.seconds.items()
        )
        if "pretrain_demo_model" not in self.planned and any(kind(rule) in OF_MODELS and kind(rule) not in known for rule in self.planned):
            return None  # models of another size: the demo's seconds say nothing
        expected = {rule: known.get(kind(rule), pace * DEMO_SECONDS.get(kind(rule), OTHERWISE)) for rule in self.planned}
        left = sum((count - self.done[rule]) * expected[rule] for rule, count in self.planned.items())
        spent = sum(min(now - since, expected.get(rule, 0.0)) for rule, since in self.running.values())
        side_by_side = max(1.0, (self.busy + spent) / max(now - self.began, 1e-9))
        return max(left - spent, 0.0) / side_by_side


def duration(seconds: float) -> str:
    """``40 s``, ``3 min`` or ``2 h 10 min``, rounded as an estimate should be."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def lines(progress: Progress, now: float) -> Iterator[str]:
    """The state of the run: one line per stage, then the whole."""
    for title, (done, planned) in progress.stages().items():
        yield f"  {title:<21} {done:>5,} of {planned:,}"
    yield "  " + whole(progress, now)


def whole(progress: Progress, now: float) -> str:
    """How far the run is, and the time left."""
    done, planned = progress.done.total(), progress.planned.total()
    left = progress.seconds_left(now)
    time_left = "" if done == planned else f"; about {duration(left)} left" if left is not None else "; time left: not known yet"
    failed = f"; {progress.failed} failed" if progress.failed else ""
    return f"{100 * done // max(planned, 1):.0f} % of {planned:,} jobs after {duration(now - (progress.began or now))}{time_left}{failed}"


class Plain:
    """Progress where output is no terminal: a line when a stage is complete, and one about the whole every half minute."""

    def __init__(self):
        self.complete: set[str] = set()
        self.last = time.time()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def say(self, text: str) -> None:
        print_to_terminal(text)

    def show(self, progress: Progress) -> None:
        now = time.time()
        for title, (done, planned) in progress.stages().items():
            if done == planned and title not in self.complete:
                self.complete.add(title)
                self.say(f"  {title:<21} {done:>5,} of {planned:,}")
                self.last = now
        if progress.began and now - self.last > EVERY:
            self.say("  " + whole(progress, now))
            self.last = now


class Live:
    """Progress on a terminal: the lines are drawn again in their place."""

    def __init__(self):
        from rich.console import Console
        from rich.live import Live as Drawing

        self.console = Console(file=sys.__stderr__, highlight=False)
        self.drawing = Drawing(console=self.console, refresh_per_second=1, transient=False)

    def __enter__(self):
        self.drawing.__enter__()
        return self

    def __exit__(self, *details) -> None:
        self.drawing.__exit__(*details)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def show(self, progress: Progress) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for title, (done, planned) in progress.stages().items():
            grid.add_row(Text(f"  {title}"), ProgressBar(total=planned, completed=done, width=30), Text(f"{done:,} of {planned:,}"))
        note = whole(progress, time.time()) if progress.began else "Snakemake works out which jobs to run ..."
        self.drawing.update(Group(grid, Text(f"  {note}")))


class Run:
    """Snakemake as a child process, its events, and what it prints in ``log``."""

    def __init__(self, arguments: list[str], log: Path):
        reading, writing = os.pipe()
        path = os.pathsep.join(filter(None, [str(job.PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {VARIABLE: str(writing), "PYTHONPATH": path}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as handle:
            self.start = handle.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments, "--logger", PLUGIN],
                stdout=handle, stderr=handle, stdin=subprocess.DEVNULL, env=environment, pass_fds=[writing],
            )  # fmt: skip
        os.close(writing)
        self.reading, self.log = reading, log

    def events(self) -> Iterator[dict]:
        """The events, until Snakemake ends."""
        with os.fdopen(self.reading, encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    def printed(self) -> str:
        """What Snakemake printed in this run."""
        with self.log.open(encoding="utf-8", errors="replace") as handle:
            handle.seek(self.start)
            return handle.read()


def explain(error: dict) -> str:
    """The message for a failed job: its log in full, and where it is."""
    parts = [f"\nFAILED: {error['rule_name']}, which makes {', '.join((error['output'] or ['nothing'])[:2])}"]
    for name in error["log"] or []:
        path = Path(name)
        text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else "(the job ended before it opened its log)"
        parts += [text, f"Log: {name}"]
    return "\n".join(parts)


def follow(run: Run, display, progress: Progress) -> int:
    """Show the run until it ends; returns Snakemake's exit code."""
    told: set[str] = set()
    ended = threading.Event()

    def redraw() -> None:
        while not ended.wait(1):
            display.show(progress)

    drawer = threading.Thread(target=redraw, daemon=True)
    drawer.start()
    for event in run.events():
        progress.see(event)
        if event["event"] == "job_error":
            display.say(explain(event))
        elif event["event"] == "message" and event["level"] == "WARNING" and event["text"] not in told:
            told.add(event["text"])
            display.say(event["text"])
    code = run.process.wait()
    ended.set()
    drawer.join()
    display.show(progress)
    return code


def ending(results: Path, log: Path) -> list[str]:
    """What was found, where to look, and what to try next."""
    atlas = results / "atlas/index.html"
    study = results.name
    if not (results / "findings.md").is_file():  # a stage before it was asked for
        return ["", f"Done. Results: {results}   Log: {log}"]
    return [
        "",
        *show_findings.in_short(results),
        "",
        "Where to look:",
        *([f"  {atlas.resolve()}   open it in a browser"] if atlas.is_file() else []),
        f"  {results}/findings.md   every finding with interval, p, q and n",
        f"  {results}/figures/   the figures, as PDF and PNG",
        f"  {log}   what Snakemake and its jobs printed",
        "What to try next:",
        f"  change a setting in config/{study}.yaml and run it again: only what it affects is rebuilt",
        f"  make plan STUDY={study}   what that would cost, before anything runs",
        "  README.md, `Add a model, a dataset and a benchmark`: your own in the same study",
    ]


def main(args: argparse.Namespace) -> None:
    config = Path(f"config/{args.study}.yaml")
    if not config.is_file():
        here = ", ".join(sorted(path.stem for path in config.parent.glob("*.yaml")))
        raise AtlasError(f"{config}: there is no such study file; the files there are {here}")
    results = Path(RESULTS.format(study=args.study))
    log = results / "logs/snakemake.log"
    command = f"make demo STUDY={args.study}" if args.study != "demo" else "make demo"
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(signal.SIGINT))  # the terminal sends it to Snakemake and its jobs too
    run = Run([*args.arguments, "--configfile", str(config)], log)
    signal.signal(signal.SIGTERM, lambda number, _: (stopped.append(number), run.process.send_signal(number)))
    progress = Progress()
    with (Live if sys.__stderr__.isatty() else Plain)() as display:
        code = follow(run, display, progress)
    if stopped:
        print_to_terminal(f"\nStopped. {CONTINUE.format(command=command)}")
        sys.exit(128 + stopped[0])
    if code:
        if not progress.failed:
            print_to_terminal(run.printed().strip())
        print_to_terminal(f"\nSnakemake ended with exit code {code}; its log: {log}")
        if progress.planned:
            print_to_terminal(CONTINUE.format(command=command))
        sys.exit(code)
    print_to_terminal("\n".join(ending(results, log)))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("study", help="the study config/STUDY.yaml")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="more arguments for Snakemake")
