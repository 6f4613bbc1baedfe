"""Write the findings of a study in words, each with its number, interval, p-value, n and figure."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core import markdown
from sft_atlas.core.files import read_json, write_text
from sft_atlas.core.markdown import bullets, wrap
from sft_atlas.report.findings import WIDTH, Finding
from sft_atlas.report.sections import noise, outside, predictors, representation, scores, weights
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.stats.wording import count, span
from sft_atlas.study import paths
from sft_atlas.tables import seeds, stored

MOST = 10  # runs that a line names
SHORT = "In short"  # title of the summary
SHORTEST = 5  # findings in the summary


def sections(tables: dict[str, pl.DataFrame], study: dict) -> list[Finding]:
    """All findings, in the order of the page; a study without the runs for one gets a section that says which it needs.

    ``tables`` have a row for each seed; the findings are about means over seeds.
    """
    tables = {name: seeds.averaged(name, frame) for name, frame in tables.items()}
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
        noise.noise(tables["noise"], tables["runs"], study),
        *outside.outside(tables, study),
    ]


def page(study: dict, tables: dict[str, pl.DataFrame], figures: Path, missing: dict[str, int] | None = None) -> str:
    """The page as Markdown.

    ``figures`` is the folder of the figures as the page's links see it; ``missing`` counts the absent files of each table.
    """
    findings = sections(tables, study)
    lines = opening(study, tables, count_tests(findings), missing or {})
    lines += ["", f"## {SHORT}", "", *in_short(findings)]
    for number, (finding, words) in enumerate(worded(findings), 1):
        lines += ["", f"## {number}. {finding.title}", "", *words]
        lines += ["", *(f"Figure: {os.path.join(figures, name + '.pdf')}" for name in (finding.figure, *finding.more_figures))]
    return "\n".join(lines) + "\n"


def tests(findings: list[Finding]) -> list[float]:
    """The p-value of every statement, NaN where there is no test or where it cannot be decided: the correction leaves those out."""
    estimates = [statement.estimate for finding in findings for statement in finding.statements]
    return [estimate.p if estimate.decidable else np.nan for estimate in estimates]


def count_tests(findings: list[Finding]) -> int:
    """How many tests of significance the findings make together."""
    return int(np.isfinite(tests(findings)).sum())


def corrected(findings: list[Finding]) -> list[list[float]]:
    """q of the statements of each finding: p corrected over all of them; NaN without a test."""
    adjusted = iter(benjamini_hochberg(tests(findings)).tolist())
    return [[next(adjusted) for _ in finding.statements] for finding in findings]


def worded(findings: list[Finding]) -> list[tuple[Finding, list[str]]]:
    """Each finding with its lines of Markdown, below the title and above the figures."""
    result = []
    for finding, q in zip(findings, corrected(findings), strict=True):
        if finding.body:
            lines = [*finding.body(q), *([""] if finding.notes else [])]
        else:
            lines = bullets(
                [statement.sentence(statement.estimate, value) for statement, value in zip(finding.statements, q, strict=True)], WIDTH
            )
        result.append((finding, lines + bullets(finding.notes, WIDTH)))
    return result


def in_short(findings: list[Finding]) -> list[str]:
    """A line for each of the first five sections with a significant effect, in the order of the page, and which others have one."""
    pairs = zip(findings, corrected(findings), strict=True)
    found = [(number, text) for number, (finding, q) in enumerate(pairs, 1) if (text := finding.in_short(q))]
    if not found:
        return wrap("No effect on this page is significant.", WIDTH)
    lines = bullets([f"{text} (section {number})" for number, text in found[:SHORTEST]], WIDTH)
    others = ", ".join(str(number) for number, _ in found[SHORTEST:])
    return [*lines, *(["", f"Further significant effects: section {others}."] if others else [])]


def opening(study: dict, tables: dict[str, pl.DataFrame], tests: int, missing: dict[str, int]) -> list[str]:
    """Title, size of the study, how to read the numbers, and what is missing."""
    table = tables["scores"]
    keys = [name for name in ("model", "dataset", "recipe", "seed", "epoch") if name in table.columns]
    checkpoints = table.filter(pl.col("epoch") > 0).select(keys).unique().height
    items = table.group_by(keys).agg(pl.when(pl.col("n").count() > 0).then(pl.col("n").sum()).alias("n"))["n"]
    models = table.filter(pl.col("epoch") == 0)["model"].unique(maintain_order=True).to_list()
    families, caveat = select.families([study["models"][name].get("family", "unknown") for name in models])
    size = (
        f"{count(tables['runs'].height, 'runs')}, {count(checkpoints, 'checkpoints')}, {count(len(models), 'base models')} {families}; "
        f"{count(table['benchmark'].n_unique(), 'benchmarks')}, {span(items)} items per checkpoint."
    )
    reading = (
        f"A gain is a score minus that of the base model on the same items, in percentage points. Square brackets hold 95 % "
        f"intervals over the n given: Student's t for mean differences, otherwise a bootstrap, unless another method is named. q is p corrected for the {tests} tests on this page (Benjamini-Hochberg). "
        f"An effect is called significant where its interval excludes 0 and q < 0.05."
    )
    lines = [f"# Findings of the study {study['study']}", "", *wrap(size, WIDTH), "", *wrap(f"{reading} {caveat}".strip(), WIDTH)]
    for line in study.get("imports", []):
        lines += ["", *wrap(line, WIDTH)]
    if study.get("left_out"):
        lines += ["", *wrap(f"LEFT OUT by select: {', '.join(study['left_out'])}; no number below includes these runs.", WIDTH)]
    for line in (*noise.numbers_of_seeds(tables["runs"]), *noise.recipes_left_out(study)):
        lines += ["", *wrap(line, WIDTH)]
    still = tables["runs"].filter(pl.col("logit_change_mean") < pl.col("logit_resolution")).select(*select.RUN, "seed").rows()
    if still:
        named = ", ".join(f"{'/'.join(key)}{f', seed {seed}' if seed else ''}" for *key, seed in still[:MOST]) + (
            f" and {len(still) - MOST} more" if len(still) > MOST else ""
        )
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
    study, tables = stored.load(args, paths.REPORTED, each_seed=True)
    text = page(study, tables, Path(os.path.relpath(args.figures, args.output.parent)), missing_files(args.tables, tables))
    write_text(args.output, text)
    if args.page:
        write_text(args.page, markdown.page(text))


def missing_files(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """How many result files each table in the folder lacks; tables that lack none are left out."""
    records = {name: folder / f"{name}.json" for name in names}
    counts = {name: len(read_json(record).get("missing", [])) for name, record in records.items() if record.is_file()}
    return {name: count for name, count in counts.items() if count}


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p, figures="folder of the figures that the page names", output="Markdown file")
    p.add_argument("--page", type=Path, help="the same as HTML, which Snakemake's report shows")
