"""Say where the pages of the published scores are, and three findings in plain sentences; on the terminal and as a page."""

import argparse
import json
from collections import Counter
from pathlib import Path

import polars as pl

from sft_atlas.core import markdown
from sft_atlas.core.files import write_text
from sft_atlas.core.log import print_to_terminal
from sft_atlas.published import POLICIES, columns
from sft_atlas.published.arguments import add_arguments
from sft_atlas.stats.wording import SIGNIFICANT, count, count_span, p_value
from sft_atlas.study import paper

PAGES = {
    "atlas/index.html": "everything to browse; open it in a browser",
    "audit.md": "what is wrong with the scores, on what grounds, and what was done about it",
    "claims.md": "the paper's claims, each with all its comparisons",
    "figures/repaired/": "figures of the repaired scores; figures/raw/ has those of the scores as published",
    "tables/": "every number, as Parquet",
}
ORDER = ("mixed", "contradicted", "supported")  # which claim is told first


def findings(scores: pl.DataFrame, repairs: pl.DataFrame, consistency: pl.DataFrame, claims: pl.DataFrame) -> list[str]:
    """Three sentences: on the audit, the largest effect of a training set after the repairs, and the claims."""
    return [of_audit(scores, repairs), of_effects(consistency), of_claims(claims)]


def of_audit(scores: pl.DataFrame, repairs: pl.DataFrame) -> str:
    """How many scores the audit changes."""
    size = f"{count(scores['row'].n_unique(), 'checkpoints')} of {count(scores['model'].n_unique(), 'base models')}"
    if repairs.is_empty():
        return f"The audit changes none of the {count(scores.height, 'scores')} of {size}."
    recomputed, nulled = repairs["value"].count(), repairs["value"].null_count()
    return f"Of {count(scores.height, 'scores')} of {size}, the audit recomputes {recomputed:,} and sets {nulled:,} to null."


def of_effects(consistency: pl.DataFrame) -> str:
    """The training set and benchmark with the largest significant effect over base models, compared with the mean of all sets."""
    part = consistency.filter(pl.col("value") == "centred", pl.col("effect").is_not_nan())
    sets = part["dataset"].n_unique()
    if sets < 2:
        return f"Training sets cannot be compared: the scores are of {count(sets, 'training sets')}."
    decidable = part.filter(pl.col("q").is_not_nan())
    if decidable.is_empty():
        return f"No effect of a training set can be decided with {count_span(part['n'], 'base models')}; six are needed."
    found = decidable.filter(pl.col("q") < SIGNIFICANT).sort(pl.col("effect").abs(), descending=True, maintain_order=True)
    if found.is_empty():
        return f"None of {count(decidable.height, 'effects')} of a training set on a benchmark is significant over base models."
    row = found.row(0, named=True)
    name = paper.DATASETS.get(row["dataset"], (row["dataset"],))[0]
    interval = f" [{row['low']:+.1f} to {row['high']:+.1f}]"
    return (
        f"{found.height:,} of {count(decidable.height, 'effects')} of a training set on a benchmark are significant over base models. The largest: "
        f"{name} on {columns.task(row['benchmark']).label}, {row['effect']:+.1f} points{interval} against the mean of all sets "
        f"({p_value(row['q'], 'q')}, n = {count(row['n'], 'base models')})."
    )


def of_claims(claims: pl.DataFrame) -> str:
    """How many claims have which verdict, and one that is mixed, contradicted or supported."""
    by_claim = claims.unique("claim", keep="first", maintain_order=True)
    number = Counter(by_claim["verdict"].to_list())
    words = ", ".join(
        f"{number[word]} {word}" for word in ("supported", "contradicted", "mixed", "undecided", "not testable here") if number[word]
    )
    text = f"Of {count(by_claim.height, 'claims')} of the paper: {words}."
    rank = {word: place for place, word in enumerate(ORDER)}
    told = by_claim.filter(pl.col("verdict").is_in(ORDER), pl.col("answer").is_not_null())
    if told.is_empty():
        return text
    first = min(told.iter_rows(named=True), key=lambda row: rank[row["verdict"]])
    return f"{text} {first['sentence']}"


def page(said: list[str], source: str) -> str:
    """The page: the findings, and links to the other pages."""
    links = [f"[{name}]({name}): {what}" for name, what in PAGES.items()]
    numbered = [line for number, one in enumerate(said, 1) for line in markdown.wrap(f"{number}. {one}")]
    return "\n".join([f"# {source}", "", *numbered, "", *markdown.bullets(links)]) + "\n"


def main(args: argparse.Namespace) -> None:
    """Write summary.md and print what is in it."""
    facts = json.loads(args.source.read_text(encoding="utf-8"))
    tables = args.tables
    consistency = pl.read_parquet(tables / POLICIES[1] / "consistency.parquet")
    said = findings(pl.read_parquet(args.scores), pl.read_parquet(args.repairs), consistency, pl.read_parquet(args.table))
    source = "Published scores of arXiv 2506.14681" if facts["authors_file"] else f"Scores of {facts['source']}"
    write_text(args.page, page(said, source))
    folder = Path(args.page).parent
    places = [f"  {folder / name}: {what}" for name, what in PAGES.items()]
    print_to_terminal("\n".join([f"\n{source}", *(f"  {number}. {one}" for number, one in enumerate(said, 1)), "Pages", *places, ""]))


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "source", "repairs", "tables", "table", "page")
