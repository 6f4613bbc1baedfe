"""Input and parameter functions of ``rules/evaluate.smk``: the files of suites, and the options of the jobs that score them."""

import json
import math
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from sft_atlas.core.errors import ConfigError
from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.answers import sampled
from sft_atlas.study import adapter_batches, imports
from sft_atlas.study.backends import BACKENDS, backend_of_results, default_backend
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE
from sft_atlas.study.schema import CompareBackends
from sft_atlas.study.study import Study
from sft_atlas.study.task_files import task_file, task_sources

# Named by the task files (`!function`), so no import leads to them.
METRICS = tuple(f"sft_atlas.evaluate.metrics.{path.stem}" for path in sorted(Path(__file__).parent.glob("metrics/[!_]*.py")))

JUDGE_SPEED = {"requests_per_minute", "concurrency", "timeout", "retries"}  # settings of a judge that change no judgement


class EvaluateInputs:
    """Functions from wildcards to files and settings, for suites of benchmarks."""

    def __init__(self, study: Study, paths: Paths, gpu: bool = False):
        self.study, self.paths, self.file, self.gpu = study, paths, study.file, gpu
        self._backends: dict[str, str] = {}
        self.scored = [name for name, suite in self.file.suites.items() if not suite.judge]
        self.judged = [name for name, suite in self.file.suites.items() if suite.judge]

    def backend_of(self, suite: str) -> str:
        """The engine that scores a suite: as stated, else that of its scores so far, else the default of this machine."""
        if suite not in self._backends:
            scores = (Path(self.paths.of(self.paths.scores, checkpoint, suite=suite)) for checkpoint in self.study.checkpoints)
            found = self.file.suites[suite].backend or backend_of_results(path.with_suffix(".json") for path in scores)
            self._backends[suite] = found if found in BACKENDS else default_backend(self.gpu)
        return self._backends[suite]

    def backend(self, wildcards) -> str:
        """:meth:`backend_of` a job's suite."""
        return self.backend_of(wildcards.suite)

    def environment(self, wildcards) -> str:
        """The conda environment of a job that scores."""
        return "../envs/vllm.yaml" if self.backend(wildcards) == "vllm" else "../envs/evaluate.yaml"

    def gpus(self, wildcards) -> int:
        """GPUs of a job that scores."""
        return 0 if self.backend(wildcards) == "endpoint" else self.file.suites[wildcards.suite].gpus

    def engine(self, wildcards) -> str:
        """Options of an engine on which no score depends."""
        suite = self.file.suites[wildcards.suite]
        server = f" --endpoint {shlex.quote(suite.endpoint.model_dump_json())}" if suite.endpoint else ""
        return f"--memory {suite.memory} --gpus {suite.gpus}{server}"

    def server(self, wildcards) -> str:
        """What scores by a server depend on besides: its dtype, and how prompts are sent."""
        server = self.file.suites[wildcards.suite].endpoint
        return f"{server.dtype}, prompts as {server.prompts}" if server else ""

    def adapter_batches(self, jobs: list, slots: int, minutes: Callable | None = None, limit: float = 0) -> dict[str, list]:
        """Of the jobs of a call those that score LoRA checkpoints of one base model on one suite, by the file of their batch.

        ``slots``: batches that can run at once; a base model has as many as its share. ``minutes``: a function from a job to its time limit, of
        which the members of a batch have at most ``limit`` together. Batches of one are none. Writes down what each consists of.
        """
        groups: dict[tuple[str, str], list] = {}
        for job in jobs:
            if job.rule.name in ("evaluate", "generate") and self._batched(job.wildcards):
                groups.setdefault((job.wildcards.model, job.wildcards.suite), []).append(job)
        found: dict[str, list] = {}
        for (model, suite), members in groups.items():
            members.sort(key=lambda job: [str(job.wildcards[name]) for name in ("dataset", "recipe", "epoch")])
            count = max(1, slots // len(groups))
            if minutes:
                count = max(count, math.ceil(sum(map(minutes, members)) / limit))
            for part in range(count):
                chosen = members[part::count]
                if len(chosen) < 2:
                    continue
                file = self.paths.fill(self.paths.adapter_batch, model=model, suite=suite, part=part)
                adapter_batches.write(file, [self._member(job) for job in chosen])
                Path(file).unlink(missing_ok=True)  # made anew in each call that needs it
                found[file] = chosen
        return found

    def _batched(self, wildcards) -> bool:
        adapter = wildcards.dataset != BASE and self.study.is_adapter(wildcards.recipe)
        stated = self.file.suites[wildcards.suite].batch_adapters
        return adapter and self.backend(wildcards) != "endpoint" and (self.gpu if stated is None else stated)

    def _member(self, job) -> dict[str, object]:
        keys = {name: job.wildcards[name] for name in ("dataset", "recipe", "epoch")}
        places = {"weights": self.paths.weights, "state": self.paths.suite_state}
        log = self.paths.checkpoint_log("answer_adapters", "{suite}")
        return keys | {name: pattern.format(**job.wildcards) for name, pattern in (places | {"log": log}).items()}

    @cached_property
    def compared(self) -> SimpleNamespace:
        """Wildcards of the checkpoint and suite that `compare_backends` compares, and its ``backends``. ConfigError where there is none such."""
        asked = self.file.compare_backends or CompareBackends()
        suite, model = asked.suite or next(iter(self.scored), None), asked.model or next(iter(self.file.models))
        if suite not in self.scored:
            raise ConfigError(
                self.study.source, [f"compare_backends.suite: {suite!r} is no suite without a judge ({', '.join(self.scored)})"]
            )
        if "endpoint" in asked.backends and not self.file.suites[suite].endpoint:
            raise ConfigError(self.study.source, [f"compare_backends.backends: suite {suite!r} names no server; give it an `endpoint`"])
        dataset, recipe = asked.dataset or BASE, asked.recipe or BASE
        known = [one for one in self.study.checkpoints if (one.model, one.dataset, one.recipe) == (model, dataset, recipe)]
        chosen = [one for one in known if asked.epoch in (None, one.epoch)]
        if not chosen:
            named = "/".join([model, dataset, recipe]) + (f", epoch {asked.epoch}" if asked.epoch else "")
            raise ConfigError(
                self.study.source, [f"compare_backends: {named} is no checkpoint of the study; name model, dataset and recipe"]
            )
        return SimpleNamespace(**chosen[-1].keys(), suite=suite, backends=asked.backends)

    def comparison_files(self, _) -> dict[str, object]:
        """Input of `compare_backends`."""
        files = {"base": self.paths.model, "suite": self.paths.suite} | (
            {} if self.compared.dataset == BASE else {"weights": self.paths.weights}
        )
        return {name: path.format(**vars(self.compared)) for name, path in files.items()}

    def comparison_options(self, _) -> str:
        """Options of `compare_backends`."""
        one, weights = self.compared, self.comparison_files(None).get("weights")
        state = self.paths.comparison_state.format(**vars(one))
        keys = f"--model {one.model} --dataset {one.dataset} --recipe {one.recipe} --epoch {one.epoch}{f' --weights {weights}' if weights else ''}"
        return f"--backends {' '.join(one.backends)} {keys} {self.settings(one)} {self.engine(one)} --batch-size {self.batch_size(one)} --state {state}"

    def comparison_environment(self, _) -> str:
        """The conda environment of `compare_backends`; vLLM's has transformers too."""
        return "../envs/vllm.yaml" if "vllm" in self.compared.backends else "../envs/evaluate.yaml"

    def files(self, pattern: str, suites=None) -> list[str]:
        """One file of every checkpoint and suite."""
        suites = self.file.suites if suites is None else suites
        return [self.paths.of(pattern, checkpoint, suite=suite) for suite in suites for checkpoint in self.study.checkpoints]

    def of_scored_suites(self, pattern: str) -> list[str]:
        """One pattern of a checkpoint for every suite without a judge."""
        return [self.paths.fill(pattern, suite=suite) for suite in self.scored]

    def lm_eval_results(self) -> list[str]:
        """The folder of every checkpoint with lm-eval's files; none where every suite is judged."""
        return [self.paths.of(self.paths.lm_eval_results, checkpoint) for checkpoint in self.study.checkpoints if self.scored]

    def imported_results(self) -> list[str]:
        """The folder of each import of lm-eval's files, which are written again."""
        return [
            self.paths.fill(self.paths.imported_results, imported=name)
            for name, entry in self.file.imported_scores.items()
            if entry.format == "lm-eval"
        ]

    def imported_files(self) -> list[str]:
        """The files of all imports."""
        return list(
            dict.fromkeys(
                file for entry in self.file.imported_scores.values() for file in imports.files(self.study.path(entry.file), entry)
            )
        )

    def imports_json(self, wildcards) -> str:
        """What the study says of its imports, and what it knows, as JSON (a function, because Snakemake would take its braces for wildcards)."""
        return imports.settings(self.study)

    def weights(self, wildcards) -> str | list:
        """The folder of a checkpoint's weights; nothing for a base model."""
        return [] if wildcards.dataset == BASE else self.paths.weights.format(**wildcards)

    def trained(self, wildcards) -> str | list:
        """The record of the run that gave a checkpoint: weights may be deleted, and a later training must still be noticed."""
        return [] if wildcards.dataset == BASE else self.paths.record.format(**wildcards)

    def tasks(self, wildcards) -> list[str]:
        """The lm-eval task files of a suite."""
        return [task for name in self._benchmarks(wildcards) for task in self.file.benchmarks[name].task_files]

    def includes(self, wildcards) -> list[str]:
        """The files that the task files of a suite include."""
        return sorted({path for task in self.tasks(wildcards) for path in task_sources(task)[1:]})

    def items(self, wildcards) -> list[str]:
        """The items of a suite's benchmarks."""
        return [self.paths.fill(self.paths.items, benchmark=name) for name in self._benchmarks(wildcards)]

    def shots(self, wildcards) -> list[str]:
        """The examples of a suite's few-shot benchmarks."""
        return [self.paths.fill(self.paths.shots, benchmark=name) for name in self._few_shot(wildcards)]

    def benchmark_options(self, wildcards) -> str:
        """Name, task file and items of each benchmark, and its examples, as options."""
        files = zip(self._benchmarks(wildcards), self.items(wildcards), strict=True)
        options = [f"--benchmark {name} {shlex.quote(self.file.benchmarks[name].task)} {items}" for name, items in files]
        registered = {name: self.file.benchmarks[name].registered for name in self._benchmarks(wildcards)}
        options += [f"--lm-eval {name} {shlex.quote(json.dumps(asdict(task)))}" for name, task in registered.items() if task]
        shots = zip(self._few_shot(wildcards), self.shots(wildcards), strict=True)
        options += [f"--shots {name} {path} {shlex.quote(self.file.benchmarks[name].shots.by or '-')}" for name, path in shots]
        lengths = {name: self.file.benchmarks[name].max_new_tokens for name in self._benchmarks(wildcards)}
        options += [f"--max-new-tokens {name} {length}" for name, length in lengths.items() if length]
        return " ".join(options)

    def settings(self, wildcards) -> str:
        """The settings of a suite on which its scores depend, as options."""
        suite = self.file.suites[wildcards.suite]
        limit = f" --max-new-tokens {suite.max_new_tokens}" if suite.max_new_tokens else ""
        numbers = f"--max-length {suite.max_length}{limit} --seed {self.file.seed}"
        return f"--template {shlex.quote(self.file.template_json)} {numbers}{self.code_option(wildcards)}"

    def batch_size(self, wildcards) -> int | str:
        """Requests per batch. Scores do not depend on it, unless a task samples."""
        return self.file.suites[wildcards.suite].batch_size

    def sampling(self, wildcards) -> str:
        """What sampled answers depend on besides: the batch size; nothing where every task decodes greedily."""
        samples = any(sampled(task_file(task).get("generation_kwargs")) for task in self.tasks(wildcards))
        return f"batches of {self.batch_size(wildcards)}" if samples else ""

    def judge_settings(self, wildcards) -> str:
        """The settings of a judge, as JSON."""
        return self.file.suites[wildcards.suite].judge.model_dump_json()

    def judge_identity(self, wildcards) -> str:
        """The settings of a judge on which its judgements depend, as JSON."""
        return self.file.suites[wildcards.suite].judge.model_dump_json(exclude=JUDGE_SPEED)

    def code_option(self, wildcards) -> str:
        """The permission to run code that models write, for the suites that do."""
        if not self.runs_code(wildcards.suite):
            return ""
        return " --allow-code-execution" + (f" --sandbox {self.file.sandbox}" if self.file.sandbox != "strict" else "")

    def runs_code(self, suite: str) -> bool:
        """Whether a suite has a benchmark that runs code written by models."""
        return any(task_file(self.file.benchmarks[name].task).get("unsafe_code") for name in self.file.suites[suite].benchmarks)

    def sandbox_warning(self) -> str:
        """One line where this machine lacks a protection of the sandbox that some suite needs; jobs then need not say it on the terminal."""
        suites = [suite for suite in self.scored if self.runs_code(suite)]
        lacking = sandbox.missing() if suites else ()
        if not lacking:
            return ""
        os.environ[sandbox.WARNED] = "1"
        if self.file.sandbox == "best_effort":
            return sandbox.best_effort_warning(lacking)
        return f"suites.{suites[0]}: its jobs are refused on this machine, whose sandbox for code lacks {', '.join(lacking)}; see `sandbox`"

    def sandbox_refusal(self, jobs: Iterable) -> str:
        """Why jobs that are about to run here would all be refused, with both remedies; empty where they would not."""
        if self.file.sandbox != "strict" or not any(self._runs_code(job) for job in jobs):
            return ""
        lacking = sandbox.missing()
        return sandbox.refusal(lacking) if lacking else ""

    def _runs_code(self, job) -> bool:
        return job.rule.name in ("evaluate", "rescore_samples") and self.runs_code(job.wildcards.suite)

    def judge_model(self, wildcards) -> str | list:
        """The manifest of the local model that judges a suite; nothing where an endpoint does."""
        judge = self.file.suites[wildcards.suite].judge
        return [] if judge.url else self.paths.fill(self.paths.model, model=judge.model)

    def _benchmarks(self, wildcards) -> list[str]:
        return self.file.suites[wildcards.suite].benchmarks

    def _few_shot(self, wildcards) -> list[str]:
        return [name for name in self._benchmarks(wildcards) if self.file.benchmarks[name].shots]
