"""The section of the claims' page on analyses of the paper on which none of its claims rests; from the repaired scores."""

import numpy as np
import polars as pl

from sft_atlas.core import markdown
from sft_atlas.published import agreement, columns
from sft_atlas.published.claims import VARIABLES
from sft_atlas.stats.wording import METHODS, count, p_value, span
from sft_atlas.study import paper

LANGUAGES = {"en": "English", "zh": "Chinese", "ja": "Japanese"}
SHOWN = 3  # most and least similar pairs


def describe(tables: dict[str, pl.DataFrame]) -> list[str]:
    """Lines of Markdown; ``tables`` by name, under one policy. A part that the scores cannot show says so."""
    parts = {
        "LoRA and full fine-tuning": of_methods(tables["method_correlation"]),
        "Pairs of training sets": of_sets(tables["set_similarity"], tables["set_agreement"]),
        "Training sets on their own topic": of_topics(tables["own_topic"]),
        "Examinations in two languages, by pre-training language": of_languages(tables["transfer_by_language"]),
        "All benchmarks over the epochs": of_epochs(tables["composite"]),
        "Principal components of zero-shot scores": of_components(tables["components_zero_shot"]),
    }
    lines = [line for head, body in parts.items() for line in (f"### {head}", "", *body, "")]
    return lines[:-1]


def of_methods(table: pl.DataFrame) -> list[str]:
    text = (
        "Correlation over training sets of the scores after LoRA and after full fine-tuning, within base model and benchmark; each benchmark "
        "counts once. p shuffles training sets as wholes; q is over the base models. Intervals of one base model resample training sets, that "
        "of all also base models. Table `method_correlation`."
    )
    known = table.filter(pl.col("effect").is_not_nan())
    if known.is_empty():
        return [*markdown.wrap(text), "", "Too few runs have both methods."]
    rows = []
    for row in known.iter_rows(named=True):
        together = row["model"] == agreement.ALL
        name = f"all {count(row['models'], 'base models')}" if together else _model(row["model"])
        sizes = f"{count(row['sets'], 'training sets')}, {count(row['pairs'], 'pairs of scores')}"
        rows.append((name, f"{row['effect']:+.2f}", _ends(row, "training sets", row["sets"]), _p(row["p"]), _p(row["q"]), sizes))
    return [*markdown.wrap(text), "", *markdown.table(("base model", "r", "95 % interval", "p", "q", "n"), rows, pad=False)]


def of_sets(pairs: pl.DataFrame, agreed: pl.DataFrame) -> list[str]:
    part = pairs.filter(pl.col("value") == "centred", pl.col("model") == agreement.ALL, pl.col("r").is_not_nan())
    agreed = agreed.filter(pl.col("value") == "centred", pl.col("effect").is_not_nan())
    text = (
        "Correlation over benchmarks of the effects of two training sets (score minus the mean over sets) in each base model after full fine-tuning, or after "
        "LoRA where there is no full fine-tuning. "
        "Effects around a common mean correlate at -1/(sets - 1) on average where sets are unrelated. Tables `set_similarity`, with every base "
        "model, and `set_agreement`."
    )
    lines = [*markdown.wrap(text), ""]
    if part.is_empty():
        return [*lines, "Too few training sets or benchmarks."]
    for row in agreed.iter_rows(named=True):
        said = (
            f"Whether base models agree on which sets act alike: their r of all pairs correlate at {row['effect']:+.2f} "
            f"{_ends(row, 'base models', row['n'])} on average ({p_value(row['p'])}, n = {count(row['n'], 'base models')})."
        )
        lines += [*markdown.wrap(said), ""]
    part = part.sort("r", descending=True, maintain_order=True)
    shown = part if part.height <= 2 * SHOWN else pl.concat([part.head(SHOWN), part.tail(SHOWN)])
    rows = [
        (
            f"{_set(row['first'])} and {_set(row['second'])}",
            f"{row['r']:+.2f}",
            _ends(row, "base models", row["n"]),
            f"{row['smallest']:+.2f} to {row['largest']:+.2f}" if np.isfinite(row["smallest"]) else "",
            count(row["n"], "base models"),
        )
        for row in shown.iter_rows(named=True)
    ]
    head = (f"most and least similar of {part.height} pairs", "mean r", "95 % interval", "range of base models", "n")
    return [*lines, *markdown.table(head, rows, pad=False)]


def of_topics(table: pl.DataFrame) -> list[str]:
    text = (
        "Rank of a training set among all sets on the benchmarks of its own topic, mean over base models (1 is best). p is the sign-flip test "
        "against the middle rank; q is over the rows that can reach 0.05. *First in*: base models in which no set has a better mean rank. "
        "Table `own_topic`."
    )
    known = table.filter(pl.col("n") > 0)
    if known.is_empty():
        return [*markdown.wrap(text), "", "No training set has a benchmark of its own topic on which every set has a score."]
    rows = []
    for row in known.iter_rows(named=True):
        q = f"cannot be decided with {count(row['n'], 'base models')}" if np.isnan(row["q"]) else _p(row["q"])
        rank = f"{row['effect']:.1f} of {row['sets']}"
        ends = _ends(row, "base models", row["n"], 1, "")
        name, method = _set(row["dataset"]), METHODS.get(row["method"], row["method"])
        rows.append(
            (name, row["topic"], method, rank, ends, _p(row["p"]), q, f"{row['best']} of {row['n']}", count(row["n"], "base models"))
        )
    head = ("training set", "topic", "method", "mean rank", "95 % interval", "p", "q", "first in", "n")
    return [*markdown.wrap(text), "", *markdown.table(head, rows, pad=False)]


