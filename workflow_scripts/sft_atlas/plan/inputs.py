"""Input and parameter functions of the rule ``design``."""

import json
import os
import shlex

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.paths import Paths
from sft_atlas.study.study import Study


class DesignInputs:
    """Files and options of `snakemake design`, which takes variances from the study's gains, from the published scores, or as they are stated.

    ``published``: the table of published scores, and the JSON that says where they came from. They are fetched where they are asked.
    """

    def __init__(self, study: Study, paths: Paths, published: tuple[str, str]):
        self.study, self.paths, self.scores = study, paths, list(published)
        self.question = study.question
        self.name = self.question.asked.question if self.question else "no-question"
        self.gains = paths.fill(paths.table, table="gains")

    def source(self) -> str:
        """``study``, ``published``, or empty where everything is stated."""
        asked = self.question.asked if self.question else None
        if asked is None or asked.source:
            return asked.source if asked else ""
        if os.path.exists(self.gains):
            return "study"
        alone = asked.question == "seeds" or (
            asked.seed_sd is not None and (asked.population == "these" or asked.interaction_sd is not None)
        )
        return "" if alone else "published"

    def published(self, wildcards) -> list[str]:
        """The published scores of single training sets and where they came from, where they are asked."""
        return self.scores if self.source() == "published" else []

    def config(self, study: str) -> str:
        """Study and question as JSON; ``study``: the study's."""
        if not self.question:
            raise AtlasError(
                "name a question, a difference in points and a budget in device-hours: snakemake design --config design='{question: sets, effect: 2, "
                "budget: 200}' (questions: sets, methods, sizes, seeds)"
            )
        if self.source() == "study" and not os.path.exists(self.gains):
            raise AtlasError(f"design.source: this study has no gains yet ({self.gains}); run it, or leave source out")
        names = {"models": self.question.models, "datasets": self.question.datasets, "recipes": self.question.recipes}
        return json.dumps({"study": json.loads(study), "design": self.question.asked.model_dump(exclude_defaults=True) | names})

    def options(self, wildcards) -> str:
        """What to learn from."""
        options = {
            "study": {"--learn-from": self.paths.tables},
            "published": dict(zip(("--published", "--published-source"), self.scores, strict=True)),
        }
        return " ".join(f"{name} {shlex.quote(value)}" for name, value in options.get(self.source(), {}).items())

    def learned_at(self, wildcards) -> str:
        """The time stamp of the study's gains: new ones make Snakemake write the design again, but are not made for it."""
        return f"--learned-at {os.stat(self.gains).st_mtime_ns if os.path.exists(self.gains) else 0}"
