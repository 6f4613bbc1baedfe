"""Print a study's findings, and where its figures are."""

import argparse
from pathlib import Path

from sft_atlas.report import findings


def main(args: argparse.Namespace) -> None:
    findings.show(args.results / "findings.md")
    figures = sorted((args.results / "figures").glob("*.pdf"))
    print(f"\n{len(figures)} figures (PDF, and PNG beside each):")
    print("\n".join(f"  {path}" for path in figures))
    print(f"Findings: {args.results / 'findings.md'}   Tables: {args.results / 'tables'}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("results", type=Path, help="results/{study}")
    return p
