"""Forecast a study: its jobs, what is done, to do and to do again, and why; the cost in device-hours, disk and time."""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_atlas.core import markdown
from sft_atlas.core.files import write_table, write_text
from sft_atlas.core.job import long_text
from sft_atlas.core.log import print_to_terminal
from sft_atlas.core.markdown import bullets
from sft_atlas.models.size import BFLOAT16_ROUNDING
from sft_atlas.plan import cost, graph
from sft_atlas.plan.cost import Triple
from sft_atlas.plan.design import shortcomings
from sft_atlas.plan.forecast import OUTSIDE, Forecast, Job, unlikely_to_move
from sft_atlas.plan.graph import AGAIN, DONE, TO_DO, Decision, first_of, in_words
from sft_atlas.plan.own_data import OwnData
from sft_atlas.study import shared_items
from sft_atlas.study.checks import unpinned
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import Run
from sft_atlas.study.site import device, rate_sources
from sft_atlas.study.study import from_config

TERABYTE, GIGABYTE = 1e12, 1e9
GROUPS = 12  # of jobs with the same causes that the page shows


def page(forecast: Forecast, sources: dict[str, str] | None = None, published: Path | None = None) -> str:
    """The plan as a Markdown page; ``sources`` says where the rates of each engine are from, ``published`` is the table of published scores."""
    study = forecast.study
    checkpoints = len(study.checkpoints) - len(study.models)
    sections = {
        "Cost by block": [
            "Hours are device-hours, wall time times devices: likely (low to high). A run in several blocks counts in the first.",
            "",
            *block_table(forecast),
        ],
        "Jobs": job_table(forecast),
        "Again, and why": again(forecast),
        "Scoring with each inference engine": engines(forecast),
        "Time and disk": time_and_disk(forecast),
        "Warnings": warnings(forecast),
        "What it can show": bullets(f"{line}." for line in shortcomings(study, Path(forecast.paths.root), published)),
        "Compared with other sources": comparisons(forecast),
        "Assumptions": assumptions(forecast, sources or {}),
    }
    lines = [
        f"# Plan of study {study.name}",
        "",
        f"{len(study.models):,} base models, {len(study.runs):,} training runs, {checkpoints:,} checkpoints and {len(study.file.suites)} suites of "
        f"benchmarks, on {study.file.plan.parallel} devices at a time ({forecast.device.label}).",
    ]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body] if body else []
    return "\n".join(lines) + "\n"


def block_table(forecast: Forecast) -> list[str]:
    """Runs, seeds of each base model, training set and recipe, checkpoints, tokens and hours of each block."""
    runs = forecast.study.runs.values()
    outside = forecast.study.outside.values()
    names = [*dict.fromkeys(run.blocks[0] for run in runs), *([OUTSIDE] if outside else []), "base models"]
    seeds = Counter((run.model, run.dataset, run.recipe) for run in runs)
    rows = []
    for name in names:
        members = [run for run in runs if run.blocks[0] == name]
        jobs = [job for job in forecast.jobs if job.blocks[0] == name]
        checkpoints = len(outside) if name == OUTSIDE else sum(len(run.settings.kept_epochs) for run in members)
        counts = {seeds[run.model, run.dataset, run.recipe] for run in members}
        each = " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "-"
        rows.append([name, len(members), each, checkpoints, million_tokens(forecast, members), *stage_hours(forecast, jobs)])
    runs_in_all, checkpoints_in_all = (sum(row[column] for row in rows) for column in (1, 3))
    rows.append(["all", runs_in_all, "", checkpoints_in_all, million_tokens(forecast, runs), *stage_hours(forecast, forecast.jobs)])
    return markdown.table(
        ["block", "runs", "seeds", "checkpoints", "million tokens", "training h", "scoring h", "measuring h"], rows, align="lr"
    )


def million_tokens(forecast: Forecast, runs: Iterable[Run]) -> str:
    """Millions of tokens that runs train on, all epochs together; `?` where a training set's tokens are not stated."""
    tokens = [forecast.run_tokens(run) for run in runs]
    return "-" if not tokens else "?" if None in tokens else f"{sum(likely for _, likely, _ in tokens) / 1e6:,.4g}"


