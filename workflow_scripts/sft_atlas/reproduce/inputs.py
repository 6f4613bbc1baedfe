"""Input and parameter functions of ``rules/reproduce.smk``. No result of the study is an input, so that nothing is trained or scored for it."""

import hashlib
import os
from pathlib import Path

from sft_atlas.study.paths import TABLES, Paths, result_files
from sft_atlas.study.study import Study

TEMPLATE, PAPER = "workflow_scripts/sft_atlas/reproduce/page.html", "config/paper.yaml"


class ReproduceInputs:
    """Settings of `snakemake reproduce`, which reads the study's results as they are."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths = study, paths

    def state(self, wildcards) -> str:
        """A hash of the names and time stamps of the result files: other results make Snakemake write the page again."""
        root, resolved = Path(self.paths.root), self.study.resolved()
        files = {str(file.path) for table in TABLES if table != "history" for file in result_files(resolved, table, root)}
        files.add(self.paths.fill(self.paths.similarity, place="tables"))
        files |= {self.paths.fill(self.paths.imported_scores, imported=name) for name in self.study.file.imported_scores}
        there = [f"{name} {os.stat(name).st_mtime_ns}" for name in sorted(files) if os.path.exists(name)]
        return f"--results-at {hashlib.sha256(chr(10).join(there).encode()).hexdigest()[:16]}"
