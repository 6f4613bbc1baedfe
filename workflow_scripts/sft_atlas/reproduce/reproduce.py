"""The paper's claims and figures beside those of a study, claim by claim, with what is missing and what that would cost.

Claims are tested by the functions of :mod:`sft_atlas.published.claims`, on the repaired published scores and on the study's own results as far
as they are there. Nothing is trained, scored or measured for it.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.core.files import read_table, write_json, write_table, write_text
from sft_atlas.core.job import long_text
from sft_atlas.core.log import print_to_terminal
from sft_atlas.core.provenance import record_provenance
from sft_atlas.plan.cost import Triple
from sft_atlas.plan.plan import span
from sft_atlas.published import analyse_published, claims, frames, test_claims
from sft_atlas.published.claims import PAPER, Claim, Statistic
from sft_atlas.reproduce import measured
from sft_atlas.reproduce.missing import ALL, NEEDS, Missing, Result
from sft_atlas.reproduce.own_results import Own, names, read
from sft_atlas.stats.wording import count
from sft_atlas.study.paths import Paths
from sft_atlas.study.site import device
from sft_atlas.study.study import Study, from_config, load

PUBLISHED, OWN = "repaired", measured.POLICY  # policies of the statistics
PAPER_STUDY = Path("config/paper.yaml")
TEMPLATE = Path(__file__).with_name("page.html")
SHOWN = 5  # missing results that the page names for a claim
AGREES, IN_PART, DISAGREES, UNDECIDED, MISSING, NOT_HERE, OF_AUTHORS = (
    "agrees", "agrees in part", "disagrees", "cannot be decided", "missing", "not in this study", "about the authors' runs",
)  # fmt: skip
VERDICTS = (AGREES, IN_PART, DISAGREES, UNDECIDED, MISSING, NOT_HERE, OF_AUTHORS)
WORDS = {"supported": AGREES, "mixed": IN_PART, "contradicted": DISAGREES, "undecided": UNDECIDED}
STATED = ("leave-one-out", "mt-bench")  # what the authors did; nobody else's results bear on it


@dataclass(frozen=True)
class Comparison:
    """A statistic of a claim on one side: ``source`` is published or own. ``said``: for, against or open; empty where it decides nothing.

    ``difference`` (effect, low, high): own minus published, where both sides have the statistic with an interval.
    """

    statistic: Statistic
    source: str
    said: str
    p: float
    q: float
    difference: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Entry:
    """A claim with both verdicts. ``verdict`` is one of VERDICTS, ``words`` says what it holds for or rests on.

    ``hours``: device-hours (low, likely, high) of what is missing; None where they cannot be forecast. ``paper_hours``: of everything that
    the claim takes on the paper's grid and is not there.
    """

    key: str
    text: str
    where: str
    method: str
    published: str
    verdict: str
    words: str
    comparisons: list[Comparison]
    needed: int
    missing: list[Result]
    hours: Triple | None
    paper_hours: Triple | None
    scored_by: str = ""


# ---------------------------------------------------------------- both sides


def published_claims(scores: pl.DataFrame, tables: dict[str, pl.DataFrame]) -> dict[str, Claim]:
    """Every claim on the repaired published scores, by key."""
    tested = claims.tested({PUBLISHED: tables}, (PUBLISHED,))
    return {claim.key: claim for claim in (*tested, *claims.described(scores), *claims.untestable())}


def own_claims(own: Own, tables: dict[str, pl.DataFrame]) -> dict[str, Claim]:
    """Every claim on a study's own results, by key; ``tables`` are those of :func:`analyse_published.tables`."""
    tested = measured.on_the_map(claims.tested({OWN: tables}, (OWN,)), own)
    return {claim.key: claim for claim in (*tested, *measured.all_claims(own))} | {"checkpoints": checkpoints(own)}


def checkpoints(own: Own) -> Claim:
    """How many checkpoints of the paper's base models were scored."""
    scores = own.data.scores.filter(pl.col("epoch") > 0, pl.col("model").is_in(own.names.of_paper()["models"]))
    number = scores.select("model", "dataset", "recipe", "epoch").unique().height
    models = scores["model"].n_unique()
    done = number >= 1059 and models >= 12
    text = f"{count(number, 'checkpoints')} of {count(models, 'base models')} of the paper are scored"
    return claims.of_paper("checkpoints", text, fixed="supported" if done else test_claims.UNTESTABLE, needs="the paper's grid")


