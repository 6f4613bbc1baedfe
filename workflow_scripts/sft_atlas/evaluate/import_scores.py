"""Import scores that others measured: lm-eval's files, a wide table, or rows of the Open LLM Leaderboard.

    python workflow_scripts/run.py import_scores --imports '{"theirs": {"format": "csv", "files": ["theirs.csv"]}}' --output imported

Nothing is dropped in silence: what is not imported, and every name that the study does not know, is in the record and in the log.
"""

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256, write_json, write_table
from sft_atlas.core.job import long_text
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.evaluate.imports import leaderboard, lm_eval_files, wide_table
from sft_atlas.evaluate.imports.found import Found, Score, whole
from sft_atlas.evaluate.scores import scores_frame
from sft_atlas.study.imports import recipe
from sft_atlas.study.messages import nearest

MOST, FEW = 10, 3  # names and lines that a warning shows
RECORD = "record.json"
UNKNOWN = "unknown"  # training set and recipe of a checkpoint of which only the name is known
METHODS = ("full", "lora")


def main(args: argparse.Namespace) -> None:
    """Write tables of scores and samples and a record for each import, into a folder with its name."""
    imports = json.loads(args.imports)
    if not imports:
        LOG.warning("the study has no imported_scores: there is nothing to import")
    for name, settings in imports.items():
        files = [Path(file) for file in settings["files"]]
        try:
            found = read(files, settings)
            scores, samples, record = imported(found, {**settings, "name": name}, {path.name: sha256(path) for path in files})
        except AtlasError as error:
            raise AtlasError(f"imported_scores.{name}: {error}") from None
        for line in record["left_out"]:
            LOG.info("%s: not imported: %s", name, line)
        if record["left_out"]:
            shown = "; ".join(record["left_out"][:FEW]) + (
                f"; and {len(record['left_out']) - FEW} more" if len(record["left_out"]) > FEW else ""
            )
            LOG.warning("%s: not imported, as listed in %s: %s", name, args.output / name / RECORD, shown)
        for what, names in record["unknown"].items():
            if names:
                shown = ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
                LOG.warning("%s: %s that the study does not have, under their own names: %s", name, what, shown)
        write_table(args.output / name / "scores.parquet", scores)
        write_table(args.output / name / "samples.parquet", samples)
        stated = {key: value for key, value in settings.items() if key not in ("own", "metrics", "recipes", "models")}
        facts = record_provenance(stated, {str(path): path for path in files}, **record, documents=found.documents)
        write_json(args.output / name / RECORD, facts)


def read(files: list[Path], settings: dict) -> Found:
    """What the files hold, by their format."""
    if settings["format"] == "lm-eval":
        return lm_eval_files.read(files, settings.get("benchmarks") or {})
    return {"csv": wide_table, "leaderboard": leaderboard}[settings["format"]].read(files[0], settings)


def imported(found: Found, settings: dict, hashes: dict[str, str]):
    """(scores, samples, record): the tables, with the keys of checkpoints and benchmarks as the study has them, and what was left out.

    AtlasError where the study names a checkpoint or a task that the files do not have.
    """
    places = _places(found.scores, settings)
    of_file = settings["format"] == "lm-eval"
    tasks = settings.get("benchmarks") or {}
    if of_file:
        _require(tasks, {score.task for score in found.scores}, "benchmarks")
    kept = [score for score in found.scores if score.name in places and (score.task in tasks or not tasks or not of_file)]
    others = {
        "checkpoints": sorted({score.name for score in found.scores} - places.keys()),
        "tasks": sorted({score.task for score in found.scores} - tasks.keys()) if tasks and of_file else [],
    }
    left_out = found.left_out + [f"{what[:-1]} {name}: the study names others only" for what, names in others.items() for name in names]
    for score in found.scores:
        if score.place and score not in kept:  # numbers that are in no table stay where lm-eval has them
            lm_eval_files.put(found.documents[score.place[0]]["rest"], score)
    main_of: dict[tuple, Score] = {}
    for name in dict.fromkeys(score.name for score in kept):
        chosen = lm_eval_files.main_metrics((score for score in kept if score.name == name), tasks if of_file else {})
        main_of |= {(name, task): score for task, score in chosen.items()}
    absent = [
        f"benchmarks.{score.task}: no score has metric {tasks[score.task].get('metric')} and filter {tasks[score.task].get('filter')}"
        for score in kept
        if of_file and (score.name, score.task) not in main_of
    ]
    if absent:
        there = ", ".join(sorted({score.metric for score in kept}))
        raise AtlasError(f"{absent[0]}; there are {there}")
    if not kept:
        raise AtlasError(f"{settings['name']}: no score is left to import; {'; '.join(left_out[:3]) or 'the files hold none'}")
    rows = [_row(score, places[score.name], settings, found.version, hashes, main_of[score.name, score.task] is score) for score in kept]
    _require_distinct(rows, kept)
    samples = _samples(found, kept, main_of, rows)
    known, models = settings.get("metrics") or {}, settings.get("models") or ()
    named = {row["model"]: None for row in rows if row["dataset"] != UNKNOWN and models}
    unknown = {
        "checkpoints": sorted({score.name for score in kept if places[score.name]["dataset"] == UNKNOWN}),
        "base models": [f"{name}{nearest(name, models)}" for name in sorted(named.keys() - set(models))],
        "benchmarks": sorted({row["benchmark"] for row in rows} - known.keys()) if known else [],
    }
    return scores_frame_of(rows), samples, {"left_out": left_out, "unknown": unknown, "version": found.version, "scores": len(rows)}


