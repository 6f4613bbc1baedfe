"""Input and parameter functions of ``rules/tables.smk`` and of the rules that read tables."""

import os
from pathlib import Path

from sft_atlas.study.paths import Paths, result_files
from sft_atlas.study.runs import BASE
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
        own = [str(file.path) for file in result_files(self.resolved, wildcards.table, Path(self.paths.root))]
        if not self.imported(wildcards):
            return own
        # Prompts of base models show which imported scores were measured as ours; gains need the scores of both.
        other = "gains" if wildcards.table == "scores" else "scores"
        more = [
            str(file.path)
            for file in result_files(self.resolved, other, Path(self.paths.root))
            if other == "scores" or file.keys["dataset"] == BASE
        ]
        return [*own, *more]

    def imports(self, *patterns: str) -> list[str]:
        """Files of every import."""
        return [self.paths.fill(pattern, imported=name) for name in self.study.file.imported_scores for pattern in patterns]

    def imported(self, wildcards) -> list[str]:
        """The scores and samples of imports, of the tables that hold them."""
        if wildcards.table not in ("scores", "gains"):
            return []
        return self.imports(self.paths.imported_scores, self.paths.imported_samples)

    def imported_folders(self, wildcards) -> str:
        """The option with the folders of imports."""
        folders = [os.path.dirname(path) for path in self.imports(self.paths.imported_scores)] if self.imported(wildcards) else []
        return f" --imported {' '.join(folders)}" if folders else ""

    def named(self, *tables: str) -> list[str]:
        """Tables by name."""
        return [self.paths.fill(self.paths.table, table=table) for table in tables]


def folder_of_tables(wildcards, input) -> str:
    """The folder of a job's input tables."""
    return os.path.dirname(input.tables[0])


def folder_of_outputs(wildcards, output) -> str:
    """The folder of a job's outputs."""
    return os.path.dirname(output[0])
