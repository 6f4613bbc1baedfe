"""Test the paper's claims on its own scores, before and after the audit's repairs: statistics, verdicts, and the page of claims.

A claim rests on one or more comparisons. Each is *for* the claim (one-sided test, q < 0.05), *against* it (effect on the other side,
two-sided test, q < 0.05 among such effects), or *open*. Base-free comparisons of the repaired scores decide; gains count where they are for or against. The claim is ``supported`` if
all are for it, ``contradicted`` if all are against it, ``mixed`` if some are for and some against it, else ``undecided``.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core import markdown
from sft_atlas.core.files import write_table, write_text
from sft_atlas.published import POLICIES, TABLES, changes, claims, further
from sft_atlas.published.arguments import add_arguments
from sft_atlas.published.claims import READINGS, Claim, Statistic
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.stats.wording import SIGNIFICANT, count, p_value, sentence_case
from sft_atlas.study import paper

FOR, AGAINST, OPEN = "for", "against", "open"
UNTESTABLE = "not testable here"
VERDICTS = ("supported", "mixed", "undecided", "contradicted", UNTESTABLE)


@dataclass(frozen=True)
class Test:
    """p and q of a comparison: of the one-sided test for the claim or, where the effect is on the other side, of the two-sided test."""

    against: bool = False
    p: float = np.nan
    q: float = np.nan


def one_sided(claim: Claim, statistic: Statistic) -> tuple[float, float]:
    """One-sided p for the claim and for the other side; NaN where there is no such test."""
    if claim.direction:
        both = statistic.greater, statistic.less
        return both if claim.direction > 0 else both[::-1]
    return (statistic.negligible, statistic.greater) if claim.one_sided else (np.nan, np.nan)


def on_other_side(claim: Claim, statistic: Statistic) -> bool:
    """Whether the effect lies on the side that speaks against the claim, and there is a test of that side."""
    side = claim.direction or (-1 if claim.one_sided else 0)
    supported = one_sided(claim, statistic)[0] < SIGNIFICANT
    return bool(statistic.effect * side < 0 and np.isfinite(one_sided(claim, statistic)[1]) and not supported)


def correct(tested: list[Claim]) -> dict[Statistic, Test]:
    """The test of every statistic, with q: Benjamini-Hochberg over the deciding tests of one policy that can reach 0.05.

    The one-sided tests for the claims are corrected together, wherever the effect lies. The two-sided tests of effects on the other side
    are corrected apart. Where there is no effect, its sign says nothing of the size of its two-sided p, so these tests keep their level
    although they are chosen by the sign.
    """
    tests: dict[Statistic, Test] = {}
    for policy in dict.fromkeys(s.policy for claim in tested for s in claim.statistics):
        part = [(claim, s) for claim in tested for s in claim.statistics if s.policy == policy]
        for against in (False, True):
            chosen = [(claim, s) for claim, s in part if not against or on_other_side(claim, s)]
            p = [min(1.0, 2 * one_sided(claim, s)[1]) if against else one_sided(claim, s)[0] for claim, s in chosen]
            least = [s.least * (2 if against else 1) for _, s in chosen]
            usable = [value if s.decides and low <= SIGNIFICANT else np.nan for (_, s), value, low in zip(chosen, p, least, strict=True)]
            adjusted = zip(chosen, usable, benjamini_hochberg(usable).tolist(), strict=True)
            tests |= {s: Test(against, value, q) for (_, s), value, q in adjusted}
    return tests


def answer(claim: Claim, statistic: Statistic, test: Test) -> str:
    """What a comparison says of the claim: FOR, AGAINST or OPEN; where it has no test, by its interval."""
    if np.isfinite(test.q):
        return OPEN if test.q >= SIGNIFICANT else AGAINST if test.against else FOR
    if np.isnan(statistic.low) or claim.one_sided or statistic.least > 0:
        return OPEN
    if claim.direction:
        low, high = sorted((claim.direction * statistic.low, claim.direction * statistic.high))
        return FOR if low > 0 else AGAINST if high < 0 else OPEN
    if statistic.low > claim.margin or statistic.high < -claim.margin:
        return AGAINST
    return FOR if -claim.margin <= statistic.low and statistic.high <= claim.margin else OPEN


def answers(claim: Claim, q: dict[Statistic, Test], policy: str = "repaired") -> list[tuple[Statistic, str]]:
    """The comparisons that decide the claim under a policy, with their answers: all base-free ones, and gains that are for or against."""
    found = [(s, answer(claim, s, q[s])) for s in claim.statistics if s.policy == policy and s.decides and np.isfinite(s.effect)]
    return [(s, said) for s, said in found if s.reading == "base-free" or said != OPEN]


def verdict(claim: Claim, q: dict[Statistic, Test], policy: str = "repaired") -> str:
    """The verdict under a policy, one of VERDICTS."""
    if claim.fixed:
        return claim.fixed
    said = {word for _, word in answers(claim, q, policy)}
    if not said:
        return UNTESTABLE
    if {FOR, AGAINST} <= said:
        return "mixed"
    return "supported" if said == {FOR} else "contradicted" if said == {AGAINST} else "undecided"


def too_few(claim: Claim, q: dict[Statistic, Test], policy: str = "repaired") -> str:
    """The units of an undecided claim, such as ``3 base models``, where they are too few for any test; empty where they are not."""
    said = answers(claim, q, policy)
    few = [s for s, _ in said if s.least > SIGNIFICANT]
    return count(few[0].n, few[0].unit) if few and len(few) == len(said) and verdict(claim, q, policy) == "undecided" else ""


def in_words(claim: Claim, q: dict[Statistic, Test]) -> str:
    """The verdict with what it holds for, and why it is none."""
    word = verdict(claim, q)
    if few := too_few(claim, q):
        return f"undecided: cannot be decided with {few}"
    return f"{word} {claim.scope}".strip() if word not in ("undecided", UNTESTABLE) else word


def tally(claim: Claim, q: dict[Statistic, Test], policy: str = "repaired") -> str:
    """How many comparisons are for, against and open, such as ``2 for, 1 against``."""
    number = Counter(word for _, word in answers(claim, q, policy))
    return ", ".join(f"{number[word]} {word}" for word in (FOR, AGAINST, OPEN) if number[word])


def sentence(claim: Claim, q: dict[Statistic, Test]) -> str:
    """The claim, its verdict and the strongest comparison on each side, in one sentence."""
    parts = []
    for word, preposition in ((FOR, "for it"), (AGAINST, "against it")):
        found = [s for s, said in answers(claim, q) if said == word]
        if found:
            best = min(found, key=lambda s: (np.nan_to_num(q[s].q, nan=1.0), -abs(s.effect)))
            parts.append(f"{preposition}: {best.label}, {effect_text(best)} {interval_text(best)}".rstrip())
    text = f"{claim.text}: {in_words(claim, q)}"
    return f"{text} ({tally(claim, q)}). {sentence_case('; '.join(parts))}." if parts else f"{text}."


def table(tested: list[Claim]) -> pl.DataFrame:
    """One row per statistic of a claim, and one per claim without any; ``p`` and ``q`` as in :class:`Test`."""
    q, rows = correct(tested), []
    for claim in tested:
        head = claim.key, claim.text, verdict(claim, q), sentence(claim, q)
        for s in claim.statistics:
            said = answer(claim, s, q[s]) if s.decides and np.isfinite(s.effect) and not claim.fixed else None
            numbers = s.effect, s.low, s.high, q[s].p, q[s].q
            rows.append((*head, s.label, s.policy, s.reading, said, *numbers, s.n, s.unit, s.effect_unit))
        if not claim.statistics:
            rows.append((*head, claim.method, *[None] * 11))
    schema = dict.fromkeys(("claim", "text", "verdict", "sentence", "statistic", "policy", "reading", "answer"), pl.String)
    schema |= dict.fromkeys(("effect", "low", "high", "p", "q"), pl.Float64)
    schema |= {"n": pl.Int64, "unit": pl.String, "effect_unit": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").fill_nan(None)


def page(
    tested: list[Claim], changes: list[str], families: str = "", source: str = "its own scores", further: list[str] | None = None
) -> str:
    """The claims as Markdown: verdicts, what the repairs change, every claim with its statistics, then ``further`` analyses.

    ``families`` is a sentence, ``changes`` and ``further`` are lines.
    """
    q, rows = correct(tested), []
    for claim in tested:
        decision, before = verdict(claim, q), verdict(claim, q, "raw")
        rows.append((claim.text, f"**{in_words(claim, q)}**", tally(claim, q), "" if claim.fixed or before == decision else before))
    head = ("claim", "verdict", "comparisons", "verdict on the scores as published, if different")
    lines = [f"# The paper's claims, tested on {source}", "", *OPENING, *markdown.wrap(families), ""]
    lines += [*markdown.table(head, rows, pad=False), "", "## What the repairs change", "", *changes]
    for number, claim in enumerate(tested, 1):
        lines += ["", f"## {number}. {claim.text}", "", *_of_claim(claim, q)]
    if further:
        lines += ["", "## Further analyses", "", *FURTHER, "", *further]
    return "\n".join(lines) + "\n"


def _of_claim(claim: Claim, q: dict[Statistic, Test]) -> list[str]:
    decision = (
        f"**{sentence_case(in_words(claim, q))}.** {claim.note if verdict(claim, q) != UNTESTABLE or not claim.needs else ''}".strip()
    )
    defined = [s for s in claim.statistics if np.isfinite(s.effect)]
    if not defined:
        reason = f"This needs {claim.needs}." if claim.needs else f"{sentence_case(claim.method)}."
        return [*markdown.wrap(decision), "", *markdown.wrap(reason)]
    order = sorted(defined, key=lambda s: (READINGS.index(s.reading), s.label, -POLICIES.index(s.policy)))
    rows = []
    for s in order:
        said = answer(claim, s, q[s]) if s.decides and not claim.fixed else ""
        shown = f"{s.n} {s.unit}" if s.unit.startswith("of ") else count(s.n, s.unit)
        rows.append((s.label, s.reading, s.policy, effect_text(s), interval_text(s), p_text(q[s].p), p_text(q[s].q), said, shown))
    head = ("comparison", "reading", "policy", "effect", "95 % interval", "p", "q", "for the claim?", "n")
    return [*markdown.wrap(decision), "", *markdown.wrap(f"Statistic: {claim.method}."), "", *markdown.table(head, rows, pad=False)]


OPENING = [
    *markdown.wrap(
        "Each claim is tested in two readings. **Base-free** comparisons compare training sets, methods, sizes or epochs of one base model, "
        "so they need no base score. **Gains** subtract the base model's score, which is often wrong because the base model fails on format "
        "([audit.md](audit.md)). Both are computed under two policies: `raw`, the scores as published, and `repaired`, the scores after the "
        "audit's repairs."
    ),
    "",
    *markdown.wrap(
        "**How a verdict is reached.** A comparison is *for* the claim if its one-sided test has q < 0.05. It is *against* the claim if its "
        "effect lies on the other side and its two-sided test has q < 0.05. Else it is *open*. All base-free comparisons of the repaired scores decide, and gains where they are for or against. All "
        "for: **supported**. All against: **contradicted**. Some for and some against: **mixed**. Otherwise **undecided**. A claim of no "
        "difference is supported if the interval lies inside the stated margin, and a statistic without a test is judged by its interval."
    ),
    "",
    *markdown.wrap(
        "q is p corrected (Benjamini-Hochberg) over all deciding tests on this page with the same policy that can reach 0.05: over the one-sided "
        "tests for the claims and, apart from these, over the two-sided tests of effects on the other side, which are shown for such effects. Intervals are two-sided 95 % intervals over base models "
        "unless stated otherwise, so an interval may include 0 where a one-sided test does not. Below five units there is no interval, but "
        "the range of the units. Points are percentage points of a benchmark's range (of 1 to 10 for a judge's score). Where the paper's text was not available, the wording of a claim follows second-hand notes."
    ),
    "",
]

FURTHER = markdown.wrap(
    "Analyses that the paper shows without resting a claim on them, of the repaired scores. Their tests are corrected within each table and "
    "are no part of the corrections above."
)


def families(scores: pl.DataFrame) -> str:
    """How many families the base models come from, and what that means for intervals over base models."""
    models = scores["model"].unique().sort().to_list()
    size, caveat = select.families([paper.KEYS.get(name, ("", "unknown"))[1] for name in models])
    subject = "The base model comes" if len(models) == 1 else f"The {len(models)} base models come"
    return f"{subject} {size}. {caveat}".strip()


def _number(value: float, statistic: Statistic) -> str:
    return f"{value:{'+' if statistic.signed else ''}.{statistic.digits}f}"


def effect_text(statistic: Statistic) -> str:
    return "" if np.isnan(statistic.effect) else f"{_number(statistic.effect, statistic)}{statistic.effect_unit}"


def interval_text(statistic: Statistic) -> str:
    if statistic.note:
        return statistic.note
    if np.isfinite(statistic.low):
        return f"[{_number(statistic.low, statistic)} to {_number(statistic.high, statistic)}]"
    if statistic.n < 2 or np.isnan(statistic.smallest):
        return ""
    ends = " to ".join(_number(value, statistic) for value in (statistic.smallest, statistic.largest))
    return f"none; range of {count(statistic.n, statistic.unit)}: {ends}"


def p_text(value: float) -> str:
    return "" if np.isnan(value) else p_value(value).removeprefix("p ").removeprefix("= ")


def main(args: argparse.Namespace) -> None:
    """Write claims.md and claims.parquet."""
    tables = {policy: {name: pl.read_parquet(args.tables / policy / f"{name}.parquet") for name in TABLES} for policy in POLICIES}
    scores = pl.read_parquet(args.scores)
    facts = json.loads(args.source.read_text(encoding="utf-8"))
    tested = claims.all_claims(tables, scores)
    write_table(args.table, table(tested))
    source = "its own scores" if facts["authors_file"] else f"the scores in {facts['source']}"
    write_text(args.page, page(tested, changes.describe(tables), families(scores), source, further.describe(tables[POLICIES[1]])))


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "source", "tables", "table", "page")
