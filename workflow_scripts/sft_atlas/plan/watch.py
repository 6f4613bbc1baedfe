"""Show how far a run is while it goes on, in the terminal and as a page that refreshes itself: results/{study}/watch.html.

    python workflow_scripts/run.py watch demo          until the run ends; `make watch STUDY=demo` and `snakemake watch` do the same
    python workflow_scripts/run.py watch demo --once   one look

It reads what the running Snakemake and its jobs write, so it needs neither Snakemake's lock nor a server. On a cluster run it on the login node.
"""

import argparse
import base64
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core import markdown
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_text
from sft_atlas.core.log import print_to_terminal
from sft_atlas.plan import progress
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.own_data import OwnData
from sft_atlas.plan.plan import span
from sft_atlas.plan.progress import DONE, FAILED, RUNNING, STATES, Run
from sft_atlas.study.paths import RESULTS, Paths
from sft_atlas.study.site import device

TEMPLATE = Path(__file__).with_suffix(".html")
# The page reloads itself unless its reader stops that; its Content-Security-Policy allows this script alone.
SCRIPT = """
const still = document.getElementById("still");
let timer;
function wait() {
  clearTimeout(timer);
  if (!still.checked) timer = setTimeout(() => location.reload(), 1000 * document.body.dataset.seconds);
}
still.checked = location.hash === "#still";
still.addEventListener("change", () => { location.hash = still.checked ? "still" : ""; wait(); });
wait();
"""
SLOWEST = 20  # times what one look takes is the least time between two
MOST = 20  # failures that are shown


@dataclass
class Look:
    """A run at one moment, with the hours that the plan forecasts for what is left."""

    run: Run
    forecast: Forecast
    at: float

    @classmethod
    def now(cls, root: Path, devices: Path) -> "Look":
        run = progress.read(root)
        own = OwnData(run.study, Paths(root))
        return cls(run, Forecast(run.study, device(devices, run.device, "plan.device"), root, run.decisions(), own), time.time())

    def hours(self, block: str) -> str:
        """Device-hours left of a block; empty for jobs that the plan does not forecast."""
        jobs = [job for job in self.forecast.jobs if job.blocks[0] == block]
        left = [job for job in jobs if job.left]
        return "" if not jobs else "?" if any(job.seconds is None for job in left) else span(self.forecast.hours(left))

    @property
    def time_left(self) -> str:
        """Wall hours until the end by the plan."""
        if not self.run.total.keys() - {DONE}:
            return "nothing is left"
        if any(job.left and job.seconds is None for job in self.forecast.jobs):
            return "the study file says too little to forecast the time left"
        parallel = self.run.study.file.plan.parallel
        return (
            f"{span(self.forecast.time_left())} h left by the plan, on {parallel} {'device' if parallel == 1 else 'devices'}; running jobs count in "
            "full, jobs without a model do not count"
        )

    @property
    def status(self) -> str:
        """One line about the run."""
        run, total = self.run, self.run.total
        share = f"{total[DONE]:,} of {total.total():,} jobs done"
        began = f"began {clock(run.began)}"
        return {
            RUNNING: f"running on {run.host}, {began}; {share}; last event {clock(run.last)}",
            DONE: f"finished {clock(run.last)}, {began}; {share}",
            FAILED: f"ended with errors {clock(run.last)}, {began}; {share}",
        }.get(run.status, f"killed after {clock(run.last)}, {began}; {share}. Start Snakemake again: finished jobs are kept")

    @property
    def rows(self) -> list[list[object]]:
        """One row per block: its name, jobs by state, device-hours left."""
        return [[name, *(count[state] for state in STATES), self.hours(name)] for name, count in self.run.counts.items()]


def clock(seconds: float) -> str:
    """A moment, as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def lines(look: Look) -> list[str]:
    """A look for a terminal."""
    run = look.run
    text = [f"{run.study.name}: {look.status}", look.time_left, ""]
    text += markdown.table(
        ["block", *STATES, "device-hours left"], [*look.rows, ["all", *(run.total[state] for state in STATES), ""]], align="lr"
    )
    text += ["", "Last losses:"] if (losses := run.losses()) else []
    for loss in losses:
        steps = f"{loss.step:,}" if loss.steps in (None, loss.step) else f"{loss.step:,} of {loss.steps:,}"
        held_out = "" if loss.validation is None else f", validation {loss.validation:.4g}"
        text.append(f"  {loss.run}: {loss.loss:.4g}{held_out} at step {steps} ({loss.state})")
    text += ["", "Failed:"] if (failures := run.failures) else []
    for job, last in failures[:MOST]:
        text += [f"  {job.rule}: {last}", f"    log: {job.log}"]
    if len(failures) > MOST:
        text.append(f"  and {len(failures) - MOST:,} more")
    return text


def page(look: Look, seconds: int) -> str:
    """A look as a page; while the run goes on, it reloads itself every ``seconds``."""
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        look=look, run=look.run, states=STATES, failures=look.run.failures, losses=look.run.losses(), most=MOST, clock=clock,
        seconds=seconds, going=look.run.status == RUNNING, script=SCRIPT, digest=digest,
    )  # fmt: skip


def main(args: argparse.Namespace) -> None:
    root = Path(RESULTS.format(study=args.study)) if "/" not in args.study else Path(args.study)
    output = Path(Paths(root).watch)
    shown = None
    try:
        while True:
            began = time.monotonic()
            look = Look.now(root, args.devices)
            write_text(output, page(look, args.every))
            state = (look.run.status, look.rows, look.run.losses())
            if state != shown:
                print_to_terminal(
                    "\n".join(lines(look)) + ("\n" if shown else f"\n\nThe page, which refreshes itself: {output.resolve()}\n")
                )
                shown = state
            if args.once or look.run.status != RUNNING:
                return
            time.sleep(max(args.every, SLOWEST * (time.monotonic() - began)))
    except KeyboardInterrupt:
        raise AtlasError("stopped watching; the run goes on") from None


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("study", help="the study's name, or its folder of results")
    p.add_argument("--once", action="store_true", help="look once instead of until the run ends")
    p.add_argument("--every", type=int, default=15, help="seconds between two looks (default: 15)")
    p.add_argument("--devices", type=Path, default=Path("config/devices.yaml"), help="config/devices.yaml")
