"""Write the atlas of a study: its findings, checkpoints and gains as pages that open in a browser from the disk."""

import argparse
from dataclasses import replace
from pathlib import Path

import polars as pl

from sft_atlas.atlas import contents
from sft_atlas.atlas.pages import answers, best_sets, checkpoint, compare, explorer, findings, heat_maps, model_map, tidy_tables
from sft_atlas.atlas.site import Site
from sft_atlas.core.files import read_table
from sft_atlas.core.log import print_to_terminal
from sft_atlas.report import write_findings
from sft_atlas.report.figures import FIGURES
from sft_atlas.study.paths import REPORTED
from sft_atlas.tables import seeds, stored

# The pages by the names of their files, in the order of the navigation.
PAGES = {
    "index": findings,
    "explorer": explorer,
    "heat_maps": heat_maps,
    "best_sets": best_sets,
    "checkpoint": checkpoint,
    "answers": answers,
    "model_map": model_map,
    "compare": compare,
    "tables": tidy_tables,
}
TABLES = (*REPORTED, "history", "properties", "similarity")


def write(folder: Path, shown: contents.Contents, title: str, about: str, pages: dict) -> None:
    """Write the pages, by name of their file, and the data that they share."""
    with Site(folder, title, [(name, module.TITLE) for name, module in pages.items()], about) as site:
        site.data("study", contents.described(shown))
        site.data("checkpoints", shown.checkpoints)
        for module in pages.values():
            module.add(site, shown)
        site.finish()


def of_study(
    study: dict, each_seed: dict[str, pl.DataFrame], root: Path, figures: Path, missing: dict[str, int] | None = None
) -> contents.Contents:
    """What the atlas of a study shows; ``missing`` counts the absent files of each table."""
    tables = {name: seeds.averaged(name, frame) for name, frame in each_seed.items()}
    found = write_findings.sections(tables, study)
    opening = write_findings.opening(study, each_seed, write_findings.count_tests(found), missing or {})
    sections = [
        findings.Section(
            finding.title,
            "\n".join(words),
            [(name, FIGURES[name].caption) for name in (finding.figure, *finding.more_figures)],
            links(finding.figure),
        )
        for finding, words in write_findings.worded(found)
    ]
    return contents.Contents(
        study,
        tables,
        each_seed,
        contents.expected(study),
        heading=f"Findings of the study {study['study']}",
        opening="\n".join(opening[1:]),
        sections=sections,
        figures=str(figures),
        root=str(root),
    )


def links(figure: str) -> list[tuple[str, str]]:
    """Where the rows behind a finding are: the tables of its figure, and the pages that show the same."""
    tables = FIGURES[figure].tables
    found = [("heat maps", "heat_maps.html"), ("best sets", "best_sets.html")] if figure == "gains" else []
    found += [("checkpoints", "explorer.html?show=both&last=true")] if "gains" in tables else []
    return found + [(f"rows of {name}", f"tables.html#{name}") for name in tables]


def main(args: argparse.Namespace) -> None:
    study, tables = stored.load(args, TABLES, each_seed=True)
    about = (
        f"Study {study['study']} of sft-atlas, after arXiv 2506.14681. Everything on these pages lies beside them. The published scores of "
        "the paper have an atlas of their own: snakemake published writes results/published/atlas/index.html."
    )
    shown = of_study(study, tables, args.study.parent, args.figures, write_findings.missing_files(args.tables, tables))
    if study.get("imports"):
        shown = replace(shown, listed={"scores": read_table(args.tables / "scores.parquet")})
    write(args.output.parent, shown, study["study"], about, PAGES)
    print_to_terminal(f"Open in a browser: {args.output}")


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p, figures="folder of the figures", output="index.html of the atlas; the other files come beside it")