def verdict(claim: Claim, q: dict[Statistic, test_claims.Test], results: int, missing: int) -> tuple[str, str]:
    """The verdict on a study's own results and what it holds for; ``results``: how many the claim needs of this study."""
    word = test_claims.verdict(claim, q, OWN)
    if word in WORDS:
        said = WORDS[word]
        if word == "undecided":
            return said, f"with n = {_units(claim, q)}"
        words = [claim.scope, test_claims.tally(claim, q, OWN)]
        return said, "; ".join(filter(None, words))
    if not results:
        return NOT_HERE, f"needs {claim.needs}"
    if missing:
        return MISSING, f"{missing:,} of {count(results, 'results')}"
    return NOT_HERE, f"all {count(results, 'results')} of this study are there, and cannot show it: that takes {claim.needs}"


def _units(claim: Claim, q: dict[Statistic, test_claims.Test]) -> str:
    if few := test_claims.too_few(claim, q, OWN):
        return few
    units = [count(s.n, s.unit) for s, _ in test_claims.answers(claim, q, OWN)]
    return " or ".join(dict.fromkeys(units)) or "too few units"


def difference(own: Statistic, published: Statistic) -> tuple[float, float, float] | None:
    """Own minus published effect with its 95 % interval from those of both, taken as independent (MOVER, Zou and Donner 2008)."""
    if not all(np.isfinite([own.low, own.high, published.low, published.high])):
        return None
    effect = own.effect - published.effect
    below = np.hypot(own.effect - own.low, published.high - published.effect)
    above = np.hypot(own.high - own.effect, published.effect - published.low)
    return effect, float(effect - below), float(effect + above)


def compared(own: Claim | None, published: Claim | None, tests: dict[Statistic, test_claims.Test]) -> list[Comparison]:
    """The statistics of both sides, those of the same name beside each other."""
    sides = {"published": published, "own": own}
    theirs = {(s.label, s.reading): s for s in (published.statistics if published else ())}
    found = []
    for source, claim in sides.items():
        for s in claim.statistics if claim else ():
            if not np.isfinite(s.effect):
                continue
            said = test_claims.answer(claim, s, tests[s]) if s.decides and not claim.fixed else ""
            twin = theirs.get((s.label, s.reading)) if source == "own" else None
            found.append(Comparison(s, source, said, tests[s].p, tests[s].q, difference(s, twin) if twin else None))
    order = list(dict.fromkeys((each.statistic.label, each.statistic.reading) for each in found))
    return sorted(found, key=lambda each: (order.index((each.statistic.label, each.statistic.reading)), each.source == "own"))


def entries(theirs: dict[str, Claim], ours: dict[str, Claim], here: Missing, paper: Missing, own: Own) -> list[Entry]:
    """Every claim of PAPER in its order. Comparisons of each side are corrected together, as in the audit of the published scores."""
    tests = test_claims.correct(list(theirs.values())) | test_claims.correct(list(ours.values()))
    found = []
    for key, (text, where) in PAPER.items():
        published, claim = theirs.get(key), ours.get(key)
        said = test_claims.verdict(published, tests, PUBLISHED) if published else test_claims.UNTESTABLE
        said = "scores cannot show it" if key in claims.MEASURED else said
        if claim is None or key in STATED:
            found.append(
                Entry(
                    key, text, where, published.method if published else "", said, OF_AUTHORS, "nothing to reproduce", [], 0, [], None, None
                )
            )
            continue
        needed, missing = here.needed(key), here.missing(key)
        word, words = verdict(claim, tests, len(needed), len(missing))
        if word != MISSING and missing:
            words += f"; so far: {len(missing):,} of {count(len(needed), 'results')} are missing"
        hours, full = here.hours(missing), paper.hours(paper.missing(key))
        found.append(
            Entry(
                key,
                text,
                where,
                claim.method,
                said,
                word,
                words,
                compared(claim, published, tests),
                len(needed),
                missing,
                hours,
                full,
                _scored_by(key, own),
            )
        )
    return found


