"""Input and parameter functions of ``rules/analyse.smk``: what an advice measures, and what it learns from."""

import os

from snakemake.exceptions import WorkflowError

from sft_atlas.study.paths import Paths
from sft_atlas.study.study import Study


class AdviseInputs:
    """Functions from wildcards to the files and options of `snakemake advise`. ``published``: the table of published scores."""

    def __init__(self, study: Study, paths: Paths, published: str):
        self.study, self.paths, self.published = study, paths, published
        self.model, self.datasets = (study.candidates.model, study.candidates.datasets) if study.candidates else ("", ())
        self.folder = self.model or "no-model"
        self.gains = paths.fill(paths.table, table="gains")

    def files(self, kind: str):
        """A function to what is measured on the candidates, cheaply; the published scores know nothing to compare it with."""

        def measured(wildcards) -> list[str]:
            if not self.model or not os.path.exists(self.gains):
                return []
            if kind == "similarity":
                return [self.paths.fill(self.paths.similarity, place=f"advice/{self.model}")]
            keys = [{"dataset": name, "rows": self.study.smallest_rows(name), "model": self.model} for name in self.datasets]
            return [self.paths.fill(getattr(self.paths, kind), **each) for each in keys]

        return measured

    def options(self, wildcards, input) -> str:
        """Base model and candidates, and what to learn from: this study's tables where they are, else the published scores."""
        if not self.model:
            raise WorkflowError(
                "name a base model: snakemake advise --config advise='{model: NAME, datasets: [NAME, NAME]}' (datasets: by default all)"
            )
        own = os.path.exists(self.gains)
        learnt = self.paths.tables if own else self.published
        if not os.path.exists(learnt):
            raise WorkflowError(
                f"there is nothing to learn from: neither {self.gains} (run this study) nor {self.published} (snakemake published)"
            )
        # The content of what is learnt from decides whether an advice is still right.
        stamp = os.stat(self.gains if own else learnt).st_mtime_ns
        files = [f"--{kind} {path}" for kind in ("perplexity", "properties", "similarity") for path in getattr(input, kind)]
        names = " ".join(f"--dataset {name}" for name in self.datasets)
        return f"--model {self.model} {names} --learn-from {learnt} --learnt-at {stamp} {' '.join(files)}"
