"""The forecast of a study: its jobs, what each should cost, what is done, and what would have to be done again.

"Done" means that the job's files are there. Whether a change of settings makes them anew is Snakemake's to say (`snakemake -n`).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sft_atlas.models.size import BYTES, adapter_parameters, checkpoint_bytes, resume_states_bytes, tiny_parameters
from sft_atlas.plan import cost, history
from sft_atlas.plan.cost import NOTHING, Triple, add
from sft_atlas.study.runs import BASE, Checkpoint, Run
from sft_atlas.study.schema import Device, Suite, is_commit
from sft_atlas.study.study import Study

ITEM_TOKENS: Triple = (50, 200, 600)  # of a benchmark item whose load the study does not state


@dataclass(frozen=True)
class Job:
    """One job: wall ``seconds`` (low, likely, high), None where the study does not say enough to forecast it, on ``gpus`` devices."""

    kind: str  # train full, train lora, evaluate {suite}, measure_representation, measure_perplexity
    blocks: tuple[str, ...]
    seconds: Triple | None
    log: str
    done: bool
    again: bool = False  # its files are there, but it runs again with its training run
    gpus: int = 1

    @property
    def device_seconds(self) -> Triple:
        return cost.scale(self.seconds, self.gpus)


def _first_result(name: str, suite: Suite) -> str:
    """What a suite makes of a checkpoint's weights: scores, or the answers that a judge then scores without them."""
    return f"{'answers' if suite.judge else 'scores'}/{name}.parquet"


