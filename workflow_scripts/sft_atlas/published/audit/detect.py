"""The audit: every detector over the table, one finding per row of a table, and a page that tells them in words."""

import textwrap

import polars as pl

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


def apply(scores: pl.DataFrame, changed: pl.DataFrame, policy: str) -> pl.DataFrame:
    """The tidy frame under a policy: as published, or with the repaired cells; nulled cells are dropped, as missing ones are."""
    if policy == "raw":
        return scores
    joined = scores.join(changed.with_columns(pl.lit(True).alias("hit")), on=["row", "task"], how="left", maintain_order="left")
    score = pl.when(pl.col("hit")).then(pl.col("value")).otherwise(pl.col("score"))
    return joined.with_columns(score.alias("score")).drop("value", "finding", "hit").drop_nulls("score")
