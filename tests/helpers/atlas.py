"""Atlases for tests: of an invented study with hostile names, of a grid as large as the paper's, and a browser that opens them."""

import base64
import gzip
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from helpers import synthetic
from sft_atlas.report.figures import FIGURES

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")

# Names and texts that would run, break out of an attribute, or count as a formula, if a page took them for markup.
HOSTILE = (
    "<img src=x onerror='window.pwned=1'>",
    '"><script>window.pwned=1</script>',
    "</script><svg onload=window.pwned=1>",
    "{{ 7 * 7 }} ${7*7} <b>bold</b>",
    "=1+1",
    "綴り逆さ &amp; a very long label that goes on and on, wider than a telephone",
)


def chromium() -> str | None:
    """The browser of the tests: ``$CHROMIUM``, or Debian's ``chromium``, or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next((found for found in map(shutil.which, names) if found), None)


def hostile_study(**size) -> dict:
    """A study whose labels are hostile."""
    study = synthetic.study_json(**size)
    for kind in ("models", "datasets", "benchmarks", "recipes"):
        for text, (name, entry) in zip(HOSTILE, list(study[kind].items()), strict=False):
            entry["label"] = f"{name} {text}"
    study["benchmarks"]["chains"]["group"] = HOSTILE[0]
    return study


def figures(folder: Path) -> Path:
    """A folder with a small picture in place of every figure."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        (folder / f"{name}.png").write_bytes(PIXEL)
        (folder / f"{name}.pdf").write_bytes(b"%PDF-1.4")
    return folder


# Answers that would run, end a script or a line of one, turn the text around, or fill the page.
HOSTILE_ANSWERS = (
    "<script>window.pwned=1</script>",
    "</script></pre><img src=x onerror='window.pwned=1'>",
    "one\u2028two\u2029three",
    "\u202eturned around",
    "x" * 30_000,
    "   ",
    "",
)


def with_answers(root: Path, checkpoint: str, suite: str, benchmark: str, outputs: tuple[str, ...]) -> Path:
    """Write these answers to the first items of a benchmark into a checkpoint's file of samples; the third is truncated, the fourth unparsed."""
    path = root / "runs" / checkpoint / "samples" / f"{suite}.parquet"
    frame = pl.read_parquet(path)
    own = pl.col("benchmark") == benchmark
    places = frame.with_row_index("_row").filter(own).sort("item")["_row"].to_list()
    texts = {name: frame[name].to_list() for name in ("prompt", "target", "output", "extracted")}
    for number, row in enumerate(places):
        texts["prompt"][row] = f"Question {number}: {HOSTILE[1]}"
        texts["target"][row] = str(number)
        if number < len(outputs):
            texts["output"][row] = texts["extracted"][row] = outputs[number]
    row = pl.int_range(pl.len())
    parsed = pl.when(row == places[3]).then(0.0).otherwise(1.0).alias("parsed")
    frame = frame.with_columns(
        *(pl.Series(name, values, pl.String) for name, values in texts.items()), parsed, (row == places[2]).alias("truncated")
    )
    frame.write_parquet(path)
    return path


def paper_grid(models: int = 10, datasets: int = 15, epochs: int = 7, benchmarks: int = 22) -> tuple[dict, dict[str, pl.DataFrame]]:
    """A study of 1,060 checkpoints and its tables ``scores`` and ``gains``, drawn at random."""
    rng = np.random.default_rng(0)
    names = {kind: [f"{kind}-{i}" for i in range(size)] for kind, size in (("model", models), ("set", datasets), ("task", benchmarks))}
    runs = [
        {"model": model, "dataset": dataset, "recipe": "full", "folder": "full", "seed": 0}
        for model in names["model"]
        for dataset in names["set"]
    ]
    runs = [
        {
            **run,
            "method": "full",
            "rows": 1000,
            "schedule": "cosine",
            "measure_representation": False,
            "save_epochs": list(range(1, epochs + 1)),
        }
        for run in runs
    ]
    keys = [(model, "base", "base", 0) for model in names["model"]]
    keys += [(run["model"], run["dataset"], "full", epoch) for run in runs for epoch in run["save_epochs"]]
    frame = pl.DataFrame(keys, schema=["model", "dataset", "recipe", "epoch"], orient="row").join(
        pl.DataFrame({"benchmark": names["task"]}), how="cross"
    )
    facts = {"method": "full", "rows": 1000, "schedule": "cosine"}
    frame = frame.with_columns(
        *(pl.lit(value).alias(name) for name, value in facts.items()), pl.Series("score", rng.uniform(size=frame.height))
    )
    scores = frame.with_columns(
        stderr=pl.lit(0.01), n=pl.lit(1000), metric=pl.lit("exact_match"), backend=pl.lit("vllm"), scale=pl.lit(1.0)
    )
    gains = frame.filter(pl.col("epoch") > 0).with_columns(
        pl.Series("gain", rng.normal(0, 0.1, frame.height - models * benchmarks)), stderr=pl.lit(0.01), n=pl.lit(1000)
    )
    study = {
        "study": "grid",
        "seed": 0,
        "models": {name: {"label": name.upper()} for name in names["model"]},
        "datasets": {name: {"label": name, "group": "all", "merged": False, "members": [], "without": None} for name in names["set"]},
        "benchmarks": {name: {"label": name, "group": f"group {i % 4}"} for i, name in enumerate(names["task"])},
        "recipes": {"full": {"label": "Full", "method": "full"}},
        "runs": runs,
    }
    return study, {
        "scores": scores,
        "gains": gains.with_columns(z=pl.col("gain") / pl.col("stderr"), base_score=pl.col("score") - pl.col("gain")),
    }


def unpacked(folder: Path, name: str) -> object:
    """What a page gets from ``atlas.data(name)``."""
    text = (folder / "data" / f"{name}.js").read_text(encoding="utf-8")
    put, packed = re.fullmatch(r'atlas\.put\("([^"]+)","([A-Za-z0-9+/=]+)"\);\n', text).groups()
    assert put == name
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def values(page, title: str, table: str = "table") -> list[str]:
    """The texts of a visible column of a table, by the beginning of its title."""
    titles = page.locator(f"#{table} thead th").all_inner_texts()
    place = next(i for i, text in enumerate(titles) if text.strip().startswith(title)) + 1
    return page.locator(f"#{table} tbody td:nth-child({place})").all_inner_texts()


def hovered(page, x: float, y: float, place: str = "") -> str:
    """What a chart says of the point under the mouse, as soon as it says anything: a chart that is drawn anew meanwhile drops it."""
    from playwright.sync_api import TimeoutError as NothingYet

    said = page.locator(f"{place} .hoverlayer .hovertext").first
    for _ in range(60):
        page.mouse.move(x - 1, y)
        page.mouse.move(x, y)
        try:
            said.wait_for(timeout=1000)
            return page.locator(f"{place} .hoverlayer").filter(has=page.locator(".hovertext")).first.text_content(timeout=1000)
        except NothingYet:
            continue
    raise AssertionError(f"nothing is said at {x:.0f}, {y:.0f}")


def address(folder: Path, page: str) -> str:
    """The address of a page on the disk, such as ``explorer.html?group=code``."""
    return f"{(folder / page.split('?')[0].split('#')[0]).as_uri()}{page.removeprefix(page.split('?')[0].split('#')[0])}"