class Forecast:
    """Jobs, disk and longest chain of a study with results under ``root``; ``device`` is what they run on."""

    def __init__(self, study: Study, device: Device, root: Path):
        self.study, self.device, self.root = study, device, Path(root)

    # ------------------------------------------------------------ sizes

    def parameters(self, model: str) -> float | None:
        """Number of parameters of a base model, as stated, or of the tiny model to be made."""
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
            if job.done and job.seconds and (measured := history.seconds(self.root / "logs" / job.log)) is not None:
                pairs[job.kind].append((measured * job.gpus, job.device_seconds[1]))
        factors = {kind: history.correction(of_kind) for kind, of_kind in pairs.items()}
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
    def again(self) -> set[tuple[str, str, str]]:
        """Runs that were trained but must be trained again: something is asked of a checkpoint whose weights are gone."""
        return {
            (c.model, c.dataset, c.recipe)
            for c in self.study.checkpoints
            if c.dataset != BASE and self._trained(c) and not c.file(self.root, "weights").exists() and not self._derived(c)
        }

    def _trained(self, c: Checkpoint | Run) -> bool:
        return (self.root / "runs" / c.model / c.dataset / c.recipe / "train.json").exists()

    def _derived(self, c: Checkpoint) -> bool:
        names = [_first_result(name, suite) for name, suite in self.study.file.suites.items()]
        names += ["layers.parquet"] + ["likelihood.parquet"] * c.measure_representation
        return all(c.file(self.root, name).exists() for name in names)

    def _trainings(self) -> Iterator[Job]:
        for run in self.study.runs.values():
            tokens, parameters = self.run_tokens(run), self.parameters(run.model)
            known = tokens is not None and parameters is not None
            method = run.settings.method
            gpus = run.settings.gpus
            seconds = cost.training(parameters, tokens, method, self.device, gpus) if known else None
            log = f"train/{run.model}/{run.dataset}/{run.recipe}.log"
            yield Job(f"train {method}", run.blocks, seconds, log, self._trained(run), run.key in self.again, gpus)

    def _checkpoints(self) -> Iterator[Job]:
        plan, file = self.study.file.plan, self.study.file
        for c in self.study.checkpoints:
            key = (c.model, c.dataset, c.recipe)
            blocks = self.study.runs[key].blocks if c.dataset != BASE else ("base models",)
            parameters, again = self.parameters(c.model), key in self.again
            place = f"{c.model}/{c.dataset}/{c.recipe}/epoch-{c.epoch}"
            for name, suite in file.suites.items():
                loads = [plan.load.get(benchmark) for benchmark in suite.benchmarks]
                seconds = None if None in loads or parameters is None else cost.scoring(parameters, loads, self.device)
                done = c.file(self.root, _first_result(name, suite)).exists()
                rule = "generate" if suite.judge else "evaluate_vllm" if suite.backend == "vllm" else "evaluate"
                yield Job(f"evaluate {name}", blocks, seconds, f"{rule}/{place}/{name}.log", done, again and done)
            if c.measure_representation:
                seconds = self.representation(parameters) if parameters else None
                done = c.file(self.root, "likelihood.parquet").exists()
                yield Job("measure_representation", blocks, seconds, f"measure_representation/{place}.log", done, again and done)

    def representation(self, parameters: float) -> Triple:
        """Seconds to measure hidden states and likelihoods of a checkpoint: each item is read twice, in float32."""
        tokens = cost.scale(self._item_tokens, 2 * self.study.file.measure.representation.items_per_benchmark)
        return cost.reading(parameters, tokens, self.device, self.device.float32_tflops)

    @cached_property
    def _item_tokens(self) -> Triple:
        """Tokens of one item of each benchmark, without examples: a prompt with k of them is taken for k + 1 items, answers included."""
        plan, parts = self.study.file.plan, []
        for name in self.study.answered:
            shots = self.study.file.benchmarks[name].shots
            prompt = plan.load[name].prompt_tokens if name in plan.load else ITEM_TOKENS
            parts.append(cost.scale(prompt, 1 / (1 + shots.count) if shots and name in plan.load else 1))
        return add(parts)

    def _perplexities(self) -> Iterator[Job]:
        for model in self.study.models:
            for dataset in self.study.sources:
                tokens, parameters = self.tokens(dataset, self.study.smallest_rows(dataset)), self.parameters(model)
                seconds = cost.reading(parameters, tokens, self.device) if tokens and parameters else None
                done = (self.root / "perplexity" / model / f"{dataset}.parquet").exists()
                yield Job("measure_perplexity", ("base models",), seconds, f"measure_perplexity/{model}/{dataset}.log", done)

    # ------------------------------------------------------------ totals

    def hours(self, jobs: list[Job]) -> Triple:
        """Device-hours of those jobs that can be forecast: wall time times devices."""
        return cost.scale(add(job.device_seconds for job in jobs if job.seconds), 1 / 3600)

    def longest_chain(self) -> Triple:
        """Hours from the data to the tables with unlimited devices: the longest training and then its longest further job."""
        stages = {"train": NOTHING, "after": NOTHING}
        for job in self.jobs:
            stage = "train" if job.kind.startswith("train ") else "after"
            if job.seconds and (not job.done or job.again) and job.kind != "measure_perplexity":  # which waits for no training
                stages[stage] = max(stages[stage], job.seconds, key=lambda seconds: seconds[1])
        return cost.scale(add(stages.values()), 1 / 3600)

    def disk(self) -> dict[str, float | None]:
        """Bytes: base models, kept checkpoints, and the peak with and without `temp()`; None where a model's size is not known."""
        file, parallel = self.study.file, self.study.file.plan.parallel
        if any(self.parameters(model) is None for model in self.study.models):
            return dict.fromkeys(("base models", "checkpoints that stay", "peak with temp()", "peak without temp()"))
        bases = sum(self.parameters(model) * BYTES[file.models[model].dtype] for model in self.study.models)
        kept = everything = 0.0
        states, passing = [], []  # of each device of each run: the trainer's states, and the epochs that go once they are used up
        for run in self.study.runs.values():
            method, epochs = run.settings.method, run.settings.kept_epochs
            parameters, rank, gpus = self.parameters(run.model), run.settings.lora.rank, run.settings.gpus
            trained = parameters if method == "full" else adapter_parameters(parameters, rank)
            each = checkpoint_bytes(parameters, method, rank, BYTES[file.models[run.model].dtype])
            stay = len(epochs) if method == "lora" or file.keep_weights == "all" else int(file.keep_weights == "final")
            kept += each * stay
            everything += each * len(epochs)
            states += [resume_states_bytes(trained, run.settings.epochs) / gpus] * gpus
            passing += [each * (len(epochs) - stay) / gpus] * gpus
        at_once = sum(sorted(states, reverse=True)[:parallel])
        # Twice the devices: while they train, as many finished runs as they can train wait for the scores of their epochs.
        waiting = sum(sorted(passing, reverse=True)[: 2 * parallel])
        return {
            "base models": bases,
            "checkpoints that stay": kept,
            "peak with temp()": bases + kept + at_once + waiting,
            "peak without temp()": bases + everything + at_once,
        }

    def unpinned(self) -> list[str]:
        """Entries whose revision is no commit."""
        file = self.study.file
        return [
            f"{part}.{name}"
            for part in ("models", "datasets", "benchmarks")
            for name, entry in getattr(file, part).items()
            if entry.hub and not is_commit(entry.revision)
        ]
