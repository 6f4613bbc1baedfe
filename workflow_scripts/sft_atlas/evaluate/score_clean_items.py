"""Score every checkpoint on the benchmark items that occur in none of its training sets."""

import argparse
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_json, write_table
from sft_atlas.core.provenance import record_provenance
from sft_atlas.evaluate.scores import mean, standard_error
from sft_atlas.study import paths
from sft_atlas.study.runs import BASE


def main(args: argparse.Namespace) -> None:
    """Write one row per checkpoint and benchmark, and a JSON with provenance beside them."""
    import polars as pl

    from sft_atlas.study.result_files import REAL, SCORE, TEXT, WHOLE, read, require_one_backend

    study = read_json(args.study)
    flags = read_table(args.flags)
    members = {name: tuple(entry["members"]) for name, entry in study["datasets"].items()}
    rows = {(run["model"], run["dataset"], run["folder"]): None if run.get("outside") else run["rows"] for run in study["runs"]}
    known = {name for name, entry in study["datasets"].items() if not entry.get("foreign")}
    sources = paths.result_files(study, "gains", args.study.parent)
    missing = [str(source.path) for source in sources if not source.path.exists()]
    if missing and not args.allow_missing:
        raise AtlasError(f"{len(missing)} files of samples are missing, the first is {missing[0]}")
    columns = {**SCORE, "item": WHOLE, "score": REAL, "cluster": TEXT, "backend": TEXT}
    parts = []
    for model in study["models"]:  # one base model at a time: memory holds its samples, not the study's
        present = [source for source in sources if source.keys["model"] == model and source.path.exists()]
        if present:
            samples = read(present, columns)
            require_one_backend(study, present, samples)
            samples = samples.filter(pl.col("dataset").is_in([*known, BASE]))
            parts.append(clean_scores(samples.drop("_file", "backend"), flags, members, rows))
    nothing = clean_scores(pl.DataFrame(schema={key: kind for key, kind in columns.items() if key != "backend"}), flags, {}, {})
    frame = by_recipe(pl.concat([nothing, *parts]), study)
    inputs = {"study": args.study, "flags": args.flags}
    write_json(args.output.with_suffix(".json"), record_provenance(study, inputs, rows=len(frame), missing=missing))
    write_table(args.output, frame)


def by_recipe(frame, study: dict):
    """The frame with ``recipe`` as the study names it instead of the run's folder, and ``seed`` (null for a base model) after it."""
    import polars as pl

    known = [
        {"model": run["model"], "dataset": run["dataset"], "folder": run["folder"], "name": run["recipe"], "seed": run["seed"]}
        for run in study["runs"]
    ]
    schema = {**dict.fromkeys(("model", "dataset", "folder", "name"), pl.String), "seed": pl.Int64}
    joined = frame.rename({"recipe": "folder"}).join(
        pl.DataFrame(known, schema), on=["model", "dataset", "folder"], how="left", maintain_order="left"
    )
    joined = joined.with_columns(recipe=pl.coalesce("name", "folder"))
    first = ("model", "dataset", "recipe", "seed")
    return joined.select(*first, *(name for name in frame.columns if name not in first))


def clean_scores(samples, flags, members: dict[str, tuple[str, ...]], rows: dict[tuple[str, str, str], int]):
    """Every checkpoint's score on all items and on those that overlap no set it was trained on, with its base model's on the same items.

    ``samples``: polars frame of model, dataset, recipe, epoch, suite, benchmark, item, score, cluster; ``flags``: that of rule
    measure_contamination. ``members``: source datasets of each training set; ``rows``: sample size of each run (model, dataset, folder), None of
    a checkpoint that was trained elsewhere: then every sample of the set counts, as nobody knows its rows.
    Returns the samples' keys with score, n, score_clean, stderr_clean (clustered as that of a score), n_clean, base_score_clean.
    """
    import polars as pl

    flagged = {key: set(zip(part["benchmark"], part["item"], strict=True)) for key, part in flags.group_by("dataset", "rows")}
    keys = ["model", "dataset", "recipe", "epoch", "suite", "benchmark"]
    by_benchmark = samples.filter(dataset=BASE).group_by("model", "suite", "benchmark")
    base = {key: dict(zip(part["item"], part["score"], strict=True)) for key, part in by_benchmark}
    result = []
    for key, part in samples.group_by(keys, maintain_order=True):
        model, dataset, recipe, _, suite, benchmark = key
        trained = () if dataset == BASE else (members.get(dataset) or (dataset,))
        size = rows.get((model, dataset, recipe))
        places = [place for place in flagged if place[0] in trained and size in (None, place[1])]
        seen = set().union(*(flagged[place] for place in places))
        scored = [row for row in part.iter_rows(named=True) if row["score"] is not None]
        clean = [row for row in scored if (benchmark, row["item"]) not in seen]
        stderr = standard_error([row["score"] for row in clean], [row["cluster"] for row in clean])[0] if clean else None
        reference = base.get((model, suite, benchmark), {})
        result.append({
            **dict(zip(keys, key, strict=True)),
            "score": mean(row["score"] for row in scored), "n": len(scored),
            "score_clean": mean(row["score"] for row in clean), "stderr_clean": stderr, "n_clean": len(clean),
            "base_score_clean": mean(reference.get(row["item"]) for row in clean),
        })  # fmt: skip
    numbers = dict.fromkeys(("score", "n", "score_clean", "stderr_clean", "n_clean", "base_score_clean"), pl.Float64)
    numbers |= {"n": pl.Int64, "n_clean": pl.Int64}
    return pl.DataFrame(result, schema={name: samples.schema[name] for name in keys} | numbers)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json; results lie beside it")
    p.add_argument("--flags", type=Path, required=True, help="Parquet of rule measure_contamination")
    p.add_argument("--output", type=Path, required=True, help="Parquet")
    p.add_argument("--allow-missing", action="store_true", help="list missing samples in the JSON instead of failing")