def scores_frame_of(rows: list[dict]):
    """Rows as a polars frame with their types, also where a column is null throughout."""
    import polars as pl

    texts = (
        "method",
        "source",
        "source_name",
        "source_file",
        "source_version",
        "source_checkpoint",
        "template",
        "items",
        "backend",
        "backend_version",
        "dtype",
        "task",
        "key",
    )
    types = dict.fromkeys(texts, pl.String) | dict.fromkeys(("seed", "rows", "document", "epoch"), pl.Int64)
    frame = scores_frame(rows)
    return frame.with_columns(pl.col(name).cast(kind) for name, kind in types.items())


def _places(scores: Iterable[Score], settings: dict) -> dict[str, dict]:
    """The keys of each checkpoint by its name in the files; of those that are imported."""
    named, own = settings.get("checkpoints") or {}, settings.get("own") or {}
    names = dict.fromkeys(score.name for score in scores)
    short = {lm_eval_name(name): name for name in names}
    if named:
        missing = [name for name in named if name not in names and name not in short]
        _require(dict.fromkeys(missing), names, "checkpoints")
        return {short.get(name, name) if name not in names else name: place for name, place in named.items()}
    facts: dict[str, dict] = {}
    for score in scores:
        if "known" in score.facts:
            facts[score.name] = _stated(score, settings.get("recipes") or ())
    plain = {name: {"model": lm_eval_name(name), "dataset": UNKNOWN, "recipe": UNKNOWN, "epoch": None} for name in names}
    return {name: facts.get(name) or own.get(name) or plain[name] for name in names}


def _stated(score: Score, recipes: Iterable[str]) -> dict:
    """The keys of a checkpoint from the columns that state its facts."""
    known = {
        key: None if value is None or str(value).strip().lower() in ("", "none", "nan", "null") else str(value).strip()
        for key, value in score.facts["known"].items()
    }
    if not known["model"]:
        raise AtlasError(f"{score.where}: no base model in the column of `facts.model`; fill it in, or remove the row")
    numbers = {}
    for key in ("rows", "epoch", "seed"):
        if known.get(key) is not None:
            try:
                numbers[key] = whole(float(known[key]))
            except ValueError:
                numbers[key] = None
            if numbers[key] is None:
                raise AtlasError(f"{score.where}: {key} {known[key]!r} is no whole number")
    method = (known.get("method") or "").lower() or None
    if method not in (*METHODS, "base", None):
        raise AtlasError(f"{score.where}: method {known['method']!r} is none of {', '.join(METHODS)}")
    model = lm_eval_name(known["model"])
    if known.get("dataset") in (None, "base"):
        return {"model": model, "dataset": "base", "recipe": "base", "epoch": 0, "method": "base"}
    return {
        "model": model,
        "dataset": lm_eval_name(known["dataset"]),
        "recipe": recipe(known.get("recipe"), method, recipes),
        "method": method,
        "epoch": 1,
        "rows": None,
        "seed": None,
    } | numbers


def _require(stated: Iterable[str], there: Iterable[str], key: str) -> None:
    for name in stated:
        if name not in there:
            shown = ", ".join(sorted(there)[:30])
            raise AtlasError(f"{key}.{name}: the files have no such name{nearest(name, there)}; there are {shown}")


def lm_eval_name(name: str) -> str:
    """A name without characters that paths and links do not hold, as lm-eval makes names of folders."""
    return re.sub(r"[\"<>:/|\\?*\[\]\s]+", "__", name.strip())


