"""Findings in words made from numbers: never stronger than the interval and the corrected p-value allow."""

import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg

METHODS = {"full": "Full tuning", "lora": "LoRA"}
WIDTH = 100  # characters a line, so that a terminal shows the page as it is


@dataclass(frozen=True)
class Statement:
    """An estimate and the sentence that tells it, given the estimate and its q (p-value corrected over the page; NaN without)."""

    estimate: Estimate
    tell: Callable[[Estimate, float], str]


@dataclass(frozen=True)
class Finding:
    """One section: a title, statements, notes, and the figure (a name in ``plots.FIGURES``) that shows them."""

    title: str
    figure: str
    statements: list[Statement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    table: Callable[[list[float]], list[str]] | None = None  # lines made from the q of the statements, instead of sentences
    also: tuple[str, ...] = ()  # further figures


def needs(title: str, figure: str, runs: str) -> Finding:
    """A section for what this study cannot show."""
    return Finding(title, figure, notes=[f"Nothing to report: it would take {runs}."])


def clear(estimate: Estimate, q: float) -> bool:
    """Whether the direction may be stated: the interval excludes 0 and q, where there is a test, is below 0.05."""
    return estimate.excludes_zero and (np.isnan(q) or q < 0.05)


def wording(estimate: Estimate, q: float, up: str, down: str, unclear: str) -> str:
    """``up`` or ``down`` by the sign of a clear estimate, else ``unclear`` and, if that is why, that the correction undid it."""
    if np.isnan(estimate.effect) or np.isnan(estimate.low):
        return f"{unclear} (too few data for an interval)"
    if clear(estimate, q):
        return up if estimate.effect > 0 else down
    return f"{unclear} after correction for the tests on this page" if estimate.excludes_zero else unclear


def evidence(estimate: Estimate, q: float, scale: float = 1, unit: str = "", digits: int = 2) -> str:
    """Number, interval, p, q and n, such as ``-0.42 [-0.61 to -0.10], p = 0.003, q = 0.01, n = 18 runs``."""
    if np.isnan(estimate.effect):
        return f"not defined, n = {count(estimate.n, estimate.unit)}"
    text = f"{_number(scale * estimate.effect, digits)}{unit}"
    if not np.isnan(estimate.low):
        usual = estimate.interval_method == f"bootstrap over {estimate.n} {estimate.unit}"
        kind = "" if usual else f"; {estimate.interval_method}"
        text += f" [{_number(scale * estimate.low, digits)} to {_number(scale * estimate.high, digits)}{kind}]"
    if not np.isnan(estimate.p):
        text += f", {probability('p', estimate.p)}, {probability('q', q)}"
    return f"{text}, n = {count(estimate.n, estimate.unit)}"


def count(number: int, things: str) -> str:
    """``1 run``, ``2 runs``, ``1 pair of runs``."""
    head, *rest = things.split(" of ", 1)
    head = head.removesuffix("s") if number == 1 else head
    return f"{number:,} {' of '.join([head, *rest])}"


def probability(name: str, value: float) -> str:
    """``p = 0.03`` or ``p < 0.001``."""
    return f"{name} < 0.001" if value < 0.001 else f"{name} = {value:.3f}" if value < 0.1 else f"{name} = {value:.2f}"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def page(study: dict, tables: dict[str, pl.DataFrame], figures: Path, missing: dict[str, int] | None = None) -> str:
    """The page as Markdown.

    ``figures`` is the folder of the figures as the page's links see it; ``missing`` counts the absent files of each table.
    """
    from sft_atlas.report.sections.scores import headlines

    found = headlines(tables, study)
    every = [statement for finding in found for statement in finding.statements]
    adjusted = iter(benjamini_hochberg([statement.estimate.p for statement in every]).tolist())
    lines = opening(study, tables, sum(not np.isnan(statement.estimate.p) for statement in every), missing or {})
    for number, finding in enumerate(found, 1):
        lines += ["", f"## {number}. {finding.title}", ""]
        q = [next(adjusted) for _ in finding.statements]
        if finding.table:
            lines += [*finding.table(q), *([""] if finding.notes else [])]
        else:
            lines += bullets([statement.tell(statement.estimate, value) for statement, value in zip(finding.statements, q, strict=True)])
        lines += bullets(finding.notes)
        lines += ["", *(f"Figure: {os.path.join(figures, name + '.pdf')}" for name in (finding.figure, *finding.also))]
    return "\n".join(lines) + "\n"


def opening(study: dict, tables: dict[str, pl.DataFrame], tests: int, missing: dict[str, int]) -> list[str]:
    """Title, sizes of the study, how to read the numbers, and what is missing."""
    scores = tables["scores"]
    tuned = scores.filter(pl.col("epoch") > 0).select("model", "dataset", "recipe", "epoch").unique().height
    items = scores.group_by("model", "dataset", "recipe", "epoch").agg(pl.col("n").sum())["n"].unique().sort().to_list()
    told = "no" if not items else f"{items[0]:,}" if len(items) == 1 else f"{items[0]:,} to {items[-1]:,}"
    models = scores.filter(pl.col("epoch") == 0)["model"].unique(maintain_order=True).to_list()
    families, shared = select.families([study["models"][name].get("family", "unknown") for name in models])
    sizes = (
        f"{count(tables['runs'].height, 'runs')}, {count(tuned, 'checkpoints')} and "
        f"{count(len(models), 'base models')} {families}; "
        f"{count(scores['benchmark'].n_unique(), 'benchmarks')}, {told} items for each checkpoint."
    )
    reading = (
        f"Gain: score minus that of the base model on the same items, in percentage points. Square brackets: 95 % interval, "
        f"by bootstrap over the n given unless told. q: p corrected for the {tests} tests on this page (Benjamini-Hochberg); "
        f"a direction is stated where the interval excludes 0 and q < 0.05."
    )
    lines = [f"# Findings of the study {study['study']}", "", *_wrap(sizes), "", *_wrap(f"{reading} {shared}".strip())]
    for table, files in missing.items():
        lines += ["", *_wrap(f"MISSING: {files} result files of table {table}, listed in {table}.json; nothing below counts them.")]
    return lines


def bullets(texts: list[str]) -> list[str]:
    """A list item per text, wrapped; ``p = 0.03`` and the like stay on one line."""
    lines = []
    for text in texts:
        glued = re.sub(r"\b([pqnr]) ([=<]) ", "\\1\u00a0\\2\u00a0", text)
        lines += textwrap.wrap(glued, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def show(path: Path) -> None:
    """Print the page at ``path`` for a terminal: Markdown marks of headings become plain underlines."""
    shown = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        title = line.lstrip("#").strip()
        shown += [title, ("=" if line.startswith("# ") else "-") * len(title)] if line.startswith("#") else [line]
    print("\n".join(shown))
