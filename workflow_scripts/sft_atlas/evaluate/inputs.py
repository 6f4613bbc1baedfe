"""Input and parameter functions of ``rules/evaluate.smk``: the files of suites, and the options of the jobs that score them."""

import shlex
from pathlib import Path

from sft_atlas.evaluate.answers import sampled
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE
from sft_atlas.study.study import Study
from sft_atlas.study.task_files import task_file, task_sources

# Named by the task files (`!function`), so no import leads to them.
METRICS = tuple(f"sft_atlas.evaluate.metrics.{path.stem}" for path in sorted(Path(__file__).parent.glob("metrics/[!_]*.py")))

JUDGE_SPEED = {"requests_per_minute", "concurrency", "timeout", "retries"}  # settings of a judge that change no judgement


class EvaluateInputs:
    """Functions from wildcards to files and settings, for suites of benchmarks."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths, self.file = study, paths, study.file
        self.scored = [name for name, suite in self.file.suites.items() if not suite.judge]
        self.judged = [name for name, suite in self.file.suites.items() if suite.judge]

    def suites_on(self, backend: str) -> list[str]:
        """The suites that are scored with a backend."""
        return [suite for suite in self.scored if self.file.suites[suite].backend == backend]

    def files(self, pattern: str, suites=None) -> list[str]:
        """One file of every checkpoint and suite."""
        suites = self.file.suites if suites is None else suites
        return [self.paths.of(pattern, checkpoint, suite=suite) for suite in suites for checkpoint in self.study.checkpoints]

    def weights(self, wildcards) -> str | list:
        """The folder of a checkpoint's weights; nothing for a base model."""
        return [] if wildcards.dataset == BASE else self.paths.weights.format(**wildcards)

    def trained(self, wildcards) -> str | list:
        """The record of the run that gave a checkpoint: weights may be deleted, and a later training must still be noticed."""
        return [] if wildcards.dataset == BASE else self.paths.record.format(**wildcards)

    def tasks(self, wildcards) -> list[str]:
        """The lm-eval task files of a suite."""
        return [self.file.benchmarks[name].task for name in self._benchmarks(wildcards)]

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
        files = zip(self._benchmarks(wildcards), self.tasks(wildcards), self.items(wildcards), strict=True)
        options = [f"--benchmark {name} {shlex.quote(task)} {items}" for name, task, items in files]
        shots = zip(self._few_shot(wildcards), self.shots(wildcards), strict=True)
        options += [f"--shots {name} {path} {shlex.quote(self.file.benchmarks[name].shots.by or '-')}" for name, path in shots]
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
        unsafe = any(task_file(task).get("unsafe_code") for task in self.tasks(wildcards))
        return " --allow-code-execution" if unsafe else ""

    def judge_model(self, wildcards) -> str | list:
        """The manifest of the local model that judges a suite; nothing where an endpoint does."""
        judge = self.file.suites[wildcards.suite].judge
        return [] if judge.url else self.paths.fill(self.paths.model, model=judge.model)

    def _benchmarks(self, wildcards) -> list[str]:
        return self.file.suites[wildcards.suite].benchmarks

    def _few_shot(self, wildcards) -> list[str]:
        return [name for name in self._benchmarks(wildcards) if self.file.benchmarks[name].shots]
