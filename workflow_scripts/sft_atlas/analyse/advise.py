"""Rank candidate training sets for a base model from what is known before training, or say that they cannot be ranked."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import atomic, write_table


def main(args: argparse.Namespace) -> None:
    """Write the page and the table."""
    import polars as pl

    from sft_atlas.analyse import evidence
    from sft_atlas.analyse.advising import advise

    study = json.loads(args.study.read_text(encoding="utf-8"))
    if args.learn_from.is_dir():
        training, features = evidence.from_study(gathered(args), study, args.model, args.dataset)
    else:
        training, features = evidence.from_published(pl.read_parquet(args.learn_from), args.model, args.dataset)
    advice, skill = advise(training, args.dataset, features, study["seed"])
    rows = [{"model": args.model, "rank": rank, **vars(one)} for rank, one in enumerate(advice, 1)]
    schema = {"model": pl.String, "rank": pl.Int64, "dataset": pl.String, **dict.fromkeys(("gain", "low", "high", "relative"), pl.Float64)}
    write_table(args.output_table, pl.DataFrame(rows, schema=schema | {"known": pl.Boolean}))
    with atomic(args.output_page) as part:
        part.write_text(evidence.page(args.model, args.dataset, training, advice, skill), encoding="utf-8")


def gathered(args: argparse.Namespace) -> dict:
    """The study's tables, with perplexity and properties of the candidates in place of its own, and similarity measured for both."""
    import polars as pl

    from sft_atlas.tables.perplexity import perplexity_summary

    tables = {name: pl.read_parquet(args.learn_from / f"{name}.parquet") for name in ("gains", "perplexity", "properties")}
    tables["similarity"] = pl.read_parquet(args.similarity)
    samples = perplexity_summary(pl.concat([pl.read_parquet(path) for path in args.perplexity]))
    for name, more, keys in (
        ("perplexity", samples, ["model", "dataset", "scope"]),
        ("properties", pl.concat([pl.read_parquet(path) for path in args.properties]), ["dataset"]),
    ):
        columns = tables[name].columns
        tables[name] = pl.concat([more.select(columns), tables[name]], how="vertical_relaxed").unique(
            keys, keep="first", maintain_order=True
        )
    return tables


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    parser.add_argument("--model", required=True, help="name of the base model")
    parser.add_argument("--dataset", action="append", required=True, help="name of a candidate, repeatable")
    parser.add_argument("--learn-from", type=Path, required=True, help="folder of the study's tables, or the table of published scores")
    parser.add_argument("--learnt-at", help="when that was written; not read, it makes the advice again when it changes")
    parser.add_argument(
        "--perplexity", type=Path, action="append", default=[], help="perplexity of a candidate under the model, repeatable"
    )
    parser.add_argument("--properties", type=Path, action="append", default=[], help="properties of a candidate, repeatable")
    parser.add_argument("--similarity", type=Path, help="similarity of the study's training sets and the candidates to its benchmarks")
    parser.add_argument("--output-page", type=Path, required=True, help="Markdown")
    parser.add_argument("--output-table", type=Path, required=True, help="Parquet, one row per candidate; none without a ranking")
    return parser
