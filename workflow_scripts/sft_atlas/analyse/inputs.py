"""Input and parameter functions of the rule ``advise``."""

import os

from snakemake.exceptions import WorkflowError

from sft_atlas.study.paths import ADVICE, Paths
from sft_atlas.study.study import Study


class AdviseInputs:
    """Files and options of `snakemake advise`, which learns from the study's tables or from ``published``, the gains of the published scores."""

    def __init__(self, study: Study, paths: Paths, published: str):
        self.study, self.paths, self.published = study, paths, published
        self.model, self.datasets = (study.candidates.model, study.candidates.datasets) if study.candidates else ("", ())
        self.folder = self.model or "no-model"
        self.gains = paths.fill(paths.table, table="gains")

    def files(self, kind: str):
        """A function that gives measurements of the candidates; none without the study's tables, which hold the same of other sets."""

        def measured(wildcards) -> list[str]:
            if not self.model or not os.path.exists(self.gains):
                return []
            if kind == "similarity":
                return [self.paths.fill(self.paths.similarity, place=ADVICE.format(model=self.model))]
            keys = [{"dataset": name, "rows": self.study.smallest_rows(name), "model": self.model} for name in self.datasets]
            return [self.paths.fill(getattr(self.paths, kind), **each) for each in keys]

        return measured

    def options(self, wildcards, input) -> str:
        """Base model, candidates and what to learn from: the study's tables if they exist, else the published scores."""
        if not self.model:
            raise WorkflowError(
                "name a base model: snakemake advise --config advise='{model: NAME, datasets: [NAME, NAME]}' (datasets: by default all)"
            )
        from_study = os.path.exists(self.gains)
        if not from_study and not os.path.exists(self.published):
            raise WorkflowError(
                f"there are no gains to learn from: run this study ({self.gains}) or snakemake published ({self.published})"
            )
        files = [f"--{kind} {path}" for kind in ("perplexity", "properties", "similarity") for path in getattr(input, kind)]
        names = " ".join(f"--dataset {name}" for name in self.datasets)
        return f"--model {self.model} {names} --learn-from {self.paths.tables if from_study else self.published} {' '.join(files)}"

    def learned_at(self, wildcards) -> str:
        """The time stamp of what is learned from: new gains make Snakemake write the advice again, but are not made for it."""
        source = next((path for path in (self.gains, self.published) if os.path.exists(path)), None)
        return f"--learned-at {os.stat(source).st_mtime_ns if source else 0}"
