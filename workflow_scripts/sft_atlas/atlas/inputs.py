"""Input functions of ``rules/atlas.smk``."""

from pathlib import Path

from sft_atlas.report.figures import FIGURES
from sft_atlas.study.paths import Paths

WEB = sorted(f"workflow_scripts/sft_atlas/atlas/web/{path.name}" for path in (Path(__file__).parent / "web").iterdir())


def figures(paths: Paths) -> list[str]:
    """Every figure of a study, as PNG and as PDF."""
    return [paths.fill(paths.figure, figure=figure, ending=ending) for figure in FIGURES for ending in ("png", "pdf")]
