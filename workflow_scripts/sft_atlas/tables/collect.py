"""Collect the many small result files of a study into one tidy table each.

The collector trusts content, not paths: the keys inside a file must equal those of its path. A missing file is an error, or is listed;
it never becomes a zero. :mod:`sft_atlas.study.paths` lists the files of each table.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_json, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.study import paths
from sft_atlas.study.paths import ResultFile
from sft_atlas.study.result_files import (
    CHECKPOINT,
    REAL,
    RUN,
    SCORE,
    TEXT,
    WHOLE,
    columns,
    read,
    require_benchmarks,
    require_one_backend,
    without_subtasks,
)
from sft_atlas.study.runs import BASE
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.tables import origins
from sft_atlas.tables.gains import GAINS, gains
from sft_atlas.tables.perplexity import perplexity_summary

TRAIN = {
    **columns("steps tokens supervised_tokens samples", WHOLE),
    **columns("train_loss seconds tokens_per_second logit_change_mean logit_resolution weight_change", REAL),
    **columns("device dtype", TEXT),
}
# Beside the score: how many answers could be parsed and had the requested form, and what a judge adds.
ANSWERED = {
    **columns("score_strict parsed formed", REAL),
    **columns("n_missing n_parsed n_truncated n_clusters shots n_fewer_shots", WHOLE),
    **columns("judge sandbox_missing", TEXT),
    **columns("judge_stderr score_length_controlled stderr_length_controlled", REAL),
}
LAYER = {"layer": WHOLE, "depth": REAL}
# What is read from each file. The run's attributes are added afterwards.
COLUMNS: dict[str, dict[str, type[pl.DataType]]] = {
    "runs": {**RUN, **TRAIN},
    "history": {**RUN, "step": WHOLE, **columns("epoch loss learning_rate grad_norm validation_loss", REAL)},
    "scores": {
        **SCORE,
        **columns("subtask metric", TEXT),
        **columns("score stderr", REAL),
        "n": WHOLE,
        **columns("backend backend_version dtype", TEXT),
        "scale": REAL,
        **ANSWERED,
    },
    "gains": GAINS,
    "perplexity": {
        **columns("model dataset", TEXT),
        "rows": WHOLE,
        "scope": TEXT,
        **columns("perplexity perplexity_sample_mean bits_per_byte", REAL),
        **columns("n tokens", WHOLE),
    },
    "properties": {
        "dataset": TEXT,
        **columns("rows n", WHOLE),
        **columns("instruction_words response_words response_characters lexical_diversity near_duplicates", REAL),
    },
    "layers": {
        **CHECKPOINT,
        **LAYER,
        "component": TEXT,
        **columns("relative_change mean_abs_change cosine unchanged stable_rank effective_rank", REAL),
        "parameters": WHOLE,
    },
    "dimension": {**CHECKPOINT, **LAYER, **columns("pooling estimator", TEXT), **columns("dimension stderr", REAL), "n": WHOLE},
    "likelihood": {**CHECKPOINT, "benchmark": TEXT, "item": WHOLE, "log_likelihood": REAL, **columns("tokens bytes", WHOLE)},
}
PERPLEXITY = {**columns("model dataset", TEXT), **columns("rows sample", WHOLE)} | {
    f"{quantity}_{scope}": REAL if quantity == "nll" else WHOLE for scope in ("response", "full") for quantity in ("nll", "tokens", "bytes")
}


@dataclass(frozen=True)
class Collected:
    """A table and the files that were expected but absent."""

    frame: pl.DataFrame
    files: int
    missing: list[Path] = field(default_factory=list)


def collect(study: dict, table: str, root: Path, allow_missing: bool = False, imported: Sequence[Path] = ()) -> Collected:
    """Build ``table`` of ``study`` from the files under ``root``; see ``COLUMNS`` for what it holds. ``imported``: folders of
    imported scores, for the tables of scores and gains.

    Raises AtlasError when a file is missing (unless ``allow_missing``), unreadable, lacks a column, or holds other keys than its place.
    """
    expected = paths.result_files(study, table, Path(root))
    present = [file for file in expected if file.path.is_file()]
    missing = [file.path for file in expected if not file.path.is_file()]
    if missing and not allow_missing:
        listing = "\n".join(f"  {path}" for path in missing[:10])
        raise AtlasError(
            f"table {table}: {len(missing)} of {len(expected)} files are missing:\n{listing}{'' if len(missing) <= 10 else chr(10) + '  ...'}"
        )
    build = {"runs": _runs, "perplexity": _perplexity, "gains": gains, "scores": _scores}.get(table)
    frame = build(study, present) if build else read(present, COLUMNS[table]).drop("_file")
    if table not in ("perplexity", "properties"):
        frame = with_attributes(frame, study)
    if table == "scores":
        frame = with_imported(frame, study, present, imported)
    elif table == "gains":
        frame = with_imported_gains(frame, study, present, imported, root)
    return Collected(frame, len(present), missing)


def with_attributes(frame: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Rows of runs with ``recipe`` as the study names it instead of the run's folder, then seed, method, rows, schedule and blocks.

    A base model has method ``base``, and neither seed nor rows.
    """
    schema = {**RUN, "seed": WHOLE, "method": TEXT, "rows": WHOLE, "schedule": TEXT, "blocks": pl.List(TEXT), "folder": TEXT}
    known = [{key: run[key] for key in schema} for run in study["runs"]]
    base = {"dataset": "base", "recipe": "base", "folder": "base", "method": "base", "blocks": []}
    known += [{"model": model, **base} for model in study["models"]]
    frame = frame.rename({"recipe": "folder"})
    joined = frame.join(pl.DataFrame(known, schema=schema), on=["model", "dataset", "folder"], how="left", maintain_order="left")
    return joined.select(*(name for name in schema if name != "folder"), *(name for name in frame.columns if name not in schema))