def of_languages(table: pl.DataFrame) -> list[str]:
    text = (
        "Correlation over training sets of the same examination in two languages, mean over the base models of a pre-training language, with "
        "the range of their r. With fewer than five base models a language has no interval. *Between*: share of the variance of r that lies "
        "between languages, which is (languages - 1)/(n - 1) on average by chance; p permutes the base models' languages, q is over these "
        "shares. Table `transfer_by_language`."
    )
    known = table.filter(pl.col("effect").is_not_nan())
    if known.is_empty():
        return [*markdown.wrap(text), "", "Too few scores in two languages."]
    spoken = [name for name in known["language"].unique(maintain_order=True).to_list() if name != agreement.BETWEEN]
    rows = []
    for (method, first, second), part in known.group_by("method", "first", "second", maintain_order=True):
        found = {row["language"]: row for row in part.iter_rows(named=True)}
        cells = [_language(found[name]) if name in found else "" for name in spoken]
        between = found.get(agreement.BETWEEN)
        rows.append((f"{columns.task(first).label}, {columns.task(second).label}", METHODS.get(method, method), *cells, _between(between)))
    head = ("examinations", "method", *(LANGUAGES.get(name, name) for name in spoken), "between")
    return [*markdown.wrap(text), "", *markdown.table(head, rows, pad=False)]


def _language(row: dict) -> str:
    ends = f"{row['low']:+.2f} to {row['high']:+.2f}" if np.isfinite(row["low"]) else ""
    width = f" [{ends}]" if ends else f" ({row['smallest']:+.2f} to {row['largest']:+.2f})" if np.isfinite(row["smallest"]) else ""
    return f"{row['effect']:+.2f}{width}, n = {row['n']}"


def _between(row: dict | None) -> str:
    if row is None:
        return "cannot be decided"
    if np.isnan(row["p"]):
        return f"cannot be decided with {count(row['n'], 'base models')}"
    return f"{100 * row['effect']:.0f} %, {p_value(row['p'])}, {p_value(row['q'], 'q')}, n = {row['n']}"


def of_epochs(table: pl.DataFrame) -> list[str]:
    text = (
        "Mean over benchmarks, each counting once, minus that at epoch 1, mean over base models, in percentage points; runs on single sets are "
        "first averaged over sets. The largest mean and the last epoch are shown; the largest of several is too large on average. p is the "
        "sign-flip test over base models, q is over all epochs that can reach 0.05. Table `composite`, with every epoch."
    )
    if table.is_empty():
        return [*markdown.wrap(text), "", "No runs keep epoch 1 and a later epoch."]
    rows = []
    for (kind, method, size, schedule), part in table.group_by("kind", "method", "rows", "schedule", maintain_order=True):
        top, last = part.sort("effect", descending=True, maintain_order=True).row(0, named=True), part.row(-1, named=True)
        name = ", ".join(
            [f"{kind} {'set' if kind == 'merged' else 'sets'}", METHODS.get(method, method), f"{size:,} rows a set", schedule or ""]
        )
        for row in [top, last] if top["epoch"] != last["epoch"] else [last]:
            units = count(row["n"], "base models")
            q = f"cannot be decided with {units}" if np.isnan(row["q"]) else _p(row["q"])
            ends = _ends(row, "base models", row["n"])
            if np.isfinite(row["smallest"]) and np.isnan(row["low"]):
                ends += f"; range: {row['smallest']:+.2f} to {row['largest']:+.2f}"
            rows.append((name.removesuffix(", "), row["epoch"], f"{row['effect']:+.2f}", ends, _p(row["p"]), q, units))
    head = ("runs", "epoch", "change since epoch 1", "95 % interval", "p", "q", "n")
    return [*markdown.wrap(text), "", *markdown.table(head, rows, pad=False)]


def of_components(table: pl.DataFrame) -> list[str]:
    text = (
        "The zero-shot columns alone, one for each benchmark of the paper. *By chance*: components that unrelated variables need. "
        "Table `components_zero_shot`."
    )
    first = table.filter(pl.col("component") == 1)
    if first.is_empty():
        return [*markdown.wrap(text), "", "Too few complete zero-shot scores."]
    rows = [
        (
            "effects against the mean set" if row["value"] == "centred" else "gains",
            f"{row['n']} {VARIABLES[row['variables']]}",
            row["observations"],
            f"{100 * row['share']:.0f} %",
            row["needed"],
            span(round(row[end]) for end in ("needed_low", "needed_high")),
        )
        for row in first.iter_rows(named=True)
    ]
    head = ("values", "variables", "observations", "share of the first", "components for 90 %", "by chance")
    return [*markdown.wrap(text), "", *markdown.table(head, rows, pad=False)]


def _ends(row: dict, unit: str, n: int, digits: int = 2, sign: str = "+") -> str:
    if np.isnan(row["low"]):
        return f"none with {count(n, unit)}"
    return f"[{row['low']:{sign}.{digits}f} to {row['high']:{sign}.{digits}f}]"


def _p(value: float) -> str:
    return "" if np.isnan(value) else p_value(value).removeprefix("p ").removeprefix("= ")


def _model(name: str) -> str:
    return paper.KEYS.get(name, (name,))[0]


def _set(name: str) -> str:
    return paper.DATASETS.get(name, (name,))[0]
