"""The page *Published*: the authors' rows as published or repaired, the cells that the audit changed, and why."""

import polars as pl

from sft_atlas.atlas.contents import Contents, address, by_column
from sft_atlas.atlas.site import Site
from sft_atlas.published import columns, frames

TITLE = "Published"
CHECKPOINT = ("model", "dataset", "method", "rows", "schedule", "epoch")
UNITS = {columns.PERCENT: "%", columns.FRACTION: "fraction", columns.JUDGE: "judge's mean, 1 to 10"}


def add(site: Site, contents: Contents) -> None:
    """Write the page and ``data/published.js``."""
    site.data("published", as_published(contents.audited))
    site.page("published", ("datatables",), heading="The authors' scores")


def as_published(audited: dict[str, pl.DataFrame]) -> dict:
    """Rows of the CSV by column, ``raw`` scores by task, and ``changes``: (row's place, task, new score or None, finding).

    ``audited``: tidy scores, repairs and audit. Scores are in the units of the CSV.
    """
    scores, repairs = audited["scores"], audited["repairs"]
    names = addresses(scores)
    rows = scores.select("row", *CHECKPOINT).unique("row", keep="first", maintain_order=True).sort("row")
    place = {row: i for i, row in enumerate(rows["row"])}
    tasks = columns.in_order(set(scores["task"]), columns.TASKS)
    raw = {}
    for (task,), part in scores.group_by("task", maintain_order=True):
        raw[task] = [None] * rows.height
        for row, score in part.select("row", "score").iter_rows():
            raw[task][place[row]] = score
    known = repairs.filter(pl.col("row").is_in(rows["row"].to_list()))
    return {
        "rows": {**by_column(rows), "address": [names.get(row) for row in rows["row"]]},
        "tasks": [
            {
                "key": task,
                "label": columns.task(task).label,
                "group": columns.task(task).group,
                "unit": UNITS.get(columns.task(task).scale, ""),
            }
            for task in tasks
        ],
        "raw": raw,
        "changes": [
            [place[row], task, value, finding] for row, task, value, finding in known.select("row", "task", "value", "finding").iter_rows()
        ],
        "findings": audited["audit"].select("finding", "severity", "title", "proven", "likely", "unknown", "action").to_dicts(),
    }


def addresses(scores: pl.DataFrame) -> dict[int, str]:
    """The address of each row of the CSV on the pages of checkpoints; rows without any analysed score have none."""
    kept = scores.filter(pl.col("task").map_elements(lambda key: columns.task(key).analysed, return_dtype=pl.Boolean))
    named = frames.scores_table(scores).select("model", "dataset", "recipe", "epoch")  # in the order of what it keeps
    return {row: address(*keys) for row, keys in zip(kept["row"], named.iter_rows(), strict=True)}


def remarks(audited: dict[str, pl.DataFrame]) -> dict[str, list[str]]:
    """What the page of a checkpoint says of its row in the CSV and of the scores that the audit changed, by address."""
    scores, names = audited["scores"], addresses(audited["scores"])
    titles = dict(audited["audit"].select("finding", "title").iter_rows())
    changed = audited["repairs"].join(scores.select("row", "task", "score"), on=["row", "task"], how="left", maintain_order="left")
    said = {name: [f"Row {row} of the CSV."] for row, name in names.items()}
    for row, task, value, finding, score in changed.select("row", "task", "value", "finding", "score").iter_rows():
        if row in names and score is not None:
            new = "set to null" if value is None else f"recomputed as {value:.2f}"
            said[names[row]].append(f"{columns.task(task).label}: {score:.2f} as published, {new} ({titles.get(finding, finding)}).")
    return said
