"""The forecast of a study: its jobs on a device and what each should cost.

Which jobs are done, to do or to do again is what Snakemake decided (:mod:`sft_atlas.plan.graph`). Files and logs of finished jobs replace the
assumptions.
"""

import os
import random
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sft_atlas.models.size import (
    BFLOAT16_ROUNDING,
    BYTES,
    adapter_parameters,
    checkpoint_bytes,
    largest_relative_update,
    resume_states_bytes,
    tiny_parameters,
    width,
)
from sft_atlas.plan import cost
from sft_atlas.plan.cost import ZERO, Triple, add
from sft_atlas.plan.graph import AGAIN, DONE, TO_DO, Decision
from sft_atlas.plan.own_data import OwnData
from sft_atlas.study.backends import backend_of_results, default_backend
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE, Checkpoint, Run
from sft_atlas.study.schema import Device
from sft_atlas.study.study import Study

ITEM_TOKENS: Triple = (50, 200, 600)  # of a benchmark item whose load the study does not state
CLOSING_LINE = re.compile(r"done in ([0-9.]+) s wall")
ENOUGH = 3  # finished jobs of a kind before their logs replace the assumptions
RESAMPLES = 400


@dataclass(frozen=True)
class Job:
    """One job: wall ``seconds`` (low, likely, high) on ``gpus`` devices; None where the study does not say enough to forecast it."""

    kind: str  # train full, train lora, evaluate {suite}, measure_representation, measure_perplexity
    blocks: tuple[str, ...]
    seconds: Triple | None
    log: Path
    model: str
    gpus: int = 1
    state: str = TO_DO

    @property
    def left(self) -> bool:
        """Whether the job has to run."""
        return self.state != DONE

    @property
    def device_seconds(self) -> Triple:
        return cost.scale(self.seconds, self.gpus)


def unlikely_to_move(study: Study) -> list[tuple[Run, float]]:
    """Runs whose rate and steps can change weights by less than the rounding of bfloat16, and by how much at most, relative to their size.

    Training warns about them with the exact number of samples. Here a full run of a model of unknown size counts as one of 7 billion.
    """
    found = []
    for run in study.runs.values():
        samples = run.settings.rows * max(1, len(study.members(run.dataset)))
        model = study.all_models[run.model]
        wide = model.pretrain.hidden_size if model.pretrain else width(model.parameters or 7e9)
        largest = largest_relative_update(run.settings, samples, wide)
        if largest < BFLOAT16_ROUNDING:
            found.append((run, largest))
    return found


OUTSIDE = "checkpoints trained elsewhere"
RANK = 16  # of their adapters, which nobody states; for the disk alone