def stage_hours(forecast: Forecast, jobs: list[Job]) -> list[str]:
    """Hours of training, scoring and measuring among jobs; `?` where some cannot be forecast."""
    stages = [[job for job in jobs if job.kind.startswith(stage)] for stage in ("train", "evaluate", "measure")]
    return [hours_of(forecast, stage) if stage else "-" for stage in stages]


def hours_of(forecast: Forecast, jobs: list[Job]) -> str:
    return "?" if any(job.seconds is None for job in jobs) else span(forecast.hours(jobs))


def span(hours: Triple) -> str:
    """`likely (low to high)`, two digits each; a single number where the three agree."""
    low, likely, high = (f"{cost.round_digits(value):,.10g}" for value in hours)
    return likely if low == high else f"{likely} ({low} to {high})"


def job_table(forecast: Forecast) -> list[str]:
    """Jobs of each kind: how many, how many are done, to do and to do again, and the hours that are left."""
    rows = []
    for kind in dict.fromkeys(job.kind for job in forecast.jobs):
        jobs = [job for job in forecast.jobs if job.kind == kind]
        left = [job for job in jobs if job.left]
        source = "logs" if any(map(forecast.is_from_logs, jobs)) else "assumptions"
        rows.append([kind, len(jobs), *by_state(job.state for job in jobs), hours_of(forecast, left), source])
    for rule, decisions in without_device(forecast).items():
        rows.append([rule, len(decisions), *by_state(decision.state for decision in decisions), "-", "-"])
    rows.append(["all", *(sum(row[column] for row in rows) for column in (1, 2, 3, 4)), "", ""])
    return markdown.table(["job", "number", "done", "to do", "again", "hours left", "forecast from"], rows, align="lr")


def by_state(states: Iterable[str]) -> list[int]:
    """How many are done, to do, and to do again."""
    count = Counter(states)
    return [count[DONE], count[TO_DO], count[AGAIN]]


def without_device(forecast: Forecast) -> dict[str, list[Decision]]:
    """Jobs of which no time is forecast, by rule."""
    logs, rest = {os.path.normpath(job.log) for job in forecast.jobs}, {}
    for log, decision in (forecast.decisions or {}).items():
        if log not in logs:
            rest.setdefault(decision.rule, []).append(decision)
    return dict(sorted(rest.items()))


def again(forecast: Forecast) -> list[str]:
    """Jobs that are done again, together with those that have the same causes; what takes longest comes first."""
    jobs = {os.path.normpath(job.log): job for job in forecast.jobs}
    groups: dict[tuple[str, ...], list[tuple[str, Job | None]]] = {}
    for log, decision in (forecast.decisions or {}).items():
        if decision.state == AGAIN:
            job = jobs.get(log)
            groups.setdefault(decision.causes, []).append((job.kind if job else decision.rule, job))
    lines = []
    for causes, members in groups.items():
        on_device = [job for _, job in members if job]
        seconds = sum(job.device_seconds[1] for job in on_device if job.seconds)
        # Jobs that take time first, then those of a processor, as many as a line holds.
        kinds = Counter(kind for kind, job in sorted(members, key=lambda member: (member[1] is None, member[0])))
        hours = f", {hours_of(forecast, on_device)} h" if on_device else ""
        text = first_of((f"{count:,} {kind}" for kind, count in kinds.items()), 4)
        lines.append((-seconds, -len(members), f"- **{text} again**{hours}, because {in_words(causes)}."))
    shown = [line for *_, line in sorted(lines)[:GROUPS]]
    return [*shown, f"- And {len(lines) - GROUPS:,} more groups of jobs with other causes."] if len(lines) > GROUPS else shown


def engines(forecast: Forecast) -> list[str]:
    """Device-hours of all scores, done ones too, with each engine that the table of devices has a rate of.

    Each row is from the assumptions; the engines that the study uses have a row of their own, with what logs say.
    """
    names = list(forecast.device.decode_tokens_per_second)
    if len(names) < 2:
        return []
    own = sorted({forecast.engine(suite) for suite in forecast.study.file.suites})
    rows = []
    for name in names:
        other = Forecast(forecast.study, forecast.device, Path(forecast.paths.root), None, forecast.own, name)
        rows.append([f"{name}, all suites", *_scoring_hours(forecast, other, other.assumed)])
    rows.append([f"this plan: {', '.join(own)}", *_scoring_hours(forecast, forecast, forecast.jobs)])
    notes = "Rates are those of `config/devices.yaml`; their sources are under Assumptions. vLLM applies adapters in the base model's type, in which small updates are rounded (docs/scoring.md); the others merge them in float32."
    return [*markdown.table(["engine", "base models and full weights h", "adapters h", "all h"], rows, align="lr"), "", notes]