def with_imported(scores: pl.DataFrame, study: dict, files: list[ResultFile], imported: Sequence[Path]) -> pl.DataFrame:
    """The study's own scores, then those of imports."""
    scores = origins.with_ours(scores)
    if not imported:
        return scores
    samples = [ResultFile(Path(paths.Paths.samples_beside(str(file.path))), file.keys) for file in files if file.keys["dataset"] == BASE]
    scores = origins.with_items(scores, samples)
    others = origins.imported(imported, scores.schema)
    ours = with_attributes(others.filter("of_study").select(*COLUMNS["scores"], *origins.SOURCE), study)
    return pl.concat([scores, *(part.select(scores.columns) for part in (ours, others.filter(~pl.col("of_study"))))])


def with_imported_gains(gains: pl.DataFrame, study: dict, files: list[ResultFile], imported: Sequence[Path], root: Path) -> pl.DataFrame:
    """The study's own gains, then those of imported checkpoints."""
    gains = gains.with_columns(source=pl.lit(origins.OURS), base_source=pl.lit(origins.OURS))
    if not imported:
        return gains
    scores = collect(study, "scores", root, True, imported).frame
    samples = {folder.name: read_table(folder / "samples.parquet") for folder in imported}
    own = [file for file in files if file.keys["dataset"] == BASE]
    return pl.concat([gains, origins.gains(scores, samples, own).select(gains.columns)])


# ---------------------------------------------------------------- tables


def _runs(study: dict, files: list[ResultFile]) -> pl.DataFrame:
    """One row per run from its ``train.json``; keys are checked where the file states them, at its top or in its settings."""
    rows = []
    for file in files:
        content = read_json(file.path)
        for key, value in file.keys.items():
            stated = content.get(key, content.get("settings", {}).get(key))
            stated = stated.get("name") if isinstance(stated, dict) else stated
            if stated is not None and stated != value:
                raise AtlasError(
                    f"{file.path} holds results of another place: {key} {stated!r} (not {value!r}); it was moved or copied there"
                )
        _require_settings(study, file, content)
        absent = [name for name in TRAIN if name not in content]
        if absent:
            raise AtlasError(f"{file.path} lacks {', '.join(absent)}; delete it and run again to make it anew")
        rows.append({**file.keys, **{name: content[name] for name in TRAIN}})
    return pl.DataFrame(rows, schema=COLUMNS["runs"])


