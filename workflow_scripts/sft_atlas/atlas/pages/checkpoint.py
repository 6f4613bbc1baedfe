"""The page *Checkpoint*: settings, samples with the loss mask, curves, scores, weight change, neighbours, card, provenance and command."""

import re
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.atlas.contents import KEYS, RUN, Contents, address, by_column, by_folder
from sft_atlas.atlas.pages.findings import html
from sft_atlas.atlas.site import Site
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.report import write_card
from sft_atlas.study.paths import Paths

TITLE = "Checkpoint"
NEAREST = 8
STEPS = 1000  # points of a curve, at most
MASK = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
ANSWERED = ("metric", "backend", "scale", "shots", "n_missing", "n_parsed", "n_truncated", "judge")
HISTORY = ("step", "epoch", "loss", "validation_loss", "learning_rate", "grad_norm")
LAYER = ("layer", "depth", "component", "relative_change", "cosine")


def add(site: Site, contents: Contents) -> None:
    """Write the page, ``data/addresses.js`` and ``data/checkpoint/{number}.js``, numbered as in ``data/checkpoints.js``."""
    table = contents.checkpoints
    addresses = table["address"]
    site.data("addresses", addresses)
    parts = {
        "scores": scores(contents),
        "history": of_table(contents, "history", HISTORY, RUN),
        "layers": of_table(contents, "layers", LAYER, KEYS),
        "nearest": nearest(contents),
    }
    files = Files(contents)
    outside = {
        (run["model"], run["dataset"], run["folder"]): run["outside"] | {"epochs": run["epochs"]}
        for run in contents.study["runs"]
        if run.get("outside")
    }
    for number, name in enumerate(addresses):
        keys = tuple(table[key][number] for key in KEYS)
        facts = {
            key: table[key][number]
            for key in (*RUN, "recipe", "epoch", "seed", "method", "rows", "schedule", "perplexity", "weight_change", "dtype", "device")
            if key in table
        }
        epochs = [other for place, other in enumerate(addresses) if all(table[key][place] == table[key][number] for key in RUN)]
        rows = {part: found.get(keys[:-1] if part == "history" else keys) for part, found in parts.items()}
        base = address(keys[0], "base", "base", 0)
        mean = {key: table[key][number] for key in ("mean_gain", "mean_gain_stderr")}
        site.data(
            f"checkpoint/{number}",
            {"address": name, **facts, **mean, **rows, **files.of(keys, rows["scores"], parts["scores"].get((keys[0], "base", "base", 0)))}
            | {
                "outside": outside.get(keys[:-1]),
                "epochs": epochs,
                "base": base if base in addresses else None,
                "remarks": [*contents.remarks.get(name, []), *files.remarks(keys)],
            },
        )
    site.page("checkpoint", ("datatables", "plotly"), heading="Checkpoint", reading=contents.reading)


def scores(contents: Contents) -> dict[tuple, dict]:
    """Per checkpoint its scores by column, in points: benchmark, n, score, stderr, how they were measured, the base model's, and the gain."""
    frame = by_folder(contents.each_seed["scores"], contents.study)
    frame = frame.select(*KEYS, "benchmark", *(name for name in ANSWERED if name in frame.columns))
    own = contents.measured.join(
        frame.unique([*KEYS, "benchmark"], keep="first"), on=[*KEYS, "benchmark"], how="left", maintain_order="left"
    )
    base = contents.measured.filter(pl.col("epoch") == 0).select("model", "benchmark", base_score="score", base_stderr="stderr")
    return grouped(own.join(base, on=["model", "benchmark"], how="left", maintain_order="left"), KEYS)


def of_table(contents: Contents, name: str, columns: tuple[str, ...], keys: list[str]) -> dict[tuple, dict]:
    """Columns of a table per run or checkpoint; empty where the atlas has no such table."""
    if name not in contents.each_seed:
        return {}
    frame = by_folder(contents.each_seed[name], contents.study)
    frame = frame.select(*keys, *(column for column in columns if column in frame.columns and column not in keys))
    if name == "history" and "epoch" not in keys:
        every = (pl.len().over(keys) / STEPS).ceil().cast(pl.Int64).clip(lower_bound=1)
        held = pl.col("validation_loss").is_not_null() if "validation_loss" in frame.columns else pl.lit(False)
        frame = frame.filter((pl.int_range(pl.len()).over(keys) % every == 0) | held)
    return grouped(frame, keys)


def grouped(frame: pl.DataFrame, keys: list[str]) -> dict[tuple, dict]:
    """The rows of each key by column."""
    return {key: by_column(part.drop(keys)) for key, part in frame.group_by(keys, maintain_order=True)}


def nearest(contents: Contents) -> dict[tuple, list]:
    """The nearest checkpoints on the map of likelihoods: addresses and divergences in bits per byte."""
    vectors = contents.vectors
    if vectors is None:
        return {}
    distances = vectors.squared_distances()
    keys = [tuple(row) for row in vectors.keys.select("model", "dataset", "recipe", "epoch").iter_rows()]
    result = {}
    for place, key in enumerate(keys):
        order = [other for other in np.argsort(distances[place], kind="stable").tolist() if other != place][:NEAREST]
        result[key] = [[address(*keys[other]), round(float(distances[place, other]), 6)] for other in order]
    return result


