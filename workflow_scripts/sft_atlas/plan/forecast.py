"""The forecast of a study: its jobs, what each should cost, which are done and which must be repeated.

A job counts as done if its files are there. Which jobs a changed setting affects is for Snakemake to say (`snakemake -n`). The logs of
finished jobs correct the assumptions.
"""

import random
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
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
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE, Checkpoint, Run
from sft_atlas.study.schema import Device, is_commit
from sft_atlas.study.study import Study

ITEM_TOKENS: Triple = (50, 200, 600)  # of a benchmark item whose load the study does not state
DONE = re.compile(r"done in ([0-9.]+) s wall")
ENOUGH = 3  # finished jobs of a kind before their logs replace the assumptions
RESAMPLES = 400


@dataclass(frozen=True)
class Job:
    """One job: wall ``seconds`` (low, likely, high) on ``gpus`` devices; None where the study does not say enough to forecast it."""

    kind: str  # train full, train lora, evaluate {suite}, measure_representation, measure_perplexity
    blocks: tuple[str, ...]
    seconds: Triple | None
    log: Path
    done: bool
    repeat: bool = False  # its files are there, but its run must be trained again
    gpus: int = 1

    @property
    def left(self) -> bool:
        """Whether the job has to run."""
        return self.repeat or not self.done

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


