"""Test the paper's claims on its own scores, before and after the audit's repairs: statistics, verdicts, and the page of claims.

The base-free statistics of the repaired scores decide. Verdicts: ``supported`` (significant in the claimed direction or, for a claim of
no difference, an interval inside the stated margin), ``contradicted`` (significant in the other direction), ``mixed`` (neither, or gains
disagree), ``not testable here``.
"""

import argparse

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core import markdown
from sft_atlas.core.files import write_table, write_text
from sft_atlas.published import POLICIES, TABLES, changes, claims, columns
from sft_atlas.published.arguments import add_arguments
from sft_atlas.published.claims import READINGS, Claim, Statistic
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.stats.wording import is_significant, p_value, sentence_case


def correct(tested: list[Claim]) -> dict[Statistic, float]:
    """q of every statistic: Benjamini-Hochberg over the claims' tests of the same policy and reading."""
    q: dict[Statistic, float] = {}
    for policy in POLICIES:
        for reading in READINGS:
            part = [s for claim in tested for s in claim.statistics if s.policy == policy and s.reading == reading]
            q |= dict(zip(part, benjamini_hochberg([s.p for s in part]).tolist(), strict=True))
    return q


def significant_sign(statistic: Statistic, q: float) -> int:
    """The sign of a significant effect, else 0."""
    return int(np.sign(statistic.effect)) if is_significant(statistic, q) else 0


def verdict(claim: Claim, q: dict[Statistic, float], policy: str = "repaired") -> str:
    """The verdict under a policy: base-free statistics decide, gains may make it mixed."""
    if claim.fixed:
        return claim.fixed
    deciding = [s for s in _deciding(claim, policy, "base-free") if np.isfinite(s.effect)]
    if not deciding:
        return "not testable here"
    signs = [significant_sign(s, q[s]) for s in deciding]
    if claim.direction == 0:
        inside = [-claim.margin <= s.low and s.high <= claim.margin for s in deciding]
        return "supported" if all(inside) and not any(signs) else "contradicted" if any(signs) and not any(inside) else "mixed"
    gains = [significant_sign(s, q[s]) for s in _deciding(claim, policy, "gain")]
    if all(sign == claim.direction for sign in signs):
        return "mixed" if -claim.direction in gains else "supported"
    return "contradicted" if all(sign == -claim.direction for sign in signs) else "mixed"


def _deciding(claim: Claim, policy: str, reading: str) -> list[Statistic]:
    return [s for s in claim.statistics if s.policy == policy and s.reading == reading and s.decides]


def table(tested: list[Claim]) -> pl.DataFrame:
    """One row per statistic of a claim, and one per claim without any."""
    q, rows = correct(tested), []
    for claim in tested:
        head = claim.key, claim.text, verdict(claim, q)
        rows += [
            (*head, s.label, s.policy, s.reading, s.effect, s.low, s.high, s.p, q[s], s.n, s.unit, s.effect_unit) for s in claim.statistics
        ]
        if not claim.statistics:
            rows.append((*head, claim.method, *[None] * 10))
    schema = dict.fromkeys(("claim", "text", "verdict", "statistic", "policy", "reading"), pl.String)
    schema |= dict.fromkeys(("effect", "low", "high", "p", "q"), pl.Float64) | {"n": pl.Int64, "unit": pl.String, "effect_unit": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def page(tested: list[Claim], changes: list[str], families: str = "") -> str:
    """The claims as Markdown: verdicts, what the repairs change, then every claim with its statistics; ``families``: a sentence."""
    q, rows = correct(tested), []
    for claim in tested:
        decision, before = verdict(claim, q), verdict(claim, q, "raw")
        shown = [_summary(claim, "repaired", "base-free"), _summary(claim, "raw", "gain")]
        rows.append((claim.text, f"**{decision}**", "" if claim.fixed or before == decision else before, *shown))
    head = ("claim", "verdict", "verdict as published, if different", "base-free, repaired", "gain, as published")
    lines = ["# The paper's claims, tested on its own scores", "", *OPENING, *markdown.wrap(families), ""]
    lines += [*markdown.table(head, rows, pad=False), "", "## What the repairs change", "", *changes]
    for number, claim in enumerate(tested, 1):
        decision = f"**{verdict(claim, q).capitalize()}.** {claim.note}".strip()
        method = f"Statistic: {claim.method}." if claim.statistics else f"{sentence_case(claim.method)}."
        lines += ["", f"## {number}. {claim.text}", "", *markdown.wrap(decision), "", *markdown.wrap(method)]
        if claim.statistics:
            order = sorted(claim.statistics, key=lambda s: (READINGS.index(s.reading), s.label, -POLICIES.index(s.policy)))
            rows = [(s.label, s.reading, s.policy, _effect(s), _interval(s), _p(s.p), _p(q[s]), f"{s.n} {s.unit}") for s in order]
            head = ("statistic", "reading", "policy", "effect", "95 % interval", "p", "q", "n")
            lines += ["", *markdown.table(head, rows, pad=False)]
    return "\n".join(lines) + "\n"


OPENING = [
    *markdown.wrap(
        "Each claim is tested in two readings. **Base-free** statistics compare training sets, methods, sizes or epochs of one base model, "
        "so they need no base score. **Gain** statistics subtract the base model's score, which is often wrong because the base model fails "
        "on format ([audit.md](audit.md)). Both are computed under two policies: `raw`, the scores as published, and `repaired`, the scores "
        "after the audit's repairs."
    ),
    "",
    *markdown.wrap(
        "The base-free statistics of the repaired scores decide. The verdict is mixed if they are not significant, or if gains are significant "
        "in the other direction. Intervals are 95 % bootstrap intervals over base models unless stated otherwise. q is p corrected "
        "(Benjamini-Hochberg) over all tests on this page with the same reading and policy. Where the paper's text was not available, the "
        "wording of a claim follows second-hand notes."
    ),
    "",
]


def families(scores: pl.DataFrame) -> str:
    """How many families the base models come from, and what that means for intervals over base models."""
    models = scores["model"].unique().sort().to_list()
    size, caveat = select.families([columns.KEYS.get(name, ("", "unknown"))[1] for name in models])
    return f"The {len(models)} base models come {size}. {caveat}".strip()


def _summary(claim: Claim, policy: str, reading: str) -> str:
    shown = [s for s in _deciding(claim, policy, reading) if np.isfinite(s.effect)]
    return "; ".join(f"{s.label}: {_effect(s)} {_interval(s)}".rstrip() for s in shown[:2]) + (" ..." if len(shown) > 2 else "")


def _number(value: float, statistic: Statistic) -> str:
    return f"{value:{'+' if statistic.signed else ''}.{statistic.digits}f}"


def _effect(statistic: Statistic) -> str:
    return "" if np.isnan(statistic.effect) else f"{_number(statistic.effect, statistic)}{statistic.effect_unit}"


def _interval(statistic: Statistic) -> str:
    return "" if np.isnan(statistic.low) else f"[{_number(statistic.low, statistic)} to {_number(statistic.high, statistic)}]"


def _p(value: float) -> str:
    return "" if np.isnan(value) else p_value(value).removeprefix("p ").removeprefix("= ")


def main(args: argparse.Namespace) -> None:
    """Write claims.md and claims.parquet."""
    tables = {policy: {name: pl.read_parquet(args.tables / policy / f"{name}.parquet") for name in TABLES} for policy in POLICIES}
    scores = pl.read_parquet(args.scores)
    tested = claims.all_claims(tables, scores)
    write_table(args.table, table(tested))
    write_text(args.page, page(tested, changes.describe(tables), families(scores)))


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "tables", "table", "page")