class Files:
    """What is on disk about each run, beside the tables: train.json, preflight.txt and the card that can be written from them."""

    def __init__(self, contents: Contents):
        self.contents, self.paths = contents, Paths(contents.root) if contents.root else None
        self.records: dict[str, dict | None] = {}

    def read(self, path: str) -> dict | None:
        """A JSON file, or None where there is none."""
        if path not in self.records:
            self.records[path] = read_json(Path(path)) if Path(path).is_file() else None
        return self.records[path]

    def of(self, keys: tuple, scores: dict | None, base_scores: dict | None) -> dict:
        """Settings, training, preflight, card, provenance and command of one checkpoint; None for what is not there."""
        none = dict.fromkeys(("settings", "training", "preflight", "card", "provenance", "command"))
        if self.paths is None:
            return none
        model, dataset, folder, epoch = keys
        place = {"model": model, "dataset": dataset, "recipe": folder, "epoch": epoch}
        manifest = self.read(self.paths.fill(self.paths.model, model=model))
        if dataset == "base":
            provenance = manifest and manifest.get("provenance") and flat({"sha256": manifest.get("sha256", {}), **manifest["provenance"]})
            return none | {"provenance": provenance, "command": f"snakemake {self.named(self.paths.model, place)}"}
        record = self.read(self.paths.fill(self.paths.record, **place))
        text = Path(self.paths.fill(self.paths.preflight, **place))
        return {
            "settings": record and flat(record.get("settings", {})),
            "training": record
            and "outside" not in record
            and flat({key: value for key, value in record.items() if not isinstance(value, dict | list)}),
            "preflight": preflight(text.read_text(encoding="utf-8")) if text.is_file() else None,
            "card": self.card(record, manifest, scores, base_scores, place),
            "provenance": record
            and flat({key: record[key] for key in ("code", "inputs", "machine", "versions", "weights_sha256") if key in record}),
            "command": f"snakemake {self.named(self.paths.record, place)}",
        }

    def remarks(self, keys: tuple) -> list[str]:
        """What was found when a checkpoint that was trained elsewhere was checked against its base model."""
        if self.paths is None or keys[1] == "base":
            return []
        record = self.read(self.paths.fill(self.paths.record, **dict(zip(("model", "dataset", "recipe", "epoch"), keys, strict=True))))
        return record["outside"]["remarks"] if record and "outside" in record else []

    def named(self, pattern: str, place: dict) -> str:
        """A file as Snakemake knows it, whatever folder the atlas was written from."""
        return Paths(f"results/{self.contents.study['study']}").fill(
            pattern.replace(self.paths.root, f"results/{self.contents.study['study']}", 1), **place
        )

    def facts(self, place: dict) -> dict | None:
        """What the study says of the training of a checkpoint from elsewhere."""
        keys = {"model": place["model"], "dataset": place["dataset"], "folder": place["recipe"]}
        return next((run["settings"] for run in self.contents.study["runs"] if run.get("outside") and keys.items() <= run.items()), None)

    def card(self, record: dict | None, manifest: dict | None, scores: dict | None, base_scores: dict | None, place: dict) -> str | None:
        """The model card as HTML, or why there is none, as for results of former versions; None without train.json."""
        if not record or not manifest:
            return None
        try:
            text = write_card.card(
                record,
                manifest,
                rows(scores, place),
                rows(base_scores, place),
                self.contents.study["study"],
                place["epoch"],
                self.facts(place),
            )
        except KeyError as error:
            return str(html(f"The card cannot be written: train.json or model.json lacks {error}."))
        except AtlasError as error:
            return str(html(f"The card cannot be written: {error}."))
        return str(html(text.split("---\n", 2)[2]))


def rows(scores: dict | None, place: dict) -> list[dict]:
    """Scores by column as the rows that a card is written from: fractions, with the keys of the checkpoint."""
    if not scores or "metric" not in scores:
        return []
    count = len(scores["benchmark"])
    every = [{key: values[i] for key, values in scores.items()} for i in range(count)]
    return [
        {**place, **row, "score": row["score"] / 100, "stderr": (row["stderr"] or 0.0) / 100} for row in every if row["score"] is not None
    ]


def preflight(text: str) -> dict:
    """The page of samples: what stands above them, and each sample as (title, parts), a part being text and whether it carries the loss."""
    head, *samples = re.split(r"^--- ", text, flags=re.MULTILINE)
    result = []
    for sample in samples:
        title, _, body = sample.partition("\n")
        parts, at = [], 0
        for match in MASK.finditer(body):
            parts += [[body[at : match.start()], False], [match[1], True]]
            at = match.end()
        result.append([title.strip(), [part for part in [*parts, [body[at:].rstrip("\n"), False]] if part[0]]])
    return {"head": head.strip(), "samples": result}


def flat(values: dict, prefix: str = "") -> list[list[str]]:
    """Nested settings as (name, value) in the order they have; None is left out."""
    result = []
    for key, value in values.items():
        if isinstance(value, dict):
            result += flat(value, f"{prefix}{key} ")
        elif value is not None and value != []:
            result.append([f"{prefix}{key}", f"{value:,}" if type(value) is int and key not in ("seed",) else str(value)])
    return result
