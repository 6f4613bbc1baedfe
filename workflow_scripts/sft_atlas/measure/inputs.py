"""Input and parameter functions of ``rules/measure.smk``: samples and items to measure on, and the options of the jobs."""

import shlex
from pathlib import Path

from sft_atlas.study.paths import Paths
from sft_atlas.study.study import Study


class MeasureInputs:
    """Functions from wildcards to files and settings of measurements."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths, self.measure = study, paths, study.file.measure

    def items(self) -> list[str]:
        """The items of every benchmark with reference answers, whose likelihood is measured."""
        return [self.paths.fill(self.paths.items, benchmark=name) for name in self.study.benchmarks_with_answers]

    def items_options(self, wildcards) -> str:
        """Those items as options."""
        return " ".join(f"--items {Path(path).parent.name}={path}" for path in self.items())

    def representation(self, wildcards) -> str:
        """Settings of hidden states and likelihoods, as options."""
        settings = self.measure.representation
        return (
            f"--items-per-benchmark {settings.items_per_benchmark} --seed {self.study.file.seed}"
            f" --template {shlex.quote(self.study.file.template_json)} --estimators {' '.join(settings.estimators)}"
            f" --max-length {settings.max_length}"
        )

    def perplexity(self, wildcards) -> str:
        """Settings of perplexity, as options."""
        settings = self.measure.perplexity
        limit = f" --limit {settings.rows}" if settings.rows else ""
        return f"--rows {self.study.smallest_rows(wildcards.dataset)}{limit} --max-length {settings.max_length}"

    def similarity(self, wildcards) -> str:
        """Settings of similarity, as options."""
        settings = self.measure.similarity
        return f"--rows {settings.rows} --text {settings.text} --max-length {settings.max_length} --seed {self.study.file.seed}"

    def compared(self, wildcards) -> list[str]:
        """Samples of the training sets whose similarity is measured: the study's, and for `advise` the candidates."""
        return [self.sample(name) for name in self._compared(wildcards)]

    def similarity_options(self, wildcards) -> str:
        """Names and files of training sets and benchmarks, and the encoder, as options."""
        sets = [f"--dataset {name}={path}" for name, path in zip(self._compared(wildcards), self.compared(wildcards), strict=True)]
        suites = self.study.file.suites.values()
        names = sorted({name for suite in suites for name in suite.benchmarks})
        tests = [f"--benchmark {name}={self.paths.fill(self.paths.items, benchmark=name)}" for name in names]
        encoder = self.measure.similarity.encoder
        return " ".join([*sets, *tests, *([f"--encoder {self.paths.encoder} --pooling {encoder.pooling}"] if encoder else [])])

    def _compared(self, wildcards) -> list[str]:
        candidates = self.study.candidates.datasets if self.study.candidates and wildcards.place != "tables" else ()
        return list(dict.fromkeys([*self.study.sources, *candidates]))

    def sample(self, dataset: str) -> str:
        """The sample on which a training set is measured: the smallest that the study trains on."""
        return self.paths.fill(self.paths.sample, dataset=dataset, rows=self.study.smallest_rows(dataset))