def _row(score: Score, place: dict, settings: dict, version: str | None, hashes: dict[str, str], is_main: bool) -> dict:
    entry = (settings.get("benchmarks") or {}).get(score.task, {})
    task = wide_table.HEAD.fullmatch(score.task)
    columns = {
        **leaderboard.VERSION_1,
        **leaderboard.VERSION_2,
        **{name + leaderboard.RAW: value for name, value in leaderboard.VERSION_2.items()},
    }
    default = (
        columns[score.task][0]
        if settings["format"] == "leaderboard"
        else task["benchmark"]
        if task and settings["format"] == "csv"
        else score.task
    )
    facts = {key: value for key, value in score.facts.items() if key not in ("known", "group")}
    group = None if entry else score.facts.get("group")  # of a task that the study names it is a benchmark
    benchmark = entry.get("benchmark") or group or default
    digest = hashes.get(score.file)
    stated = " ".join(filter(None, (settings.get("version") or version, f"sha256 {digest[:12]}" if digest else None)))
    return {
        **{key: place[key] for key in ("model", "dataset", "recipe", "epoch")},
        "suite": settings["name"], "benchmark": benchmark, "subtask": score.task if group else None, "metric": _metric(score, (settings.get("metrics") or {}).get(benchmark)),
        "score": score.score, "stderr": score.stderr, "n": score.n, "backend": None, "backend_version": None, "dtype": None, "scale": 1.0,
        "score_strict": None, "parsed": None, "formed": None, "n_missing": None, "n_parsed": None, "n_truncated": None, "n_clusters": None, "judge": None,
        "judge_stderr": None, "score_length_controlled": None, "stderr_length_controlled": None, "sandbox_missing": None,
        "shots": score.shots if entry.get("shots") is None else entry["shots"], "n_fewer_shots": None,
        **{key: place.get(key) for key in ("seed", "method", "rows")}, "of_study": "method" not in place and place["dataset"] != UNKNOWN,
        "source": settings["format"], "source_name": settings["name"], "source_file": score.file, "source_version": stated, "source_checkpoint": score.name,
        "items": None, "template": entry.get("template") or settings.get("template") or score.template, **facts, "main": is_main,
        "document": score.place[0] if score.place else None, "task": score.task, "key": score.place[2] if score.place else None,
    }  # fmt: skip


def _metric(score: Score, known: dict | None) -> str:
    """The metric as the study's own scores name it where it is theirs, with lm-eval's filter; else the file's name of it."""
    metric, _, filtered = score.metric.partition(",")
    if known and metric == known["metric"] and (filtered or "none") == (known["filter"] if score.place else "none"):
        return known["text"]
    return known["text"] if known and not score.place and score.metric == known["metric"] else score.metric


def _require_distinct(rows: list[dict], scores: list[Score]) -> None:
    """AtlasError where two scores have the same keys, as two names that stand for one checkpoint do."""
    first: dict[tuple, str] = {}
    for row, score in zip(rows, scores, strict=True):
        key = tuple(row[name] for name in ("model", "dataset", "recipe", "epoch", "seed", "benchmark", "subtask", "metric"))
        other = first.setdefault(key, score.where)
        if other != score.where:
            raise AtlasError(
                f"{score.where} and {other} are scores of the same checkpoint, benchmark and metric; correct `checkpoints` or `benchmarks` of the import"
            )


def _samples(found: Found, kept: list[Score], main_of: dict[tuple, Score], rows: list[dict]):
    """The samples with the keys of their checkpoints, and ``main``: whether they are those of the main score of their benchmark."""
    import polars as pl

    keys = ("model", "dataset", "recipe", "epoch", "suite", "benchmark", "subtask", "source_checkpoint")
    empty = dict.fromkeys(keys, pl.String) | {"epoch": pl.Int64, "main": pl.Boolean}
    samples = lm_eval_files.frame_of([]) if found.samples is None else found.samples
    parts = [samples.clear().drop("benchmark", "subtask").with_columns(pl.lit(None, kind).alias(name) for name, kind in empty.items())]
    for score, row in zip(kept, rows, strict=True):
        if main_of[score.name, score.task] is score and score.place:
            own = samples.filter(document=score.place[0], task=score.task)
            main_items = lm_eval_files.scored(own, score.metric).select("line", main=pl.lit(True))
            own = own.join(main_items, on="line", how="left", maintain_order="left").with_columns(pl.col("main").fill_null(False))
            parts.append(own.drop("benchmark", "subtask").with_columns(pl.lit(row[key], empty[key]).alias(key) for key in keys))
    taken = pl.concat(part.select(parts[0].columns) for part in parts)
    rest = samples.join(taken.select("document", "task", "line"), on=["document", "task", "line"], how="anti", maintain_order="left")
    rest = rest.drop("benchmark", "subtask").with_columns(
        pl.lit(None, kind).alias(name) for name, kind in empty.items()
    )  # kept for lm-eval's files alone
    return pl.concat([taken, rest.select(taken.columns)])


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--imports",
        type=long_text,
        required=True,
        help="JSON: by name, `format`, `files`, keys of an entry of `imported_scores`, and what the study knows; - reads standard input",
    )
    p.add_argument("--output", type=Path, required=True, help="folder of the imports")
