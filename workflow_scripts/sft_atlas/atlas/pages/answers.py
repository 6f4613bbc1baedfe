"""The page *Answers*: what checkpoints answered to the items of a benchmark, beside their base model's answers.

    data/answers.js                          which checkpoints and items are here, and what is left out
    data/answers/{benchmark}/{number}.js     the answers of one checkpoint to one benchmark, by column; both are numbered as in the tables
                                             of ``data/study.js`` and ``data/checkpoints.js``

Prompts and targets that equal the base model's are null. A text is a string, or [its beginning, the number of characters left out].
"""

import json
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.atlas.contents import Contents
from sft_atlas.atlas.site import Site
from sft_atlas.core.files import read_table
from sft_atlas.study.paths import Paths

TITLE = "Answers"
# A page is for reading: of larger studies it has this many checkpoints, items per benchmark and characters per text. The page says so.
CHECKPOINTS, ITEMS, CHARACTERS = 300, 200, 10_000
TEXTS = ("prompt", "target", "output", "extracted", "missing")
COLUMNS = ("item", *TEXTS, "score", "parsed", "truncated")


def add(site: Site, contents: Contents) -> None:
    """Write the page and its data."""
    table = contents.checkpoints
    places = {name: place for place, name in enumerate(table["address"])}
    there = [name for name in by_importance(table) if files(contents, name)]
    shown, benchmarks = there[:CHECKPOINTS], {}
    bases: dict[tuple[str, str], dict] = {}
    for name in shown:
        for suite in files(contents, name):
            for benchmark, total, answers in answers_of(suite):
                model, dataset = name.split("/")[:2]
                if dataset == "base":
                    bases[model, benchmark] = answers
                elif (model, benchmark) in bases:
                    answers = without_repeats(answers, bases[model, benchmark])
                facts = benchmarks.setdefault(
                    benchmark, {"items": total, "shown": len(answers["item"]), "graded": False, "checkpoints": []}
                )
                facts["graded"] |= any(score not in (None, 0.0, 1.0) for score in answers["score"])
                facts["checkpoints"].append(places[name])
                site.data(f"answers/{list(contents.study['benchmarks']).index(benchmark)}/{places[name]}", answers)
    absent = [name for name in table["address"] if name not in set(there)]
    limits = {"checkpoints": CHECKPOINTS, "items": ITEMS, "characters": CHARACTERS}
    site.data("answers", {"benchmarks": benchmarks, "left_out": there[CHECKPOINTS:], "absent": absent, "limits": limits})
    site.page("answers", heading="Answers side by side")


def by_importance(table: dict) -> list[str]:
    """Addresses of checkpoints: base models, then the last checkpoints of runs, then the others, each in the study's order."""
    rank = [0 if epoch == 0 else 1 if last else 2 for epoch, last in zip(table["epoch"], table["last"], strict=True)]
    return [name for _, name in sorted(zip(rank, table["address"], strict=True), key=lambda pair: pair[0])]


def files(contents: Contents, name: str) -> list[Path]:
    """The files of samples of a checkpoint that are there, one per suite."""
    if not contents.root:
        return []
    model, dataset, folder, epoch = name.split("/")
    paths = Paths(contents.root)
    pattern = paths.fill(paths.samples, model=model, dataset=dataset, recipe=folder, epoch=epoch)
    return [path for suite in contents.study["suites"] for path in [Path(paths.fill(pattern, suite=suite))] if path.is_file()]


def answers_of(path: Path) -> list[tuple[str, int, dict]]:
    """Of each benchmark in a file of samples: name, number of items, and the columns of those that are shown."""
    frame, result = read_table(path).sort("benchmark", "item", maintain_order=True), []
    frame = frame.with_columns(pl.lit(None).alias(name) for name in COLUMNS if name not in frame.columns)  # files of former versions
    for (benchmark,), part in frame.group_by("benchmark", maintain_order=True):
        chosen = part[spread(part.height, ITEMS)].select(COLUMNS)
        columns = chosen.with_columns(pl.col("score").fill_nan(None)).to_dict(as_series=False)
        columns["target"] = [target_text(*row) for row in chosen.select("target", "output", "parsed").iter_rows()]
        result.append((benchmark, part.height, columns | {name: [cut(text) for text in columns[name]] for name in TEXTS}))
    return result


def target_text(target: str | None, output: str | None, parsed: float | None) -> str | None:
    """The target of an item as a reader knows it: of options that were compared by likelihood, the text of the right one, not its number.

    The output of such an item is the log-likelihood of each option, in their order; nothing is parsed there. Texts that a model wrote are.
    """
    if parsed is not None or not target or not target.isascii() or not target.isdigit() or not (output or "").startswith("{"):
        return target
    try:
        options = json.loads(output, object_pairs_hook=list)  # two options may have the same words
    except ValueError:
        return target
    return options[int(target)][0].strip() if int(target) < len(options) else target


def spread(count: int, most: int) -> list[int]:
    """At most so many places, evenly spread, because the items of a benchmark are often sorted by subject."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def cut(text: str | None) -> str | list | None:
    """A text, or its beginning and how many characters are left out."""
    return text if text is None or len(text) <= CHARACTERS else [text[:CHARACTERS], len(text) - CHARACTERS]


def without_repeats(answers: dict, base: dict) -> dict:
    """The columns of a checkpoint with null for every prompt and target that its base model has at the same item."""
    place = {item: i for i, item in enumerate(base["item"])}
    at = [place.get(item) for item in answers["item"]]
    return answers | {
        name: [None if i is not None and text == base[name][i] else text for i, text in zip(at, answers[name], strict=True)]
        for name in ("prompt", "target")
    }
