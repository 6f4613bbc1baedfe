"""The plan as a Markdown page for people, and as a table."""

from collections.abc import Iterable

import polars as pl

from sft_atlas.cluster import requests
from sft_atlas.core import markdown
from sft_atlas.plan import cost
from sft_atlas.plan.cost import Triple
from sft_atlas.plan.forecast import Forecast, Job

TERABYTE, GIGABYTE = 1e12, 1e9


def too_large(forecast: Forecast) -> list[str]:
    """Runs that do not fit into the memory of the plan's devices."""
    return requests.too_large(requests.Needs(forecast, gpus=forecast.study.file.plan.device != "cpu"))


def page(forecast: Forecast) -> str:
    """The whole page."""
    study = forecast.study
    runs, checkpoints = len(study.runs), len(study.checkpoints) - len(study.models)
    lines = [
        f"# Plan of the study {study.name}",
        "",
        f"{len(study.models)} base models, {runs} training runs, {checkpoints:,} checkpoints; {len(study.file.suites)} suites. "
        f"Device: {forecast.device.label}, {study.file.plan.parallel} at work at once. Hours are device-hours, wall time times devices: likely (low to high).",
        "",
        *blocks(forecast),
        "",
        *kinds(forecast),
        "",
        *notes(forecast),
    ]
    return "\n".join(lines) + "\n"


def span(hours: Triple) -> str:
    """`likely (low to high)`, two digits each; a single number where the three agree."""
    low, likely, high = (f"{cost.rounded(value):,.10g}" for value in hours)
    return likely if low == high else f"{likely} ({low} to {high})"


def blocks(forecast: Forecast) -> list[str]:
    """Runs, checkpoints, tokens and hours by block; a run of several blocks counts in its first."""
    runs = forecast.study.runs.values()
    names = [*dict.fromkeys(run.blocks[0] for run in runs), "base models"]
    rows = []
    for name in names:
        own = [run for run in runs if run.blocks[0] == name]
        jobs = [job for job in forecast.jobs if job.blocks[0] == name]
        tokens = [forecast.run_tokens(run) for run in own]
        million = "?" if None in tokens else f"{sum(t[1] for t in tokens) / 1e6:,.3g}" if own else "-"
        rows.append([name, len(own), sum(len(run.settings.kept_epochs) for run in own), million, *shares(forecast, jobs)])
    jobs = forecast.jobs
    million = "" if any(row[3] == "?" for row in rows) else f"{sum(forecast.run_tokens(run)[1] for run in runs) / 1e6:,.4g}"
    rows.append(["all", sum(row[1] for row in rows), sum(row[2] for row in rows), million, *shares(forecast, jobs)])
    head = ["block", "runs", "checkpoints", "million tokens trained", "training h", "scoring h", "measuring h"]
    return markdown.table(head, rows, align="lr")


def shares(forecast: Forecast, jobs: list[Job]) -> list[str]:
    """Hours of training, scoring and measuring among jobs; `?` where some cannot be forecast."""
    shown = []
    for prefix in ("train", "evaluate", "measure"):
        part = [job for job in jobs if job.kind.startswith(prefix)]
        unknown = any(job.seconds is None for job in part)
        shown.append("-" if not part else "?" if unknown else span(forecast.hours(part)))
    return shown


def kinds(forecast: Forecast) -> list[str]:
    """Jobs of each kind: how many, done, to do, to do again, and what the rest costs."""
    rows = []
    for kind in dict.fromkeys(job.kind for job in forecast.jobs):
        jobs = [job for job in forecast.jobs if job.kind == kind]
        again = [job for job in jobs if job.again]
        left = [job for job in jobs if not job.done or job.again]
        hours = "?" if any(job.seconds is None for job in left) else span(forecast.hours(left))
        basis = "measured" if kind in forecast.corrections else "assumed"
        rows.append([kind, len(jobs), sum(job.done for job in jobs), len(left) - len(again), len(again), hours, basis])
    return markdown.table(["jobs", "number", "done", "to do", "again", "hours left", "basis"], rows, align="lr")