def _require_settings(study: dict, file: ResultFile, content: dict) -> None:
    """Raise AtlasError where a run was trained with other settings than the study has: a job that ended while no Snakemake watched it
    leaves no record of its settings, and Snakemake would not notice that they changed meanwhile."""
    place = tuple(file.keys[key] for key in RUN)
    runs = (run for run in study["runs"] if (run["model"], run["dataset"], run["folder"]) == place)
    meant = next((run.get("settings") for run in runs), None) or {}
    used = content.get("settings") or {}
    differing = [
        f"{key} {used[key]!r} (not {value!r})"
        for key, value in meant.items()
        if key in used and used[key] != value and key not in Hyperparameters.memory
    ]
    if differing:
        raise AtlasError(f"{file.path} was trained with other settings than the study has: {', '.join(differing)}; delete it and run again")


def _scores(study: dict, files: list[ResultFile]) -> pl.DataFrame:
    frame = read(files, COLUMNS["scores"])
    require_benchmarks(study, files, without_subtasks(frame))
    require_one_backend(study, files, frame)
    return frame.drop("_file")


def _perplexity(study: dict, files: list[ResultFile]) -> pl.DataFrame:
    """Perplexity of each training set under each base model, for the response alone and for the full text (nll in nats).

    A merged set is nothing but its members' samples, so its numbers come from theirs; its ``rows`` count per member.
    """
    samples = read(files, PERPLEXITY).drop("_file")
    merged = [
        samples.filter(pl.col("dataset").is_in(entry["members"])).with_columns(pl.lit(name).alias("dataset"), pl.col("rows").max())
        for name, entry in study["datasets"].items()
        if entry["merged"]
    ]
    samples = pl.concat([samples, *merged])
    frame = perplexity_summary(samples)
    return frame.select(pl.col(name).cast(kind) for name, kind in COLUMNS["perplexity"].items())


def main(args: argparse.Namespace) -> None:
    """Write the table and ``<table>.json``."""
    study = read_json(args.study)
    collected = collect(study, args.table, args.study.parent, args.allow_missing, args.imported)
    if collected.missing:
        number = len(collected.missing)
        LOG.warning("table %s: %d of %d files are missing; they are listed in its JSON", args.table, number, number + collected.files)
    write_table(args.output, collected.frame)
    facts = {
        "table": args.table,
        "files": collected.files,
        "rows": collected.frame.height,
        "missing": [str(path) for path in collected.missing],
        "data_sha256": data_hashes(study, args.study.parent),
        "devices": devices(study, args.study.parent),
    }
    write_json(args.output.with_suffix(".json"), record_provenance(study, {"study": args.study}, **facts))


def data_hashes(study: dict, root: Path) -> dict[str, str]:
    """Hash of every training sample behind the study's runs, by dataset and rows; what is not on disk is left out."""
    samples = dict.fromkeys((run["dataset"], run["rows"]) for run in study["runs"] if not run.get("outside"))
    manifest = paths.Paths(root).sample_manifest
    manifests = {f"{dataset}/{rows}": Path(paths.Paths.fill(manifest, dataset=dataset, rows=rows)) for dataset, rows in samples}
    return {name: read_json(path)["sha256"] for name, path in manifests.items() if path.exists()}


def devices(study: dict, root: Path) -> dict[str, int]:
    """Devices that the runs were trained on, with the number of runs on each."""
    records = [file.path for file in paths.result_files(study, "runs", root)]
    known = (read_json(path)["device"] for path in records if path.exists())
    return dict(Counter(device for device in known if device is not None))  # none of a checkpoint that was trained elsewhere


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json; results lie beside it")
    p.add_argument("--table", choices=paths.TABLES, required=True)
    p.add_argument("--output", type=Path, required=True, help="Parquet file")
    p.add_argument("--imported", type=Path, nargs="*", default=[], help="folders of imported scores, for the tables of scores and gains")
    p.add_argument("--allow-missing", action="store_true", help="list missing results in the JSON instead of failing")