class Forecast:
    """Jobs, disk and longest chain of a study with results under ``root``; ``device`` is what they run on.

    ``decisions``: what Snakemake decided about each job of the call. A job that is not among them is left out; without them all are to do.
    ``own``: sizes from the study's own results, which go before those of the study file. ``engine``: score every suite with this one.
    """

    def __init__(
        self,
        study: Study,
        device: Device,
        root: Path,
        decisions: Iterable[Decision] | None = None,
        own: OwnData | None = None,
        engine: str | None = None,
    ):
        self.study, self.device, self.paths, self.own, self.forced = study, device, Paths(root), own, engine
        self.decisions = None if decisions is None else {os.path.normpath(decision.log): decision for decision in decisions}

    # ------------------------------------------------------------ sizes

    def parameters(self, model: str) -> float | None:
        """Number of parameters of a base model: of its weights, as the study states it, or as its pre-training makes it."""
        if self.own and (counted := self.own.parameters(model)):
            return counted
        entry = self.study.all_models[model]
        if entry.pretrain:
            return tiny_parameters(entry.pretrain.hidden_size, entry.pretrain.layers, entry.pretrain.vocabulary)
        return entry.parameters

    def tokens(self, dataset: str, rows: int) -> Triple | None:
        """Tokens of one pass over a training set (``rows`` of each member of a merge)."""
        members = self.study.members(dataset) or (dataset,)
        counted = [self.own and self.own.row_tokens(member) for member in members]
        stated = [own or self.study.file.plan.tokens.get(member) for own, member in zip(counted, members, strict=True)]
        return None if None in stated else cost.scale(add(stated), rows)

    def run_tokens(self, run: Run) -> Triple | None:
        """Tokens that a run trains on, all epochs together."""
        if self.own and (counted := self.own.run_tokens(run)):
            return (counted,) * 3
        tokens = self.tokens(run.dataset, run.settings.rows)
        return tokens and cost.scale(tokens, run.settings.epochs)

    # ------------------------------------------------------------ jobs

    @cached_property
    def assumed(self) -> list[Job]:
        """Every job on a device, forecast from the assumptions alone."""
        jobs = [*self._trainings(), *self._checkpoints(), *self._perplexities()]
        if self.decisions is None:
            return jobs
        return [
            replace(job, state=decision.state) for job in jobs if (decision := self.decisions.get(os.path.normpath(job.log))) is not None
        ]

    @cached_property
    def _logged(self) -> list[tuple[Job, float]]:
        """Jobs that have finished before, also those to do again, with the wall seconds that they took."""
        finished = [job for job in self.assumed if job.state in (DONE, AGAIN)]
        return [(job, seconds + self._in_batch(job)) for job in finished if (seconds := logged_seconds(job.log)) is not None]

    def _in_batch(self, job: Job) -> float:
        """Wall seconds that the rule `answer_adapters` spent for a job that scores a checkpoint."""
        if not job.kind.startswith("evaluate "):
            return 0.0
        rule = Path(os.path.relpath(job.log, f"{self.paths.root}/logs")).parts[0]
        return logged_seconds(Path(str(job.log).replace(f"/logs/{rule}/", "/logs/answer_adapters/", 1))) or 0.0

    @cached_property
    def corrections(self) -> dict[str, Triple]:
        """Factor on the forecast of each kind of job of which enough are finished, from their logs."""
        pairs = defaultdict(list)
        for job, measured in self._logged:
            if job.seconds:
                pairs[job.kind].append((measured * job.gpus, job.device_seconds[1]))
        factors = {kind: correction_factor(of_kind) for kind, of_kind in pairs.items()}
        return {kind: factor for kind, factor in factors.items() if factor}

    @cached_property
    def measured(self) -> dict[str, list[float]]:
        """Device-seconds per parameter of the finished jobs of each kind, for those of which the study states too little to forecast them."""
        found = defaultdict(list)
        for job, seconds in self._logged:
            found[job.kind].append(seconds * job.gpus / (self.parameters(job.model) or 1))
        return dict(found)

    @cached_property
    def _unstated(self) -> set[Path]:
        return {job.log for job in self.assumed if not job.seconds}

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job on a device, its forecast corrected by what the logs of finished ones say, or taken from them."""
        return [replace(job, seconds=self._seconds(job)) for job in self.assumed]

    def is_from_logs(self, job: Job) -> bool:
        """Whether the forecast of a job comes from finished ones of its kind, also in part."""
        return job.kind in self.corrections or (job.log in self._unstated and job.kind in self.measured)

    def _seconds(self, job: Job) -> Triple | None:
        """Wall seconds of a job (low, likely, high), with what finished jobs of its kind took."""
        if job.seconds:
            return tuple(job.seconds[1] * factor for factor in self.corrections[job.kind]) if job.kind in self.corrections else job.seconds
        if job.kind not in self.measured:
            return None
        took = self.measured[job.kind]
        return cost.scale((min(took), statistics.fmean(took), max(took)), (self.parameters(job.model) or 1) / job.gpus)

    def _log(self, rule: str, checkpoint: Checkpoint, *suite: str) -> Path:
        return Path(self.paths.of(self.paths.checkpoint_log(rule, *suite), checkpoint))

    def _trainings(self) -> Iterator[Job]:
        for run in self.study.runs.values():
            tokens, parameters = self.run_tokens(run), self.parameters(run.model)
            method, gpus = run.settings.method, run.settings.gpus
            known = tokens is not None and parameters is not None
            seconds = cost.training_seconds(parameters, tokens, method, self.device, gpus) if known else None
            log = Path(self.paths.log("train", *run.key))
            yield Job(f"train {method}", run.blocks, seconds, log, run.model, gpus)

    def _checkpoints(self) -> Iterator[Job]:
        plan, file = self.study.file.plan, self.study.file
        for c in self.study.checkpoints:
            run = self.study.runs.get(c.run)
            blocks = run.blocks if run else (OUTSIDE,) if c.run in self.study.outside else ("base models",)
            parameters = self.parameters(c.model)
            for name, suite in file.suites.items():
                loads = [plan.load.get(benchmark) for benchmark in suite.benchmarks]
                seconds = (
                    None
                    if None in loads or parameters is None
                    else cost.scoring_seconds(
                        parameters, loads, self.device, self.in_float32(c.model, c.recipe, self.engine(name)), self.engine(name)
                    )
                )
                yield Job(f"evaluate {name}", blocks, seconds, self.log_of(c, name), c.model)
            if c.measure_representation:
                seconds = self.representation_seconds(parameters) if parameters else None
                yield Job("measure_representation", blocks, seconds, self._log("measure_representation", c), c.model)

    def scorings(self) -> Iterator[tuple[Checkpoint, str]]:
        """Every checkpoint with every suite that scores it."""
        return ((c, name) for c in self.study.checkpoints for name in self.study.file.suites)

    def log_of(self, checkpoint: Checkpoint, suite: str) -> Path:
        """The log of the job that scores a checkpoint."""
        return self._log("generate" if self.study.file.suites[suite].judge else "evaluate", checkpoint, suite)

    def is_adapter(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is an adapter beside its base model."""
        return checkpoint.dataset != BASE and self.study.is_adapter(checkpoint.recipe)

    def engine(self, suite: str) -> str:
        """The inference engine of a suite: the one that the study or its results name, else what is usual on the plan's device."""
        if self.forced:
            return self.forced
        if suite not in self._engines:
            records = (Path(self.paths.of(self.paths.scores, c, suite=suite)).with_suffix(".json") for c in self.study.checkpoints)
            stated = self.study.file.suites[suite].backend or backend_of_results(records)
            self._engines[suite] = stated or default_backend(self.study.file.plan.device != "cpu")
        return self._engines[suite]

    @cached_property
    def _engines(self) -> dict[str, str]:
        return {}

    def in_float32(self, model: str, recipe: str, engine: str = "hf") -> bool:
        """Whether a checkpoint of a bfloat16 or float16 base model is scored in float32: transformers merges an adapter in it, vLLM does not."""
        adapter = recipe != BASE and self.study.is_adapter(recipe)
        return adapter and engine in ("hf", "hf-paged") and BYTES[self.study.all_models[model].dtype] < 4

    def representation_seconds(self, parameters: float) -> Triple:
        """Seconds to measure hidden states and likelihoods of a checkpoint: each item is read twice, in float32."""
        tokens = cost.scale(self._item_tokens, 2 * self.study.file.measure.representation.items_per_benchmark)
        return cost.reading_seconds(parameters, tokens, self.device, self.device.float32_tflops)

    @cached_property
    def _item_tokens(self) -> Triple:
        """Tokens of one item of each benchmark, without examples: a prompt with k of them is taken for k + 1 items, answers included."""
        plan, parts = self.study.file.plan, []
        for name in self.study.benchmarks_with_answers:
            shots = self.study.file.benchmarks[name].shots
            prompt = plan.load[name].prompt_tokens if name in plan.load else ITEM_TOKENS
            parts.append(cost.scale(prompt, 1 / (1 + shots.count) if shots and name in plan.load else 1))
        return add(parts)

    def _perplexities(self) -> Iterator[Job]:
        for model in self.study.models:
            for dataset in self.study.sources:
                tokens, parameters = self.tokens(dataset, self.study.smallest_rows(dataset)), self.parameters(model)
                seconds = cost.reading_seconds(parameters, tokens, self.device) if tokens and parameters else None
                yield Job(
                    "measure_perplexity", ("base models",), seconds, Path(self.paths.log("measure_perplexity", model, dataset)), model
                )

    # ------------------------------------------------------------ totals

    def hours(self, jobs: list[Job]) -> Triple:
        """Device-hours of those jobs that can be forecast: wall time times devices."""
        return cost.scale(add(job.device_seconds for job in jobs if job.seconds), 1 / 3600)

    def longest_chain(self) -> Triple:
        """Wall hours from data to tables with unlimited devices: the longest training, then the longest job on a checkpoint."""
        stages = {"train": ZERO, "after": ZERO}
        for job in self.jobs:
            stage = "train" if job.kind.startswith("train ") else "after"
            if job.seconds and job.left and job.kind != "measure_perplexity":  # perplexity of base models waits for no training
                stages[stage] = max(stages[stage], job.seconds, key=lambda seconds: seconds[1])
        return cost.scale(add(stages.values()), 1 / 3600)

    def time_left(self) -> Triple:
        """Wall hours until the end on the devices of the plan: their work, but at least the longest chain; without waiting in a queue."""
        work = cost.scale(self.hours([job for job in self.jobs if job.left]), 1 / self.study.file.plan.parallel)
        return tuple(map(max, self.longest_chain(), work))

    def disk(self) -> dict[str, float | None]:
        """Bytes on disk; None where a model's size is not known.

        Snakemake deletes weights that the study does not keep as soon as they are measured (``temp()``); the last figure is without that.
        """
        file, parallel = self.study.file, self.study.file.plan.parallel
        if any(self.parameters(model) is None for model in self.study.models):
            return dict.fromkeys(("base models", "kept checkpoints", "peak", "peak without deleting weights"))
        bases = sum(self.parameters(model) * BYTES[file.models[model].dtype] for model in self.study.models)
        kept = everything = 0.0
        states, temporary = [], []  # of each device of each run: resume states, and the epochs that are deleted after use
        for run in self.study.runs.values():
            method, epochs = run.settings.method, run.settings.kept_epochs
            parameters, rank, gpus = self.parameters(run.model), run.settings.lora.rank, run.settings.gpus
            trained = parameters if method == "full" else adapter_parameters(parameters, rank)
            each = checkpoint_bytes(parameters, method, rank, BYTES[file.models[run.model].dtype])
            kept_epochs = len(epochs) if method == "lora" or file.keep_weights == "all" else int(file.keep_weights == "final")
            kept += each * kept_epochs
            everything += each * len(epochs)
            states += [resume_states_bytes(trained, run.settings.epochs) / gpus] * gpus
            temporary += [each * (len(epochs) - kept_epochs) / gpus] * gpus
        for each in self.study.outside.values():  # a downloaded file and its link are one
            parameters = self.parameters(each.model)
            size = checkpoint_bytes(parameters, "lora" if each.is_adapter else "full", RANK, BYTES[file.models[each.model].dtype])
            kept += size
            everything += size
        training = sum(sorted(states, reverse=True)[:parallel])
        # Twice the devices: while they train, as many finished runs as they can train wait for the scores of their epochs.
        waiting = sum(sorted(temporary, reverse=True)[: 2 * parallel])
        return {
            "base models": bases,
            "kept checkpoints": kept,
            "peak": bases + kept + training + waiting,
            "peak without deleting weights": bases + everything + training,
        }

    def too_large(self) -> list[Run]:
        """Runs whose weights, gradients and Adam's moments alone exceed the memory of their GPUs, over which they are sharded."""
        memory, large = self.device.memory_gib * 2**30, []
        for run in self.study.runs.values():
            parameters, settings = self.parameters(run.model), run.settings
            trained = settings.layers[1] - settings.layers[0] if settings.layers else 1
            full = BYTES[settings.weights] * (1 + 3 * trained)
            each = full if settings.method == "full" else BYTES[self.study.file.models[run.model].dtype]
            if parameters is not None and each * parameters / settings.gpus > memory:
                large.append(run)
        return large


# ---------------------------------------------------------------- logs


def logged_seconds(log: Path) -> float | None:
    """Wall seconds of the job that wrote a log, from its last closing line; None while there is none."""
    try:
        times = CLOSING_LINE.findall(log.read_text(encoding="utf-8", errors="replace")[-4000:])
    except FileNotFoundError:
        return None
    return float(times[-1]) if times else None


def correction_factor(pairs: list[tuple[float, float]]) -> Triple | None:
    """Factor (low, likely, high) from forecast to measured: total over total, with its 95 % bootstrap interval.

    ``pairs`` are (measured, forecast) device-seconds of finished jobs, resampled 400 times with a fixed seed. None for fewer than three.
    """
    if len(pairs) < ENOUGH:
        return None
    rng = random.Random(0)
    samples = [pairs, *(rng.choices(pairs, k=len(pairs)) for _ in range(RESAMPLES))]
    factor, *resampled = (sum(measured for measured, _ in sample) / sum(forecast for _, forecast in sample) for sample in samples)
    cuts = statistics.quantiles(resampled, n=40)
    return cuts[0], factor, cuts[-1]
