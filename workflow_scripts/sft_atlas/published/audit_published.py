"""Audit the published scores: what is wrong, on what evidence, and which scores are recomputed or set to null."""

import argparse
import json

import polars as pl

from sft_atlas.core import markdown
from sft_atlas.core.files import write_table, write_text
from sft_atlas.published.arguments import add_arguments
from sft_atlas.published.audit import copies, implausible, mixed_units, outliers
from sft_atlas.published.audit.wide import SEVERITIES, AuditFinding, repaired, repairs, widen

# Faults in how the table was made are looked for in the scores as published, implausible scores in those that remain after these repairs.
AS_PUBLISHED = (
    *(copies.detect, mixed_units.detect_pools, mixed_units.detect_shares, mixed_units.detect_judgements, implausible.detect_scales),
    *(implausible.detect_gaps, implausible.detect_unreleased, implausible.detect_missing_columns, implausible.detect_empty),
)
AFTER_REPAIRS = (
    *(implausible.detect_below_chance, implausible.detect_floors),
    *(outliers.detect_isolated, outliers.detect_spikes, outliers.detect_pair_outliers),
)
GROUNDS = {"proven": "Proven", "likely": "Likely", "unknown": "Not known"}
SHOWN = 12  # lines of detail on the page; audit.parquet has all
RANGES = 30  # ranges of rows on the page


def audit(scores: pl.DataFrame) -> list[AuditFinding]:
    """All findings about tidy scores, most severe first."""
    wide = widen(scores)
    findings = [*implausible.detect_units(scores), *(finding for detect in AS_PUBLISHED for finding in detect(wide))]
    left = repaired(wide, findings)
    findings += [finding for detect in AFTER_REPAIRS for finding in detect(left)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def table(findings: list[AuditFinding]) -> pl.DataFrame:
    """One row per finding; ``nulled`` and ``replaced`` count the scores that are set to null and recomputed."""
    schema = dict.fromkeys(("finding", "severity", "title"), pl.String) | {"rows": pl.List(pl.Int64), "tasks": pl.List(pl.String)}
    schema |= dict.fromkeys(("nulled", "replaced"), pl.Int64) | dict.fromkeys(("proven", "likely", "unknown", "action"), pl.String)
    rows = [
        (f.key, f.severity, f.title, f.rows, f.tasks, len(f.cells), len(f.replaced), f.proven, f.likely, f.unknown, f.action, f.details)
        for f in findings
    ]
    return pl.DataFrame(rows, schema=schema | {"details": pl.List(pl.String)}, orient="row")


def page(findings: list[AuditFinding], scores: pl.DataFrame, source: str, changed: pl.DataFrame) -> str:
    """The audit as Markdown; ``source`` names the CSV, ``changed`` are the :func:`repairs`."""
    wide = widen(scores)
    opening = (
        f"{source}: {len(wide.keys):,} checkpoints, {len(wide.tasks)} columns, {scores.height:,} scores. The audit has {len(findings)} findings. "
        f"The policy `repaired` recomputes {changed['value'].count():,} scores and sets {changed['value'].null_count():,} to null; the policy "
        "`raw` uses all scores as published. Every table and figure exists under both policies. Row numbers are those in the first column of "
        "the CSV."
    )
    grounds = (
        "**Proven** is what follows from the numbers alone, **likely** what a test supports, **not known** what the CSV leaves open. Scores are "
        "recomputed or set to null only on proven or likely grounds. Faults in how the table was made are looked for in the scores as published, "
        "implausible scores in those that remain after the repairs of these faults."
    )
    head = ("finding", "severity", "rows", "columns", "set to null", "recomputed")
    rows = [(f"{f.title} (`{f.key}`)", f.severity, *(len(part) or "" for part in (f.rows, f.tasks, f.cells, f.replaced))) for f in findings]
    lines = [
        "# Audit of the published scores",
        "",
        *markdown.wrap(opening),
        "",
        *markdown.wrap(grounds),
        "",
        *markdown.table(head, rows, pad=False),
    ]
    for severity in SEVERITIES:
        part = [finding for finding in findings if finding.severity == severity]
        lines += ["", f"## Severity: {severity}"] if part else []
        for finding in part:
            lines += ["", f"### {finding.title} (`{finding.key}`)"]
            for how_well, text in finding.evidence.items():
                lines += ["", *markdown.wrap(f"**{GROUNDS[how_well]}:** {text}")]
            if finding.tasks:
                lines += ["", *markdown.wrap(f"Columns: {', '.join(finding.tasks)}.")]
            if finding.rows:
                lines += ["", *markdown.wrap(f"Rows: {ranges(finding.rows)}.")]
            lines += ["", *markdown.wrap(f"**Action:** {finding.action}.")]
            if finding.details:
                rest = len(finding.details) - SHOWN
                more = [f"and {rest} more (column `details` of audit.parquet)"] if rest > 0 else []
                lines += ["", *markdown.bullets([*finding.details[:SHOWN], *more], width=200)]
    return "\n".join(lines) + "\n"


def ranges(rows: list[int]) -> str:
    """``1-3, 7``: rows as ranges, at most RANGES of them."""
    parts: list[list[int]] = []
    for row in sorted(set(rows)):
        if parts and row == parts[-1][-1] + 1:
            parts[-1][1:] = [row]
        else:
            parts.append([row])
    texts = ["-".join(map(str, part)) for part in parts]
    return ", ".join(texts[:RANGES]) + (f" and {len(texts) - RANGES} more ranges" if len(texts) > RANGES else "")


def main(args: argparse.Namespace) -> None:
    """Write the findings (table and page) and the table of repairs."""
    scores = pl.read_parquet(args.scores)
    facts = json.loads(args.source.read_text(encoding="utf-8"))
    source = f"{'The authors’ CSV' if facts['authors_file'] else facts['source']} (sha256 {facts['sha256'][:12]})"
    findings = audit(scores)
    changed = repairs(findings)
    write_table(args.repairs, changed)
    write_table(args.table, table(findings))
    write_text(args.page, page(findings, scores, source, changed))


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "source", "table", "repairs", "page")
