"""Input and parameter functions of ``rules/report.smk``."""

from sft_atlas.core.sources import sources
from sft_atlas.report.figures import FIGURES
from sft_atlas.study.paths import Paths


class ReportInputs:
    """Functions from wildcards to the tables, sources and captions of figures."""

    def __init__(self, paths: Paths):
        self.paths = paths

    def tables(self, wildcards) -> list[str]:
        """The tables that a figure reads."""
        return [self.paths.fill(self.paths.table, table=table) for table in FIGURES[wildcards.figure].tables]

    def code(self, wildcards) -> list[str]:
        """The sources of a figure: editing one figure draws that one again."""
        return sources("plot", f"sft_atlas.report.figures.{wildcards.figure}")
