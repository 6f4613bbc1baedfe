"""Test the paper's claims on its own scores, before and after the audit's repairs: statistics, verdicts, and the page of claims.

The base-free reading of the repaired scores decides; gains and the scores as published stand beside it. Verdicts: ``supported`` (clear
in the claimed direction, or, for a claim of no difference, an interval inside the stated margin), ``contradicted`` (clear the other
way), ``mixed`` (neither, or the readings disagree), ``not testable here``.
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import write_table, write_text
from sft_atlas.published import POLICIES, TABLES, changes, claims, columns
from sft_atlas.published.claims import READINGS, Claim, Reading
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.stats.wording import p_value

VERDICTS = ("supported", "mixed", "contradicted", "not testable here")
WIDTH = 140


def corrected(found: list[Claim]) -> dict[tuple[str, str, str, str], float]:
    """q of every reading: Benjamini-Hochberg over the tests of one policy and reading on the page."""
    q: dict[tuple[str, str, str, str], float] = {}
    for policy in POLICIES:
        for reading in READINGS:
            part = [(claim, r) for claim in found for r in claim.readings if r.policy == policy and r.reading == reading]
            adjusted = benjamini_hochberg([r.p for _, r in part])
            q |= {(claim.key, r.what, policy, reading): float(value) for (claim, r), value in zip(part, adjusted, strict=True)}
    return q


def clear(reading: Reading, q: float) -> int:
    """The sign of an effect whose interval leaves out 0 and whose q, where there is a test, is below 0.05; else 0."""
    outside = reading.low > 0 or reading.high < 0
    return int(np.sign(reading.effect)) if outside and (np.isnan(q) or q < 0.05) else 0


def verdict(claim: Claim, q: dict[tuple[str, str, str, str], float], policy: str = "repaired") -> str:
    """The verdict under a policy: the base-free readings decide, gains may make it mixed."""
    if claim.fixed:
        return claim.fixed
    deciding = [r for r in claim.readings if r.policy == policy and r.reading == "base-free" and r.decides and np.isfinite(r.effect)]
    if not deciding:
        return "not testable here"
    if claim.direction == 0:
        inside = [-claim.margin <= r.low and r.high <= claim.margin for r in deciding]
        signs = [clear(r, q[claim.key, r.what, r.policy, r.reading]) for r in deciding]
        return "supported" if all(inside) and not any(signs) else "contradicted" if any(signs) and not any(inside) else "mixed"
    signs = [claim.direction * clear(r, q[claim.key, r.what, r.policy, r.reading]) for r in deciding]
    gains = [
        claim.direction * clear(r, q[claim.key, r.what, r.policy, r.reading])
        for r in claim.readings
        if r.policy == policy and r.reading == "gain" and r.decides
    ]
    if all(sign > 0 for sign in signs):
        return "mixed" if any(sign < 0 for sign in gains) else "supported"
    return "contradicted" if all(sign < 0 for sign in signs) else "mixed"


def table(found: list[Claim]) -> pl.DataFrame:
    """One row per reading of a claim, and one per claim without any."""
    q, rows = corrected(found), []
    for claim in found:
        decision = verdict(claim, q)
        head = (claim.key, claim.text, decision)
        rows += [
            (
                *head,
                r.what,
                r.policy,
                r.reading,
                r.effect,
                r.low,
                r.high,
                r.p,
                q[claim.key, r.what, r.policy, r.reading],
                r.n,
                r.unit,
                r.effect_unit,
            )
            for r in claim.readings
        ]
        if not claim.readings:
            rows.append((*head, claim.statistic, None, None, *[None] * 5, None, None, None))
    text, number = dict.fromkeys(("claim", "text", "verdict", "statistic", "policy", "reading"), pl.String), pl.Float64
    schema = (
        text | dict.fromkeys(("effect", "low", "high", "p", "q"), number) | {"n": pl.Int64, "unit": pl.String, "effect_unit": pl.String}
    )
    return pl.DataFrame(rows, schema=schema, orient="row")


def page(found: list[Claim], changes: list[str], families: str = "") -> str:
    """The claims as Markdown: a table of verdicts, what the repairs change, then each claim with its numbers; ``families``: a sentence."""
    q = corrected(found)
    lines = ["# The paper's claims against its own scores", "", *_wrap(f"{OPENING} {families}".strip()), ""]
    lines += ["| claim | verdict | on the scores as published | base-free, repaired | gains, as published |", "|---|---|---|---|---|"]
    for claim in found:
        before = verdict(claim, q, "raw")
        same = "" if claim.fixed or before == verdict(claim, q) else before
        shown = [_shortly(claim, "repaired", "base-free"), _shortly(claim, "raw", "gain")]
        lines.append(f"| {claim.text} | **{verdict(claim, q)}** | {same} | {' | '.join(shown)} |")
    lines += [
        "",
        *_wrap("Third column: the verdict that the scores as published would give, where it differs."),
        "",
        "## What the repairs change",
        "",
        *changes,
    ]
    for number, claim in enumerate(found, 1):
        lines += ["", f"## {number}. {claim.text}", "", *_wrap(f"**{verdict(claim, q).capitalize()}.** {claim.note}".strip())]
        lines += ["", *_wrap(f"Statistic: {claim.statistic}.")]
        if claim.readings:
            lines += ["", "| what | reading | policy | effect | 95 % interval | p | q | n |", "|---|---|---|---|---|---|---|---|"]
            order = {name: i for i, name in enumerate(READINGS)}
            for r in sorted(claim.readings, key=lambda r: (order[r.reading], r.what, -POLICIES.index(r.policy))):
                value = q[claim.key, r.what, r.policy, r.reading]
                numbers = [f"{_number(r.effect, r)}{r.effect_unit}", _interval(r), _p("p", r.p), _p("q", value), f"{r.n} {r.unit}"]
                lines.append(f"| {r.what} | {r.reading} | {r.policy} | {' | '.join(numbers)} |")
    return "\n".join(lines) + "\n"


OPENING = (
    "Base-free: differences between training sets, methods, sizes or epochs of the same base model, for which no base score is needed. Gains: "
    "score minus that of the base model, many of which fail on format (audit.md). Each reading under two policies: `raw`, the scores as "
    "published, and `repaired`, after the audit. The base-free reading of the repaired scores decides; where gains point clearly the other "
    "way the verdict is mixed. Intervals are 95 % bootstrap intervals over base models unless n says otherwise; q is p corrected over the "
    "tests of the page under the same policy and reading (Benjamini-Hochberg). Claims are worded after second-hand notes on the paper where "
    "its text was not at hand."
)


def families(scores: pl.DataFrame) -> str:
    """How many families the base models of a table of scores have, and what that means for units."""
    known = {key: family for key, _, family, _ in columns.MODELS.values()}
    models = scores["model"].unique().sort().to_list()
    told, shared = select.families([known.get(name, "unknown") for name in models])
    return f"The {len(models)} base models are {told}. {shared}".strip()


def _shortly(claim: Claim, policy: str, reading: str) -> str:
    found = [r for r in claim.readings if r.policy == policy and r.reading == reading and r.decides and np.isfinite(r.effect)]
    told = [f"{r.what}: {_number(r.effect, r)}{r.effect_unit} {_interval(r)}".rstrip() for r in found[:2]]
    return "; ".join(told) + (" ..." if len(found) > 2 else "") if told else ""


def _number(value: float, reading: Reading) -> str:
    return "" if value is None or np.isnan(value) else f"{value:+.{reading.digits}f}" if reading.signed else f"{value:.{reading.digits}f}"


def _interval(reading: Reading) -> str:
    return "" if np.isnan(reading.low) else f"[{_number(reading.low, reading)} to {_number(reading.high, reading)}]"


def _p(name: str, value: float) -> str:
    return "" if np.isnan(value) else p_value(value, name).removeprefix(f"{name} ").removeprefix("= ")


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def main(args: argparse.Namespace) -> None:
    """Write claims.md and claims.parquet."""
    tables = {policy: {name: pl.read_parquet(args.tables / policy / f"{name}.parquet") for name in TABLES} for policy in POLICIES}
    scores = pl.read_parquet(args.scores)
    tested = claims.every(tables, scores)
    write_table(args.table, table(tested))
    write_text(args.page, page(tested, changes.lines(tables), families(scores)))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells")
    parser.add_argument("--tables", type=Path, required=True, help="folder with a folder of tables per policy")
    parser.add_argument("--table", type=Path, required=True, help="claims as Parquet")
    parser.add_argument("--page", type=Path, required=True, help="claims as Markdown")
    return parser
