"""Write the findings of a study in words, each with its number, interval, p-value, n and figure."""

import argparse
import os
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import read_json, write_text
from sft_atlas.core.markdown import bullets, wrap
from sft_atlas.report.findings import WIDTH, Finding
from sft_atlas.report.sections import predictors, representation, scores, weights
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.stats.wording import count, span
from sft_atlas.study import paths
from sft_atlas.tables import stored

MOST = 10  # runs that a line names


def sections(tables: dict[str, pl.DataFrame], study: dict) -> list[Finding]:
    """All findings, in the order of the page; a study without the runs for one gets a section that says which it needs."""
    return [
        scores.changed(tables["gains"], study),
        scores.extremes(tables["gains"], study),
        scores.similar_sets(tables["gains"], study),
        predictors.perplexity(tables, study),
        predictors.predictors(tables["predictors"]),
        scores.methods(tables["gains"], study),
        weights.change_by_depth(tables["layers"], study),
        weights.change_and_gain(tables["layer_peaks"]),
        representation.dimension(tables["dimension"], study),
        representation.base_models(tables["likelihood"], study),
        representation.factors(tables["map_shares"], tables["map_effects"]),
        scores.epochs_and_size(tables["gains"], study),
        scores.leave_one_out(tables["scores"], study),
    ]


def page(study: dict, tables: dict[str, pl.DataFrame], figures: Path, missing: dict[str, int] | None = None) -> str:
    """The page as Markdown.

    ``figures`` is the folder of the figures as the page's links see it; ``missing`` counts the absent files of each table.
    """
    findings = sections(tables, study)
    every = [statement for finding in findings for statement in finding.statements]
    adjusted = iter(benjamini_hochberg([statement.estimate.p for statement in every]).tolist())
    lines = opening(study, tables, sum(not np.isnan(statement.estimate.p) for statement in every), missing or {})
    for number, finding in enumerate(findings, 1):
        lines += ["", f"## {number}. {finding.title}", ""]
        q = [next(adjusted) for _ in finding.statements]
        if finding.body:
            lines += [*finding.body(q), *([""] if finding.notes else [])]
        else:
            lines += bullets(
                [statement.sentence(statement.estimate, value) for statement, value in zip(finding.statements, q, strict=True)], WIDTH
            )
        lines += bullets(finding.notes, WIDTH)
        lines += ["", *(f"Figure: {os.path.join(figures, name + '.pdf')}" for name in (finding.figure, *finding.more_figures))]
    return "\n".join(lines) + "\n"


def opening(study: dict, tables: dict[str, pl.DataFrame], tests: int, missing: dict[str, int]) -> list[str]:
    """Title, size of the study, how to read the numbers, and what is missing."""
    table = tables["scores"]
    checkpoints = table.filter(pl.col("epoch") > 0).select("model", "dataset", "recipe", "epoch").unique().height
    items = table.group_by("model", "dataset", "recipe", "epoch").agg(pl.col("n").sum())["n"]
    models = table.filter(pl.col("epoch") == 0)["model"].unique(maintain_order=True).to_list()
    families, caveat = select.families([study["models"][name].get("family", "unknown") for name in models])
    size = (
        f"{count(tables['runs'].height, 'runs')}, {count(checkpoints, 'checkpoints')}, {count(len(models), 'base models')} {families}; "
        f"{count(table['benchmark'].n_unique(), 'benchmarks')}, {span(items)} items per checkpoint."
    )
    reading = (
        f"A gain is a score minus that of the base model on the same items, in percentage points. Square brackets hold 95 % intervals, "
        f"bootstrapped over the n given unless stated otherwise. q is p corrected for the {tests} tests on this page (Benjamini-Hochberg). "
        f"An effect is called significant where its interval excludes 0 and q < 0.05."
    )
    lines = [f"# Findings of the study {study['study']}", "", *wrap(size, WIDTH), "", *wrap(f"{reading} {caveat}".strip(), WIDTH)]
    if study.get("left_out"):
        lines += ["", *wrap(f"LEFT OUT by select: {', '.join(study['left_out'])}; no number below includes these runs.", WIDTH)]
    still = tables["runs"].filter(pl.col("logit_change_mean") < pl.col("logit_resolution")).select("model", "dataset", "recipe").rows()
    if still:
        named = ", ".join(map("/".join, still[:MOST])) + (f" and {len(still) - MOST} more" if len(still) > MOST else "")
        what = "mean change of logits is below the rounding of the type that their checkpoints are scored in"
        lines += [
            "",
            *wrap(f"DID NOT MOVE: {count(len(still), 'runs')} ({named}), whose {what}; their scores are those of the base models.", WIDTH),
        ]
    for name, files in missing.items():
        lines += ["", *wrap(f"MISSING: {files} result files of table {name}, listed in {name}.json; no number below includes them.", WIDTH)]
    return lines + unscored(table)


def unscored(table: pl.DataFrame) -> list[str]:
    """Which items have no score, if any."""
    of_benchmark = table.group_by("benchmark", maintain_order=True).agg(pl.col("n_missing").sum(), pl.col("n").sum())
    rows = of_benchmark.filter(pl.col("n_missing") > 0).iter_rows()
    named = [f"{name} {missing:,} of {missing + scored:,}" for name, missing, scored in rows]
    if not named:
        return []
    where = "n counts the others. The samples of a checkpoint say why (column `missing`)."
    return ["", *wrap(f"NO SCORE: items of all checkpoints together that could not be scored: {', '.join(named)}; {where}", WIDTH)]


def main(args: argparse.Namespace) -> None:
    study, tables = stored.load(args, paths.REPORTED)
    missing = {}
    for name in tables:
        record = args.tables / f"{name}.json"
        absent = read_json(record)["missing"] if record.is_file() else []
        if absent:
            missing[name] = len(absent)
    text = page(study, tables, Path(os.path.relpath(args.figures, args.output.parent)), missing)
    write_text(args.output, text)


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p, figures="folder of the figures that the page names", output="Markdown file")