def _scoring_hours(forecast: Forecast, other: Forecast, jobs: list[Job]) -> list[str]:
    """Hours of scoring checkpoints with full weights, of those with adapters, and of both."""
    scoring = [job for job in jobs if job.kind.startswith("evaluate ")]
    lora = {str(other.log_of(c, suite)) for c, suite in other.scorings() if other.is_adapter(c)}
    parts = [[job for job in scoring if str(job.log) not in lora], [job for job in scoring if str(job.log) in lora], scoring]
    return [hours_of(forecast, part) if part else "-" for part in parts]


def time_and_disk(forecast: Forecast) -> list[str]:
    """When the study could be finished, and the disk that it needs."""
    parallel, chain = forecast.study.file.plan.parallel, forecast.longest_chain()
    disk = "; ".join(f"{name} {size(value)}" for name, value in forecast.disk().items())
    return [
        f"- Time left on {parallel} devices: at least {span(forecast.time_left())} h, without waiting in a queue. More devices cannot finish before "
        f"the longest chain of jobs, {span(chain)} h.",
        f"- Disk: {disk} (`keep_weights: {forecast.study.file.keep_weights}`).",
    ]


def size(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value / TERABYTE:.3g} TB" if value >= TERABYTE / 2 else f"{value / GIGABYTE:.3g} GB"


def warnings(forecast: Forecast) -> list[str]:
    """Runs that do not fit, sources that are read twice, entries without a commit, jobs that cannot be forecast."""
    lines = []
    if large := too_large(forecast):
        lines.append(
            f"- **{len(large):,} runs do not fit into GPU memory** ({forecast.device.label}): weights, gradients and Adam's moments alone are "
            f"larger. Give their recipe more `gpus`, or `weights: bfloat16`: {first_of('/'.join(run.key) for run in large)}."
        )
    if still := unlikely_to_move(forecast.study):
        lines.append(
            f"- **{len(still):,} runs are unlikely to move their model**: at their learning rate, their steps change weights by at most"
            f" {max(share for _, share in still):.2g} of their size, less than the rounding of bfloat16 weights ({BFLOAT16_ROUNDING:.2g}). Raise"
            f" `learning_rate` or `epochs`: {first_of('/'.join(run.key) for run, _ in still)}."
        )
    lines += [f"- {line}." for line in forecast.study.warnings()]
    lines += [f"- {line}." for line in shared_items.warnings(forecast.study, Path(forecast.paths.root))]
    if moving := unpinned(forecast.study.file):
        lines.append(f"- Not pinned to a commit, so their content may change: {first_of(moving, 12)}. `make pin` writes the commits.")
    if unknown := {job.kind for job in forecast.jobs if job.seconds is None}:
        lines.append(
            f"- `?`: the study states too little to forecast {', '.join(sorted(unknown))}; see `plan.tokens`, `plan.load`, `parameters`."
        )
    return lines


def too_large(forecast: Forecast) -> list[Run]:
    """Runs that do not fit into the memory of the plan's devices; of a CPU, whose memory is the machine's, nothing is known."""
    return [] if forecast.study.file.plan.device == "cpu" else forecast.too_large()


def comparisons(forecast: Forecast) -> list[str]:
    """The study's totals beside those of other sources."""
    jobs = forecast.jobs
    disk = forecast.disk()["peak without deleting weights"] or float("nan")
    totals = {
        "train_gpu_hours": ("training, device-hours", span(forecast.hours([job for job in jobs if job.kind.startswith("train")]))),
        "evaluate_gpu_hours": ("scoring, device-hours", span(forecast.hours([job for job in jobs if job.kind.startswith("evaluate")]))),
        "gpu_hours": ("all jobs, device-hours", span(forecast.hours(jobs))),
        "disk_tb": ("disk without deleting weights, TB", f"{disk / TERABYTE:.3g}"),
    }
    rows = [(*totals[other.what], f"{other.value:,.10g}", other.source) for other in forecast.study.file.plan.compare]
    return markdown.table(["total", "this plan", "elsewhere", "source"], rows, align="lrrl") if rows else []


