"""Audit published scores: what is wrong with them, how it shows, which cells are repaired and which are not to be used."""

import argparse
import json
import textwrap
from pathlib import Path

import polars as pl

from sft_atlas.core.files import write_table, write_text
from sft_atlas.published.audit import copies, implausible, mixed_units, outliers
from sft_atlas.published.audit.wide import REPAIRS, SEVERITIES, Finding, widen

DETECTORS = (
    copies.detect,
    mixed_units.detect_pools,
    implausible.detect_below_chance,
    mixed_units.detect_shares,
    mixed_units.detect_judgements,
    implausible.detect_missing,
    implausible.detect_floors,
    outliers.detect_isolated,
    outliers.detect_spikes,
    outliers.detect_pair_outliers,
    implausible.detect_scales,
)
SHOWN = 12  # lines of detail in the page; all are in audit.parquet
WIDTH = 140


def audit(scores: pl.DataFrame) -> list[Finding]:
    """All findings about a tidy frame, most severe first."""
    wide = widen(scores)
    found = [finding for detect in DETECTORS for finding in detect(wide)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def table(found: list[Finding]) -> pl.DataFrame:
    """One row per finding: finding, severity, title, rows, tasks, cells nulled and replaced, evidence, action, details."""
    schema = {
        "finding": pl.String,
        "severity": pl.String,
        "title": pl.String,
        "rows": pl.List(pl.Int64),
        "tasks": pl.List(pl.String),
        "nulled": pl.Int64,
        "replaced": pl.Int64,
        "evidence": pl.String,
        "action": pl.String,
        "details": pl.List(pl.String),
    }
    rows = [(f.key, f.severity, f.title, f.rows, f.tasks, len(f.cells), len(f.replaced), f.evidence, f.action, f.details) for f in found]
    return pl.DataFrame(rows, schema=schema, orient="row")


def repairs(found: list[Finding]) -> pl.DataFrame:
    """One row per cell that the policy ``repaired`` changes: row, task, value (null: nulled), finding. A null wins over a value."""
    cells = [(row, task, None, f.key) for f in found for row, task in f.cells]
    cells += [(row, task, value, f.key) for f in found for row, task, value in f.replaced]
    frame = pl.DataFrame(cells, schema=REPAIRS, orient="row")
    first_null = frame.sort(pl.col("value").is_not_null(), maintain_order=True)
    return first_null.unique(["row", "task"], keep="first", maintain_order=True).sort("row", "task")


def page(found: list[Finding], scores: pl.DataFrame, source: str, changed: pl.DataFrame) -> str:
    """The audit as Markdown; ``changed`` is :func:`repairs`."""
    wide = widen(scores)
    nulled, replaced = changed["value"].null_count(), changed["value"].count()
    lines = [
        "# Audit of the published scores",
        "",
        *_wrap(
            f"{source}: {len(wide.keys):,} checkpoints, {len(wide.tasks)} columns, {scores.height:,} scores. {len(found)} findings. Under the policy "
            f"`repaired` {replaced:,} scores are derived anew and {nulled:,} are null; under `raw` everything stands as published. Both policies "
            "run through every table and figure. Rows are numbers of the file's first column."
        ),
        "",
        "| finding | severity | rows | columns | nulled | repaired |",
        "|---|---|---|---|---|---|",
        *(
            f"| {f.title} (`{f.key}`) | {f.severity} | {len(f.rows) or ''} | {len(f.tasks) or ''} | {len(f.cells) or ''} | {len(f.replaced) or ''} |"
            for f in found
        ),
    ]
    for severity in SEVERITIES:
        part = [finding for finding in found if finding.severity == severity]
        if part:
            lines += ["", f"## Severity: {severity}"]
        for finding in part:
            lines += ["", f"### {finding.title} (`{finding.key}`)", "", *_wrap(finding.evidence), ""]
            if finding.tasks:
                lines += _wrap(f"Columns: {', '.join(finding.tasks)}.")
            if finding.rows:
                lines += _wrap(f"Rows: {ranges(finding.rows)}.")
            lines += ["", *_wrap(f"**Done about it:** {finding.action}.")]
            if finding.details:
                lines += ["", *(f"- {line}" for line in finding.details[:SHOWN])]
                rest = len(finding.details) - SHOWN
                lines += [f"- and {rest} more (`details` in audit.parquet)"] if rest > 0 else []
    return "\n".join(lines) + "\n"


def ranges(rows: list[int], most: int = 30) -> str:
    """``1-3, 7``: rows as ranges, cut after ``most`` of them."""
    parts: list[list[int]] = []
    for row in sorted(set(rows)):
        if parts and row == parts[-1][-1] + 1:
            parts[-1][1:] = [row]
        else:
            parts.append([row])
    told = [f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return ", ".join(told[:most]) + (f" and {len(told) - most} more ranges" if len(told) > most else "")


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def main(args: argparse.Namespace) -> None:
    """Write the findings (table and page) and the table of repairs."""
    scores = pl.read_parquet(args.scores)
    facts = json.loads(args.source.read_text(encoding="utf-8"))
    source = f"{'The authors’ file' if facts['authors_file'] else 'A file of your own'} (sha256 {facts['sha256'][:12]})"
    findings = audit(scores)
    changed = repairs(findings)
    write_table(args.repairs, changed)
    write_table(args.table, table(findings))
    write_text(args.page, page(findings, scores, source, changed))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--source", type=Path, required=True, help="JSON that says where the CSV came from")
    parser.add_argument("--table", type=Path, required=True, help="findings as Parquet")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells as Parquet")
    parser.add_argument("--page", type=Path, required=True, help="findings as Markdown")
    return parser
