"""What the repairs change: the same numbers under both policies, and how many tests change their result."""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core import markdown
from sft_atlas.published import POLICIES, columns
from sft_atlas.published.claims import VARIABLES
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, count, count_span, p_value

TESTS = {
    "lora_full": ["benchmark", "data"],
    "size": ["benchmark", "epochs"],
    "transfer": ["method", "first", "second"],
    "consistency": ["dataset", "benchmark", "value"],
}


def describe(tables: dict[str, dict[str, pl.DataFrame]]) -> list[str]:
    """Lines of Markdown; ``tables`` by policy and name."""
    raw, repaired = ({**_gains(part), **_contrasts(part), **_structure(part)} for part in (tables[policy] for policy in POLICIES))
    rows = [(name, raw[name], repaired[name]) for name in raw if name in repaired and raw[name] != repaired[name]]
    rows += _most_similar(tables)
    counts = [f"{name}: {len(changed(tables, name, keys))} of {tables['raw'][name].height}" for name, keys in TESTS.items()]
    text = f"Tests that gain or lose significance (q < {SIGNIFICANT}) or change sign after the repairs: {'; '.join(counts)}."
    head = [*markdown.table(("quantity", *POLICIES), rows, pad=False), ""] if rows else ["No number in this comparison changes.", ""]
    return [*head, *markdown.wrap(text)]


def changed(tables: dict[str, dict[str, pl.DataFrame]], name: str, keys: list[str]) -> list[dict]:
    """Rows of a table of tests that are significant under one policy only, or with opposite signs."""
    before, after = (tables[policy][name] for policy in POLICIES)
    both = before.join(after, on=keys, how="left", suffix="_after", maintain_order="left")

    def sign(row: dict, end: str) -> int:
        value, q = row[f"effect{end}"], row[f"q{end}"]
        return int(np.sign(value)) if value is not None and q is not None and q < SIGNIFICANT else 0

    return [row for row in both.iter_rows(named=True) if sign(row, "") != sign(row, "_after")]


def _estimate(row: dict, unit: str = "", digits: int = 2) -> str:
    effect, low, high = (f"{row[key]:+.{digits}f}" for key in ("effect", "low", "high"))
    if np.isnan(row["effect"]):
        return "too few data"
    interval = "" if np.isnan(row["low"]) else f" [{low} to {high}]"
    q = "not tested" if np.isnan(row["q"]) else p_value(row["q"], "q")
    return f"{effect}{unit}{interval}, {q}, n = {row['n']}"


def _significant(tables: dict[str, pl.DataFrame]) -> str:
    """How many gains are significant, of those that the base models are enough to decide."""
    part = tables["consistency"].filter(pl.col("value") == "gain")
    decidable = part.filter(pl.col("q").is_not_nan())
    if decidable.is_empty():
        return f"cannot be decided with {count_span(part['n'], 'base models')} a cell" if part.height else "none"
    rest = part.height - decidable.height
    found = f"{(decidable['q'] < SIGNIFICANT).sum()} of {decidable.height} (n = {count_span(decidable['n'], 'base models')})"
    few = count_span(part.filter(pl.col("q").is_nan())["n"], "base models")
    return f"{found}; {rest} cannot be decided with {few}" if rest else found


def _gains(tables: dict[str, pl.DataFrame]) -> dict[str, str]:
    gains = tables["gains"]
    method = METHODS.get(select.leading_method(gains), "")
    usable = gains.group_by("model", "benchmark").agg(pl.col("gain").is_not_null().any())["gain"]
    numbers = {
        "usable base scores (model x benchmark)": f"{usable.sum()} of {len(usable)}",
        f"significant gains (training set x benchmark, q < {SIGNIFICANT})": _significant(tables),
    }
    present = set(gains["benchmark"])
    for task in (name for name in ("boolq-5", "mmlu-5", "alpacaeval-0", "mmlu-0", "hellaswag-10") if name in present):
        part = select.of_leading_method(gains).filter(pl.col("benchmark") == task).drop_nulls("gain")
        mean = (
            f"{part['gain'].mean():+.1f} points, n = {count(part['model'].n_unique(), 'base models')}"
            if part.height
            else "no base score left"
        )
        numbers[f"mean gain on {columns.task(task).label}, {method}"] = mean
    return numbers


def _contrasts(tables: dict[str, pl.DataFrame]) -> dict[str, str]:
    numbers = {}
    for task in ("mmlu-5", "math-0", "mbpp-0"):
        for row in tables["lora_full"].filter(pl.col("benchmark") == task, pl.col("pairs") > 0).iter_rows(named=True):
            numbers[f"LoRA minus full fine-tuning on {columns.task(task).label}, {row['data']}"] = _estimate(row, " points", 1)
    for task in ("cmmlu-0", "jmmlu-0"):
        for method, label in (("full", "full fine-tuning"), ("lora", "LoRA")):
            keys = pl.col("first") == "mmlu-5", pl.col("second") == task, pl.col("method") == method, pl.col("n") > 0
            for row in tables["transfer"].filter(*keys).iter_rows(named=True):
                numbers[f"r of MMLU 5-shot and {columns.task(task).label} within models, {label}"] = _estimate(row)
    return numbers


def _structure(tables: dict[str, pl.DataFrame]) -> dict[str, str]:
    numbers = {}
    for variables, label in VARIABLES.items():
        part = tables["components"].filter(pl.col("value") == "gain", pl.col("variables") == variables, pl.col("component") == 1)
        needed = f"{part['needed'][0]} of {part['n'][0]}" if part.height else "too few complete gains"
        numbers[f"components for 90 % of the variance of gains, {label} as variables"] = needed
    part = tables["similarity_tests"].filter(pl.col("value") == "gain", pl.col("question") == "same family - other family")
    defined = part.height and part["effect"].is_not_nan().all()
    numbers["family effect on the similarity of gains"] = _estimate(part.row(0, named=True)) if defined else "too few pairs"
    part = tables["trajectories"]
    part = part.filter(pl.col("kind") == "single", pl.col("epoch") == 1).filter(pl.col("rows") == pl.col("rows").min())
    if part.height:
        series = f"{part.height} of {part['model'].n_unique() * part['benchmark'].n_unique()}"
        numbers["trajectories that start at epoch 1 (model x benchmark, fewest rows)"] = series
    return numbers


def _most_similar(tables: dict[str, dict[str, pl.DataFrame]]) -> list[tuple[str, str, str]]:
    """The two pairs of models whose gains as published are most similar, and the correlation of their repaired base-free effects."""
    gains = tables["raw"]["similarity"].filter(pl.col("of") == "model", pl.col("value") == "gain", pl.col("first") < pl.col("second"))
    free = tables["repaired"]["similarity"].filter(pl.col("of") == "model", pl.col("value") == "centred")
    both = gains.sort("r", descending=True).head(2).join(free, on=["of", "first", "second"], suffix="_free", maintain_order="left")
    return [
        (
            f"r of {row['first']} and {row['second']} (raw: of gains; repaired: of base-free effects)",
            f"{row['r']:+.2f}",
            f"{row['r_free']:+.2f}",
        )
        for row in both.iter_rows(named=True)
        if np.isfinite(row["r"]) and row["r_free"] is not None and np.isfinite(row["r_free"])
    ]
