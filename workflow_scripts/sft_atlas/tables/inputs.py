"""Input and parameter functions of ``rules/tables.smk`` and of the rules that read tables."""

import os
from pathlib import Path

from sft_atlas.study.paths import Paths, result_files
from sft_atlas.study.study import Study


class TableInputs:
    """Functions from wildcards to files and settings, for the tidy tables of a study."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths = study, paths
        self.resolved = study.resolved()

    def study_json(self, wildcards) -> str:
        """The study as written, without defaults (a function, because Snakemake would take its braces for wildcards)."""
        return self.study.file.model_dump_json(exclude_defaults=True, exclude={"plan", "release", "pack"})

    def plan_json(self, wildcards) -> str:
        """The study as written, with the assumptions of its plan."""
        return self.study.file.model_dump_json(exclude_defaults=True)

    def pack_json(self, wildcards) -> str:
        """The study as written, with everything that its results depend on."""
        return self.study.file.model_dump_json(exclude_defaults=True, exclude={"pack"})

    def collected(self, wildcards) -> list[str]:
        """The result files behind a table."""
        return [str(file.path) for file in result_files(self.resolved, wildcards.table, Path(self.paths.root))]

    def named(self, *tables: str) -> list[str]:
        """Tables by name."""
        return [self.paths.fill(self.paths.table, table=table) for table in tables]


def folder_of_tables(wildcards, input) -> str:
    """The folder of a job's input tables."""
    return os.path.dirname(input.tables[0])


def folder_of_outputs(wildcards, output) -> str:
    """The folder of a job's outputs."""
    return os.path.dirname(output[0])