class Forecast:
    """Jobs, disk and longest chain of a study with results under ``root``; ``device`` is what they run on."""

    def __init__(self, study: Study, device: Device, root: Path):
        self.study, self.device, self.paths = study, device, Paths(root)

    # ------------------------------------------------------------ sizes

    def parameters(self, model: str) -> float | None:
        """Number of parameters of a base model, as the study states it or as its pre-training makes it."""
        entry = self.study.all_models[model]
        if entry.pretrain:
            return tiny_parameters(entry.pretrain.hidden_size, entry.pretrain.layers, entry.pretrain.vocabulary)
        return entry.parameters

    def tokens(self, dataset: str, rows: int) -> Triple | None:
        """Tokens of one pass over a training set (``rows`` of each member of a merge)."""
        members = self.study.members(dataset) or (dataset,)
        stated = [self.study.file.plan.tokens.get(member) for member in members]
        return None if None in stated else cost.scale(add(stated), rows)

    def run_tokens(self, run: Run) -> Triple | None:
        """Tokens that a run trains on, all epochs together."""
        tokens = self.tokens(run.dataset, run.settings.rows)
        return tokens and cost.scale(tokens, run.settings.epochs)

    # ------------------------------------------------------------ jobs

    @cached_property
    def assumed(self) -> list[Job]:
        """Every job on a device, forecast from the assumptions alone."""
        return [*self._trainings(), *self._checkpoints(), *self._perplexities()]

    @cached_property
    def corrections(self) -> dict[str, Triple]:
        """Factor on the forecast of each kind of job of which enough are finished, from their logs."""
        pairs = defaultdict(list)
        for job in self.assumed:
            if job.done and job.seconds and (measured := logged_seconds(job.log)) is not None:
                pairs[job.kind].append((measured * job.gpus, job.device_seconds[1]))
        factors = {kind: correction_factor(of_kind) for kind, of_kind in pairs.items()}
        return {kind: factor for kind, factor in factors.items() if factor}

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job on a device, its forecast corrected by what the logs of finished ones say."""
        return [
            replace(job, seconds=tuple(job.seconds[1] * factor for factor in self.corrections[job.kind]))
            if job.seconds and job.kind in self.corrections
            else job
            for job in self.assumed
        ]

    @cached_property
    def retrained(self) -> set[tuple[str, str, str]]:
        """Finished runs that must be trained again: a checkpoint lacks a result, and its weights are gone."""
        return {
            c.run
            for c in self.study.checkpoints
            if c.dataset != BASE and self._trained(c) and not self._exists(self.paths.weights, c) and not self._measured(c)
        }

    def _exists(self, pattern: str, checkpoint: Checkpoint, **more: str) -> bool:
        return Path(self.paths.of(pattern, checkpoint, **more)).exists()

    def _trained(self, run: Checkpoint | Run) -> bool:
        return Path(self.paths.fill(self.paths.record, model=run.model, dataset=run.dataset, recipe=run.recipe)).exists()

    def _scored(self, checkpoint: Checkpoint, suite: str) -> bool:
        """Whether a suite is done with a checkpoint's weights. A judge needs the answers alone."""
        judged = self.study.file.suites[suite].judge
        return self._exists(self.paths.answers if judged else self.paths.scores, checkpoint, suite=suite)

    def _measured(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint has everything that is made from its weights."""
        return (
            all(self._scored(checkpoint, suite) for suite in self.study.file.suites)
            and self._exists(self.paths.layers, checkpoint)
            and (not checkpoint.measure_representation or self._exists(self.paths.likelihood, checkpoint))
        )

    def _log(self, rule: str, checkpoint: Checkpoint, *suite: str) -> Path:
        return Path(self.paths.of(self.paths.checkpoint_log(rule, *suite), checkpoint))

    def _trainings(self) -> Iterator[Job]:
        for run in self.study.runs.values():
            tokens, parameters = self.run_tokens(run), self.parameters(run.model)
            method, gpus = run.settings.method, run.settings.gpus
            known = tokens is not None and parameters is not None
            seconds = cost.training_seconds(parameters, tokens, method, self.device, gpus) if known else None
            log = Path(self.paths.log("train", *run.key))
            yield Job(f"train {method}", run.blocks, seconds, log, self._trained(run), run.key in self.retrained, gpus)

    def _checkpoints(self) -> Iterator[Job]:
        plan, file = self.study.file.plan, self.study.file
        for c in self.study.checkpoints:
            blocks = self.study.runs[c.run].blocks if c.dataset != BASE else ("base models",)
            parameters, retrained = self.parameters(c.model), c.run in self.retrained
            for name, suite in file.suites.items():
                loads = [plan.load.get(benchmark) for benchmark in suite.benchmarks]
                seconds = (
                    None
                    if None in loads or parameters is None
                    else cost.scoring_seconds(parameters, loads, self.device, self.in_float32(c.model, c.recipe))
                )
                done = self._scored(c, name)
                rule = "generate" if suite.judge else "evaluate_vllm" if suite.backend == "vllm" else "evaluate"
                yield Job(f"evaluate {name}", blocks, seconds, self._log(rule, c, name), done, retrained and done)
            if c.measure_representation:
                seconds = self.representation_seconds(parameters) if parameters else None
                done = self._exists(self.paths.likelihood, c)
                log = self._log("measure_representation", c)
                yield Job("measure_representation", blocks, seconds, log, done, retrained and done)

    def in_float32(self, model: str, recipe: str) -> bool:
        """Whether a checkpoint of a bfloat16 or float16 base model is scored in float32: one with an adapter is."""
        adapter = recipe != BASE and self.study.file.recipes[recipe].method == "lora"
        return adapter and BYTES[self.study.all_models[model].dtype] < 4

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
                done = Path(self.paths.fill(self.paths.perplexity, model=model, dataset=dataset)).exists()
                yield Job("measure_perplexity", ("base models",), seconds, Path(self.paths.log("measure_perplexity", model, dataset)), done)

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

    def unpinned(self) -> list[str]:
        """Entries of the study whose revision is no commit."""
        file = self.study.file
        return [
            f"{part}.{name}"
            for part in ("models", "datasets", "benchmarks")
            for name, entry in getattr(file, part).items()
            if entry.hub and not is_commit(entry.revision)
        ]


# ---------------------------------------------------------------- logs


def logged_seconds(log: Path) -> float | None:
    """Wall seconds of the job that wrote a log, from its last closing line; None while there is none."""
    try:
        times = DONE.findall(log.read_text(encoding="utf-8", errors="replace")[-4000:])
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