def _scored_by(key: str, own: Own) -> str:
    wanted = NEEDS[key].benchmarks
    if wanted is None:
        return ""
    return "; ".join(dict.fromkeys(said for name, said in own.scored_by.items() if wanted == ALL or name in wanted))


# ---------------------------------------------------------------- outputs


def claims_table(found: list[Entry]) -> pl.DataFrame:
    """One row per claim."""
    rows = [
        (
            e.key,
            e.text,
            e.where,
            e.published,
            e.verdict,
            e.words,
            e.scored_by,
            e.needed,
            len(e.missing),
            *_triple(e.hours),
            *_triple(e.paper_hours),
        )
        for e in found
    ]
    schema = dict.fromkeys(("claim", "text", "stated_in", "published_verdict", "verdict", "words", "scored_by"), pl.String)
    schema |= dict.fromkeys(("results", "missing"), pl.Int64)
    schema |= dict.fromkeys(("hours_low", "hours", "hours_high", "paper_hours_low", "paper_hours", "paper_hours_high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _triple(hours: Triple | None) -> Sequence[float | None]:
    return hours or (None, None, None)


def comparisons_table(found: list[Entry]) -> pl.DataFrame:
    """One row per statistic of a claim and side."""
    rows = []
    for entry in found:
        for each in entry.comparisons:
            s = each.statistic
            numbers = s.effect, s.low, s.high, each.p, each.q, *(each.difference or (None, None, None))
            scored_by = entry.scored_by if each.source == "own" else None
            rows.append((entry.key, s.label, each.source, s.reading, each.said, *numbers, s.n, s.unit, s.effect_unit.strip(), scored_by))
    schema = dict.fromkeys(("claim", "statistic", "source", "reading", "answer"), pl.String)
    schema |= dict.fromkeys(("effect", "low", "high", "p", "q", "difference", "difference_low", "difference_high"), pl.Float64)
    schema |= {"n": pl.Int64, **dict.fromkeys(("unit", "effect_unit", "scored_by"), pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row").fill_nan(None)


def missing_table(found: list[Entry]) -> pl.DataFrame:
    """One row per claim and result that it lacks."""
    rows = [(entry.key, result.name, str(result.path)) for entry in found for result in entry.missing]
    return pl.DataFrame(rows, schema=dict.fromkeys(("claim", "result", "path"), pl.String), orient="row")


def about(own: Own) -> list[str]:
    """Which of the paper's base models, training sets and benchmarks the study has, and what it has instead, in sentences."""
    shared, foreign, lines = own.names.of_paper(), own.names.foreign(), []
    for kind, whole, noun in (("models", 12, "base models"), ("datasets", 10, "training sets"), ("benchmarks", None, "benchmarks")):
        of = f" of {whole}" if whole else ""
        others = ", ".join(own.study[kind][name]["label"] for name in foreign[kind])
        text = f"{len(shared[kind])}{of} {noun} of the paper" if shared[kind] else f"None of the paper's {noun}"
        lines.append(f"{text}{f'; tested on others: {others}' if others else ''}.")
    return lines


def cost_text(hours: Triple | None) -> str:
    """Device-hours in words."""
    return "not forecast" if hours is None else f"{span(hours)} h"


def total(found: list[Entry], missing: Missing) -> tuple[int, Triple | None]:
    """How many results are missing for all claims together, and their device-hours; claims share results, which count once."""
    results = dict.fromkeys(result for entry in found for result in entry.missing)
    return len(results), missing.hours(results)


def summary(found: list[Entry]) -> str:
    """How many claims have which verdict."""
    counts = Counter(entry.verdict for entry in found)
    return f"Verdicts: {', '.join(f'{word} {counts[word]}' for word in VERDICTS if counts[word])}."


def terminal(found: list[Entry], here: Missing, study: str, page: Path) -> str:
    """One line per claim, then the total and the page."""
    number, hours = total(found, here)
    width = max(map(len, VERDICTS))
    lines = [f"\nClaims of arXiv 2506.14681 on the study {study}: verdict here | on the published scores | claim"]
    for place, entry in enumerate(found, 1):
        said = "" if entry.verdict == OF_AUTHORS else f": {entry.words}"
        cost = f"; {cost_text(entry.hours)}" if entry.missing else ""
        lines.append(f"  {place:2} {entry.verdict:{width}} | {entry.published:21} | {entry.text}{said}{cost}")
    lines.append(summary(found))
    where = here.device.label
    lines.append(
        f"Missing for all claims together: {number:,} results, {cost_text(hours)} on {where}." if number else "Nothing is missing."
    )
    return "\n".join([*lines, f"Page: {page}", ""])


def page(found: list[Entry], pairs: list, own: Own, here: Missing, paper: Missing) -> str:
    """The page as HTML; names and labels of the study are escaped."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    number, hours = total(found, here)
    context = {
        "entries": found, "pairs": pairs, "study": own.study["study"], "about": about(own), "summary": summary(found), "number": number, "hours": cost_text(hours), "device": here.device.label, "paper_device": paper.device.label,
        "cost": cost_text, "effect": test_claims.effect_text, "interval": test_claims.interval_text, "p": test_claims.p_text,
        "sized": sized, "shown": SHOWN, "signed": signed, "authors_word": OF_AUTHORS,
    }  # fmt: skip
    return templates.get_template(TEMPLATE.name).render(**context)


def sized(statistic: Statistic) -> str:
    """n with its unit."""
    return f"{statistic.n} {statistic.unit}" if statistic.unit.startswith("of ") else count(statistic.n, statistic.unit)


def signed(each: Comparison) -> str:
    """Own minus published with its interval."""
    if each.difference is None:
        return ""
    effect, low, high = (f"{value:+.{each.statistic.digits}f}" for value in each.difference)
    return f"{effect} [{low} to {high}]"


def main(args: argparse.Namespace) -> None:
    """Write the page, its figures, claims.parquet, comparisons.parquet and missing.parquet, and print a line per claim."""
    from sft_atlas.reproduce import figures

    study = from_config(json.loads(args.study), "the study")
    scores, repairs = read_table(args.scores), read_table(args.repairs)
    published = frames.of_scores(frames.apply_policy(scores, repairs, PUBLISHED))
    tables = {name: read_table(args.tables / f"{name}.parquet") for name in claims.READ}
    own = read(study.resolved(), args.results, imported(study, args.results))
    own_tables = analyse_published.tables(own.data, names=claims.READ)
    here, paper = gaps(study, args.results, args.devices), gaps(load(PAPER_STUDY), args.results.parent / "paper", args.devices)
    found = entries(published_claims(scores, tables), own_claims(own, own_tables), here, paper, own)
    pairs = figures.draw(published, tables, own, own_tables, args.figures)
    write_table(args.claims, claims_table(found))
    write_table(args.comparisons, comparisons_table(found))
    write_table(args.missing, missing_table(found))
    facts = record_provenance(own.study, {"scores": args.scores, "repairs": args.repairs}, results=args.results_at)
    write_json(args.claims.with_suffix(".json"), facts)
    write_text(args.page, page(found, pairs, own, here, paper))
    print_to_terminal(terminal(found, here, study.name, args.page))


def imported(study: Study, root: Path) -> list[Path]:
    """Folders of the imports of scores that were read."""
    folders = [Path(Paths.fill(Paths(root).imported_scores, imported=name)).parent for name in study.file.imported_scores]
    return [folder for folder in folders if (folder / "scores.parquet").is_file()]


def gaps(study: Study, root: Path, devices: Path) -> Missing:
    """What is missing of a study with results under ``root``."""
    return Missing(study, names(study.resolved()), device(devices, study.file.plan.device, "plan.device"), root)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=long_text, required=True, help="the study file's content, as JSON; -: standard input")
    p.add_argument("--results", type=Path, required=True, help="results/{study}")
    p.add_argument("--devices", type=Path, required=True, help="config/devices.yaml")
    p.add_argument("--scores", type=Path, required=True, help="tidy published scores, Parquet")
    p.add_argument("--repairs", type=Path, required=True, help="the audit's repairs of them, Parquet")
    p.add_argument("--tables", type=Path, required=True, help="folder of the analyses of the repaired published scores")
    for name, what in (("page", "HTML"), ("claims", "Parquet"), ("comparisons", "Parquet"), ("missing", "Parquet"), ("figures", "folder")):
        p.add_argument(f"--{name}", type=Path, required=True, help=f"output: {what}")
    p.add_argument("--results-at", default="", help="state of the result files: where it changes, the page is written again")
