"""Input and parameter functions of the rule ``advise``."""

import os
import shlex

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.candidates import Candidates
from sft_atlas.study.paper import DATASETS
from sft_atlas.study.paths import ADVICE, Paths
from sft_atlas.study.study import Study


class AdviseInputs:
    """Files and options of `snakemake advise`, which learns from the study's tables, from the published scores, or from both.

    ``published``: the table of published scores, the JSON that says where they came from, and their CSV. They are fetched where the study has no
    gains; beside a study's gains they are asked where they are here already or named by ``published_csv``, so that the network is not needed.
    """

    def __init__(self, study: Study, paths: Paths, published: tuple[str, str, str]):
        self.study, self.paths = study, paths
        self.scores, self.source, self.csv = published
        self.candidates = study.candidates or Candidates("", ())
        self.model, self.datasets = self.candidates.model, self.candidates.datasets
        self.folder = self.model or "no-model"
        self.gains = paths.fill(paths.table, table="gains")

    def from_study(self) -> bool:
        """Whether the study has gains, and candidates that it can measure."""
        return bool(self.model and self.datasets and os.path.exists(self.gains))

    def unpublished(self) -> str:
        """Why the published scores are not asked; empty where they are."""
        if self.candidates.published_datasets == ():
            return "none of the candidates is a training set with published scores"
        if not self.from_study() or self.study.file.published_csv or os.path.exists(self.csv):
            return ""
        return "they are not on this machine (`snakemake published` fetches them)"

    def published(self, wildcards) -> list[str]:
        """The published scores of single training sets and where they came from, where they are asked."""
        return [self.scores, self.source] if self.model and not self.unpublished() else []

    def files(self, kind: str):
        """A function that gives measurements of the candidates; none without the study's tables, which hold the same of other sets."""

        def measured(wildcards) -> list[str]:
            if not self.from_study() or (kind == "perplexity" and not self.candidates.measurable):
                return []
            if kind == "similarity":
                return [self.paths.fill(self.paths.similarity, place=ADVICE.format(model=self.model))]
            keys = [{"dataset": name, "rows": self.study.smallest_rows(name), "model": self.model} for name in self.datasets]
            return [self.paths.fill(getattr(self.paths, kind), **each) for each in keys]

        return measured

    def options(self, wildcards, input) -> str:
        """Base model, candidates and what to learn from."""
        if not self.model:
            raise AtlasError(
                "name a base model: snakemake advise --config advise='{model: NAME, datasets: [NAME, NAME]}' (datasets: by default all)"
            )
        absent = self.unpublished()
        if not self.from_study() and absent:
            raise AtlasError(
                f"there is nothing to learn from: this study has no gains yet ({self.gains}), and {', '.join(self.datasets)}: {absent} "
                f"({', '.join(DATASETS)}). Run the study, or name some of these"
            )
        options = {"--model": [self.model], "--unpublished": [absent] if absent else []}
        if self.from_study():
            options |= {"--learn-from": [self.paths.tables], "--dataset": list(self.datasets)}
            options |= {"--perplexity": input.perplexity, "--properties": input.properties, "--similarity": input.similarity}
        if not absent:
            known = self.candidates
            options |= {"--published": [self.scores], "--published-source": [self.source]}
            options |= {"--published-model": [known.published_model], "--published-dataset": list(known.published_datasets or ())}
            options |= {"--family": [known.family], "--language": [known.language]}
        return " ".join(f"{name} {shlex.quote(value)}" for name, values in options.items() for value in values if value)

    def learned_at(self, wildcards) -> str:
        """The time stamp of the study's gains: new ones make Snakemake write the advice again, but are not made for it."""
        return f"--learned-at {os.stat(self.gains).st_mtime_ns if os.path.exists(self.gains) else 0}"