def assumptions(forecast: Forecast, sources: dict[str, str]) -> list[str]:
    """Where the numbers come from; ``sources``: of the rates of each engine."""
    on, plan = forecast.device, forecast.study.file.plan
    lines = [
        f"- {on.label} (`config/devices.yaml`), low / likely / high: {on.peak_tflops:g} TFLOP/s in bfloat16, of which full fine-tuning reaches "
        f"{estimate(on.mfu_full)}, LoRA {estimate(on.mfu_lora)} and prefill {estimate(on.mfu_score)}; generated tokens/s with 7 billion "
        f"parameters: {'; '.join(f'{name} {estimate(rate)}' for name, rate in on.decode_tokens_per_second.items())}; "
        f"{estimate(on.start_seconds)} s to start a job. Hidden states and likelihoods are computed in float32, at the same share of "
        f"{on.float32_tflops:g} TFLOP/s, and so are scores of adapters but with vLLM; they generate at half the rate.",
    ]
    lines += [f"- Rates of {name}: {source}" for name, source in sources.items() if name in on.decode_tokens_per_second]
    if several := sorted({run.settings.gpus for run in forecast.study.runs.values()} - {1}):
        lines.append(f"- Runs on {' or '.join(map(str, several))} devices (`gpus`) are assumed to be as efficient as runs on one.")
    for kind, (low, likely, high) in forecast.corrections.items():
        lines.append(
            f"- {kind}: finished jobs took {likely:.2f} ({low:.2f} to {high:.2f}) times as long as assumed; the forecast is scaled by that."
        )
    return [
        *lines,
        "- Parameters and tokens of models, training sets and runs that are there are counted in their files; others are those of the study file.",
        "- Low and high take all assumptions at their low or high case together. Where logs replace them, the range is the 95 % bootstrap "
        "interval of the mean.",
        "- Done, to do and again are what Snakemake decided, as in `snakemake -n`. Of CPU jobs and of judges behind an API no time is "
        f"forecast. {plan.parallel} devices at a time: `plan.parallel`.",
    ]


def estimate(values: Triple) -> str:
    return " / ".join(f"{value:g}" for value in values)


def plan_table(forecast: Forecast) -> pl.DataFrame:
    """One row per block and kind of job: counts, and device-hours, null where they are not forecast; ``block`` is null for jobs of a processor."""
    rows, large = [], {Path(forecast.paths.log("train", *run.key)) for run in too_large(forecast)}
    for block, kind in dict.fromkeys((job.blocks[0], job.kind) for job in forecast.jobs):
        jobs = [job for job in forecast.jobs if (job.blocks[0], job.kind) == (block, kind)]
        hours = forecast.hours(jobs) if all(job.seconds for job in jobs) else (None, None, None)
        rows.append((block, kind, len(jobs), *by_state(job.state for job in jobs), sum(job.log in large for job in jobs), *hours))
    for rule, decisions in without_device(forecast).items():
        rows.append((None, rule, len(decisions), *by_state(decision.state for decision in decisions), 0, None, None, None))
    schema = {"block": pl.String, "kind": pl.String}
    schema |= dict.fromkeys(("jobs", "done", "to_do", "again", "too_large"), pl.Int64)
    schema |= dict.fromkeys(("hours_low", "hours", "hours_high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def main(args: argparse.Namespace) -> None:
    study, paths = from_config(json.loads(args.study), "the study"), Paths(args.results)
    on = device(args.devices, study.file.plan.device, "plan.device")
    forecast = Forecast(study, on, args.results, graph.read(args.graph), OwnData(study, paths))
    text = page(forecast, rate_sources(args.devices), args.published)
    write_table(Path(paths.plan_table), plan_table(forecast))
    write_text(Path(paths.plan), text)
    print_to_terminal(f"{text}\nWritten to {paths.plan} and {paths.plan_table}")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=long_text, required=True, help="the study file's content, as JSON; -: standard input")
    p.add_argument("--devices", type=Path, required=True, help="config/devices.yaml")
    p.add_argument("--results", type=Path, required=True, help="results/{study}")
    p.add_argument("--published", type=Path, help="published scores of single training sets, used where they are there")
    p.add_argument("--graph", type=Path, required=True, help="what Snakemake decided about each job, as `snakemake plan` writes it")