def notes(forecast: Forecast) -> list[str]:
    """Time, disk, comparisons, and what a reader must know."""
    study, plan = forecast.study, forecast.study.file.plan
    left = [job for job in forecast.jobs if not job.done or job.again]
    chain, large = forecast.longest_chain(), too_large(forecast)
    finish = tuple(max(one, other) for one, other in zip(chain, cost.scale(forecast.hours(left), 1 / plan.parallel), strict=True))
    lines = [
        f"- Longest chain: {span(chain)} h of wall time. Everything left on {plan.parallel} devices, without queueing: at least {span(finish)} h.",
        "- Disk: "
        + "; ".join(f"{name} {size(value)}" for name, value in forecast.disk().items())
        + f" (`keep_weights: {study.file.keep_weights}`).",
    ]
    if large:
        lines.append(
            f"- **{len(large)} runs do not fit** into the memory of their GPUs ({forecast.device.label}): weights, gradients and Adam's moments "
            f"alone are larger. Give their recipe more `gpus`, or `weights: bfloat16`: {some(large)}."
        )
    if forecast.again:
        jobs = [job for job in forecast.jobs if job.again]
        lines.append(
            f"- **Trained again: {len(forecast.again)} runs, {span(forecast.hours(jobs))} h with what follows from them.** "
            f"Something new is asked of checkpoints whose full weights were deleted (`keep_weights: {study.file.keep_weights}`): "
            + some("/".join(key) for key in sorted(forecast.again))
            + "."
        )
    lines += [f"- {line}" for line in comparisons(forecast)]
    if unpinned := forecast.unpinned():
        lines.append(f"- Not pinned to a commit, so their content may change: {some(unpinned, 12)}. `make pin` writes the commits.")
    unknown = {job.kind for job in forecast.jobs if job.seconds is None}
    if unknown:
        lines.append(
            f"- `?`: the study does not say enough to forecast {', '.join(sorted(unknown))}; see `plan.tokens`, `plan.load`, `parameters`."
        )
    for kind, (low, likely, high) in forecast.corrections.items():
        lines.append(
            f"- {kind}: finished jobs took {likely:.2f} ({low:.2f} to {high:.2f}) times the assumptions; forecasts are scaled by that."
        )
    device = forecast.device
    lines += [
        f"- Assumed of {device.label} (`config/devices.yaml`), low / likely / high: {device.peak_tflops:g} TFLOP/s peak, of which full "
        f"{triple(device.mfu_full)}, LoRA {triple(device.mfu_lora)}, reading {triple(device.mfu_score)}; {triple(device.decode_tokens_per_second)} "
        f"generated tokens/s of a 7-billion-parameter model; start {triple(device.start_seconds)} s. Hidden states and likelihoods are read in "
        f"float32: the same share of {device.float32_tflops:g} TFLOP/s.",
        *sharded(forecast),
        "- An interval of assumptions takes all cheap or all dear cases together; one of measured jobs is the 95 % bootstrap interval of their mean.",
        "- Done means that the files are there; `snakemake -n` says what a change of settings makes again. Judging by an API and CPU jobs are not counted.",
    ]
    return lines


def sharded(forecast: Forecast) -> list[str]:
    """What is assumed of runs on several devices, where there are any."""
    counts = sorted({run.settings.gpus for run in forecast.study.runs.values()} - {1})
    several = " or ".join(map(str, counts))
    return [f"- Runs on {several} devices (`gpus`) are assumed to reach the same share of each device's peak as on one."] if counts else []


def comparisons(forecast: Forecast) -> list[str]:
    """The study's own totals beside figures from elsewhere."""
    jobs = forecast.jobs
    totals = {
        "train_gpu_hours": ("training, device-hours", span(forecast.hours([job for job in jobs if job.kind.startswith("train")]))),
        "evaluate_gpu_hours": ("scoring, device-hours", span(forecast.hours([job for job in jobs if job.kind.startswith("evaluate")]))),
        "gpu_hours": ("all jobs, device-hours", span(forecast.hours(jobs))),
        "disk_tb": ("disk, TB", f"{(forecast.disk()['peak without temp()'] or float('nan')) / TERABYTE:.3g} without temp()"),
    }
    return [
        f"Elsewhere, {totals[c.what][0]}: {c.value:,.10g} ({c.source}); here {totals[c.what][1]}." for c in forecast.study.file.plan.compare
    ]


def size(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value / TERABYTE:.3g} TB" if value >= TERABYTE / 2 else f"{value / GIGABYTE:.3g} GB"


def triple(values: Triple) -> str:
    return " / ".join(f"{value:g}" for value in values)


def some(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def jobs_table(forecast: Forecast) -> pl.DataFrame:
    """One row per block and kind of job: jobs, done, again, too large for their devices, and device-hours (null where not forecast)."""
    rows, large = [], {f"train/{run}.log" for run in too_large(forecast)}
    for block, kind in dict.fromkeys((job.blocks[0], job.kind) for job in forecast.jobs):
        jobs = [job for job in forecast.jobs if (job.blocks[0], job.kind) == (block, kind)]
        known = all(job.seconds for job in jobs)
        hours = forecast.hours(jobs) if known else (None, None, None)
        counts = (sum(job.done for job in jobs), sum(job.again for job in jobs), sum(job.log in large for job in jobs))
        rows.append((block, kind, len(jobs), *counts, *hours))
    whole, real = pl.Int64, pl.Float64
    schema = {
        "block": pl.String,
        "kind": pl.String,
        "jobs": whole,
        "done": whole,
        "again": whole,
        "too_large": whole,
        "hours_low": real,
        "hours": real,
        "hours_high": real,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
