"""Print a study's findings, and where its figures are."""

import argparse
from pathlib import Path

from sft_atlas.report.write_findings import SHORT
from sft_atlas.study.paths import Paths


def show(path: Path) -> None:
    """Print the page at ``path`` for a terminal: Markdown marks of headings become plain underlines."""
    for line in path.read_text(encoding="utf-8").splitlines():
        title = line.lstrip("#").strip()
        print(f"{title}\n{('=' if line.startswith('# ') else '-') * len(title)}" if line.startswith("#") else line)


def in_short(results: Path) -> list[str]:
    """The summary of the findings in ``results``."""
    page = Path(Paths(results).findings).read_text(encoding="utf-8")
    return ["What was found:", *page.split(f"## {SHORT}\n", 1)[1].split("\n## ", 1)[0].strip().splitlines()]


def main(args: argparse.Namespace) -> None:
    paths = Paths(args.results)
    show(Path(paths.findings))
    figures = sorted(Path(paths.figures).glob("*.pdf"))
    print(f"\n{len(figures)} figures (PDF, and PNG beside each):")
    print("\n".join(f"  {path}" for path in figures))
    print(f"Findings: {paths.findings}   Tables: {paths.tables}")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("results", type=Path, help="results/{study}")
