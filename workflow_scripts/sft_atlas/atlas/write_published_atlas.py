"""Write the atlas of the published scores: findings, checkpoints, gains and what the audit changed, as pages for a browser."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import polars as pl

from sft_atlas.atlas.contents import Contents
from sft_atlas.atlas.pages import best_sets, checkpoint, explorer, findings, heat_maps, published, tidy_tables
from sft_atlas.atlas.write_atlas import write
from sft_atlas.core import markdown
from sft_atlas.core.files import read_table
from sft_atlas.core.log import print_to_terminal
from sft_atlas.published import FIGURES, POLICIES, columns, frames, summarise_published
from sft_atlas.published.arguments import add_arguments
from sft_atlas.report.figures import FIGURES as STUDY_FIGURES

REPAIRED = POLICIES[1]
PAGES = {
    "index": findings,
    "explorer": explorer,
    "heat_maps": heat_maps,
    "best_sets": best_sets,
    "checkpoint": checkpoint,
    "published": published,
    "tables": tidy_tables,
}
# Captions of the figures that a study does not have.
CAPTIONS = {name: entry.caption for name, entry in STUDY_FIGURES.items()} | {
    "similarity_base_free": "The same correlations of scores relative to the mean training set, which need no base score.",
    "size": "20,000 rows compared with 1,000 rows of the same training set, per benchmark.",
    "cross_lingual": "Effects of training sets on MMLU compared with those on its Chinese and Japanese versions.",
    "quality": "The state of every score: as published, recomputed, set to null, or missing.",
}


def contents(scores: pl.DataFrame, repairs: pl.DataFrame) -> Contents:
    """The repaired scores in the form of a study; those of the benchmarks that the analyses leave out are not among them."""
    data = frames.of_scores(frames.apply_policy(scores, repairs, REPAIRED))
    for name, entry in data.study["benchmarks"].items():
        column = columns.task(name)
        entry |= {"chance": None if column.chance is None else column.chance / 100, "scale": column.scale}
    reading = (
        "Scores are those that the paper's authors published, with the repairs of the audit (page Published). Standard errors are computed from score and n, "
        "and the two scores of a gain count as independent, which overstates its error."
    )
    shown = {"scores": data.scores, "gains": data.gains}
    return Contents(data.study, shown, shown, reading=reading)


def sections(claims: pl.DataFrame) -> list[findings.Section]:
    """The paper's claims with their verdicts, and the figures of the repaired scores."""
    told = claims.unique("claim", keep="first", maintain_order=True)
    rows = [(row["text"], row["sentence"].removeprefix(f"{row['text']}: ")) for row in told.iter_rows(named=True)]
    table = markdown.table(["claim", "verdict"], rows, pad=False)
    note = "The page results/published/claims.md has every comparison and says how a verdict is reached."
    figures = [(name, CAPTIONS[name]) for name in FIGURES]
    return [
        findings.Section("The paper's claims on its own scores", "\n".join([*table, "", note])),
        findings.Section(
            "Figures of the repaired scores",
            "",
            figures,
            [("heat maps", "heat_maps.html"), ("checkpoints", "explorer.html?show=both&last=true"), ("rows of gains", "tables.html#gains")],
        ),
    ]


def main(args: argparse.Namespace) -> None:
    facts = json.loads(args.source.read_text(encoding="utf-8"))
    title = "Published scores of arXiv 2506.14681" if facts["authors_file"] else f"Scores of {Path(facts['source']).name}"
    about = "Made by sft-atlas (snakemake published). Everything on these pages lies beside them."
    scores, repairs, claims = (read_table(path) for path in (args.scores, args.repairs, args.claims))
    said = summarise_published.findings(scores, repairs, read_table(args.tables / REPAIRED / "consistency.parquet"), claims)
    audited = {"scores": scores, "repairs": repairs, "audit": read_table(args.audit)}
    shown = replace(
        contents(scores, repairs),
        heading=title,
        opening="\n".join(f"{number}. {one}" for number, one in enumerate(said, 1)),
        sections=sections(claims),
        figures=str(args.output.parents[1] / "figures" / REPAIRED),
        audited=audited,
        remarks=published.remarks(audited),
    )
    write(args.output.parent, shown, title, about, PAGES)
    print_to_terminal(f"Open in a browser: {args.output}")


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "source", "repairs", "tables", "audit", "claims", "output")
