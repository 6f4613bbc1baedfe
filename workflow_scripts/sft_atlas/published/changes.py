"""What the repairs change: the same numbers before and after, and how many tests come out differently."""

import textwrap

import numpy as np
import polars as pl

from sft_atlas.published import POLICIES
from sft_atlas.stats.wording import p_value

COUNTED = {
    "lora_full": ["benchmark"],
    "size": ["benchmark", "epochs"],
    "transfer": ["method", "first", "second"],
    "consistency": ["dataset", "benchmark", "value"],
}


def lines(tables: dict[str, dict[str, pl.DataFrame]]) -> list[str]:
    """Markdown: a table of numbers under both policies, and the counts of tests that change."""
    rows = [row for row in [*_gains(tables), *_contrasts(tables), *_structure(tables)] if row[1] != row[2]]
    told = [f"| {what} | {' | '.join(values)} |" for what, *values in rows]
    counts = [f"{name}: {len(changed(tables, name, keys))} of {tables['raw'][name].height}" for name, keys in COUNTED.items()]
    text = f"Tests whose significance (q < 0.05) or, if significant, whose sign changes or that can no longer be made: {'; '.join(counts)}."
    return ["| number | raw | repaired |", "|---|---|---|", *told, "", *textwrap.wrap(text, 140)]


def changed(tables: dict[str, dict[str, pl.DataFrame]], name: str, keys: list[str]) -> list[dict]:
    """Rows of a table of tests that are significant under one policy and not, or the other way round, under the other."""
    before, after = (tables[policy][name] for policy in POLICIES)
    both = before.join(after, on=keys, how="left", suffix="_after", maintain_order="left")

    def sign(row: dict, end: str) -> int:
        value, q = row[f"effect{end}"], row[f"q{end}"]
        return int(np.sign(value)) if value is not None and q is not None and q < 0.05 else 0

    return [row for row in both.iter_rows(named=True) if sign(row, "") != sign(row, "_after")]


def _both(tables, make) -> list[str]:
    return [make(tables[policy]) for policy in POLICIES]


def _gains(tables) -> list[tuple]:
    def usable(found: dict[str, pl.DataFrame]) -> str:
        part = found["gains"]
        cells = part.select("model", "benchmark", "gain").group_by("model", "benchmark").agg(pl.col("gain").is_not_null().any())
        return f"{cells['gain'].sum()} of {cells.height}"

    def significant(found: dict[str, pl.DataFrame]) -> str:
        part = found["consistency"].filter(pl.col("value") == "gain")
        return f"{(part['q'] < 0.05).sum()} of {part['q'].is_not_nan().sum()}"

    def mean(benchmark: str):
        def make(found: dict[str, pl.DataFrame]) -> str:
            part = found["gains"].filter(pl.col("benchmark") == benchmark, pl.col("method") == found["gains"]["method"].min())
            gain = part.drop_nulls("gain")
            return f"{gain['gain'].mean():+.1f} points, {gain['model'].n_unique()} models" if gain.height else "no base score is left"

        return make

    names = (
        ("boolq-5", "BoolQ 5"),
        ("mmlu-5", "MMLU 5"),
        ("alpacaeval-0", "AlpacaEval"),
        ("mmlu-0", "MMLU 0"),
        ("hellaswag-10", "HellaSwag 10"),
    )
    return [
        ("base scores that a gain can be taken over (model x benchmark)", *_both(tables, usable)),
        ("gains per training set x benchmark with q < 0.05", *_both(tables, significant)),
        *((f"mean gain on {label}, full tuning", *_both(tables, mean(key))) for key, label in names),
    ]


def _estimate(row: dict, unit: str = "", digits: int = 2) -> str:
    low, high = (f"{row[end]:+.{digits}f}" for end in ("low", "high"))
    return f"{row['effect']:+.{digits}f}{unit} [{low} to {high}], {p_value(row['q'], 'q')}, n = {row['n']}"


def _contrasts(tables) -> list[tuple]:
    rows = []
    for benchmark, label in (("mmlu-5", "MMLU 5"), ("math-0", "MATH 0"), ("mbpp-0", "MBPP 0")):
        found = [tables[policy]["lora_full"].filter(pl.col("benchmark") == benchmark) for policy in POLICIES]
        if all(part.height for part in found):
            rows.append((f"LoRA minus full on {label}", *(_estimate(part.row(0, named=True), " points", 1) for part in found)))
    for other, label in (("cmmlu-0", "MMLU-zh 0"), ("jmmlu-0", "MMLU-jp 0")):
        for method in ("full", "lora"):
            keys = (pl.col("first") == "mmlu-5", pl.col("second") == other, pl.col("method") == method)
            found = [tables[policy]["transfer"].filter(*keys) for policy in POLICIES]
            if all(part.height for part in found):
                rows.append((f"r of MMLU 5 and {label} within models, {method}", *(_estimate(part.row(0, named=True)) for part in found)))
    return rows


def _structure(tables) -> list[tuple]:
    def needed(variables: str):
        def make(found: dict[str, pl.DataFrame]) -> str:
            part = found["components"].filter(pl.col("value") == "gain", pl.col("variables") == variables, pl.col("component") == 1)
            return f"{part['needed'][0]} of {part['n'][0]}" if part.height else "too few complete gains"

        return make

    def family(found: dict[str, pl.DataFrame]) -> str:
        part = found["similarity_tests"].filter(pl.col("value") == "gain", pl.col("question") == "same family - other family")
        return _estimate(part.row(0, named=True)) if part.height and part["effect"].is_not_nan().all() else "too few"

    def first_epoch(found: dict[str, pl.DataFrame]) -> str:
        part = found["trajectories"].filter(pl.col("kind") == "single", pl.col("epoch") == 1)
        part = part.filter(pl.col("rows") == pl.col("rows").min())
        return f"{part.height} of {part['model'].n_unique() * part['benchmark'].n_unique()}"

    rows = [
        (f"components for 90 % of the gains, {name}s as variables", *_both(tables, needed(name)))
        for name in ("benchmark", "dataset", "model")
    ]
    rows += _most_alike(tables)
    rows.append(("family effect on the likeness of gains", *_both(tables, family)))
    if all(found["trajectories"].height for found in tables.values()):
        rows.append(("model x benchmark trajectories (1,000 rows) with a first epoch of their own", *_both(tables, first_epoch)))
    return rows


def _most_alike(tables) -> list[tuple]:
    """The pairs of models whose gains, as published, are most alike, beside their base-free likeness after the repairs."""
    gains = tables["raw"]["similarity"].filter(pl.col("of") == "model", pl.col("value") == "gain", pl.col("first") < pl.col("second"))
    free = tables["repaired"]["similarity"].filter(pl.col("of") == "model", pl.col("value") == "centred")
    both = gains.sort("r", descending=True).head(2).join(free, on=["of", "first", "second"], suffix="_free", maintain_order="left")
    return [
        (f"r of {row['first']} and {row['second']}: gains as published, base-free repaired", f"{row['r']:+.2f}", f"{row['r_free']:+.2f}")
        for row in both.iter_rows(named=True)
    ]
