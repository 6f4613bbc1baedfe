"""A study's own results in the form of the published scores, so that claims and figures are computed by the same functions.

Whatever result files are there are collected; nothing is computed that a job of the study computes, and nothing missing becomes a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from sft_atlas.analyse import analyse_layers, analyse_map, analyse_predictors, consistency
from sft_atlas.core.files import read_json, read_table
from sft_atlas.published import columns, frames
from sft_atlas.study import paper
from sft_atlas.study.paths import Paths, result_files
from sft_atlas.study.result_files import REAL, TEXT
from sft_atlas.study.result_files import columns as typed
from sft_atlas.tables import origins, seeds
from sft_atlas.tables.collect import collect

COLLECTED = ("runs", "scores", "gains", "perplexity", "properties", "layers", "dimension", "likelihood")
SIMILARITY = {**typed("dataset benchmark space", TEXT), **typed("centroid nearest mmd", REAL)}
BENCHMARKS = {  # task file in config/benchmarks/ -> benchmark of the published scores; the file has the paper's kind of score
    "math": "math", "gsm8k": "gsm8k", "humaneval": "humaneval", "mbpp": "mbpp", "boolq": "boolq", "nq_open": "nq",
    "truthfulqa": "truthfulqa", "mmlu": "mmlu", "cmmlu": "cmmlu", "mmlu_jp": "jmmlu", "mt_bench": "mtbench", "alpaca_eval": "alpacaeval",
}  # fmt: skip
TASK_FILES = "config/benchmarks"


@dataclass(frozen=True)
class Names:
    """The study's names -> those of the published scores; names that are not the paper's stay, benchmarks with ``-{shots}``."""

    models: dict[str, str]
    datasets: dict[str, str]
    benchmarks: dict[str, str]

    def foreign(self) -> dict[str, list[str]]:
        """What the study has that the paper has not, by kind."""
        known = {"models": paper.KEYS, "datasets": paper.DATASETS, "benchmarks": columns.TASKS}
        return {kind: [own for own, key in getattr(self, kind).items() if key not in entries] for kind, entries in known.items()}

    def of_paper(self) -> dict[str, list[str]]:
        """The paper's names that the study has, by kind."""
        foreign = self.foreign()
        return {kind: [key for own, key in getattr(self, kind).items() if own not in foreign[kind]] for kind in foreign}


def names(study: dict) -> Names:
    """The paper's base models by key or hub id, its training sets by key or label, its benchmarks by task file and shots."""
    models = {name: paper.model_key(entry.get("hub") or name) or paper.model_key(name) for name, entry in study["models"].items()}
    single = {name: entry for name, entry in study["datasets"].items() if not (entry["merged"] or entry["without"])}
    datasets = {name: paper.dataset_key(name) or paper.dataset_key(entry["label"]) for name, entry in single.items()}
    benchmarks = {name: _task(entry) for name, entry in study["benchmarks"].items()}
    return Names(
        _distinct(models, {}),
        _distinct(datasets, {}),
        _distinct(benchmarks, {name: f"{name}-{shots_of(study, name)}" for name in benchmarks}),
    )


def shots_of(study: dict, benchmark: str) -> int:
    """The number of examples in a benchmark's prompts."""
    return (study["benchmarks"][benchmark].get("shots") or {}).get("count") or 0


def _task(entry: dict) -> str | None:
    task = Path(entry.get("task") or "")
    name = BENCHMARKS.get(task.stem) if str(task.parent) == TASK_FILES else None
    key = f"{name}-{(entry.get('shots') or {}).get('count') or 0}"
    return key if key in columns.TASKS else None


def _distinct(keys: dict[str, str | None], other: dict[str, str]) -> dict[str, str]:
    """Each name with its key, or its name in ``other`` (default: itself) where it has none or another name has taken it."""
    result: dict[str, str] = {}
    for name, key in keys.items():
        taken = set(result.values())
        result[name] = key if key and key not in taken else other.get(name, name)
    return result


@dataclass(frozen=True)
class Own:
    """What a study has: the resolved study, its tables averaged over seeds, its scores in the published form, what was measured.

    ``scored_by``: backends and types of each benchmark (published names) as ``{"mmlu-0": "vllm 0.11, bfloat16"}``.
    """

    study: dict
    names: Names
    tables: dict[str, pl.DataFrame]
    data: frames.Data
    scored_by: dict[str, str] = field(default_factory=dict)


def read(study: dict, root: Path, imported: Sequence[Path] = ()) -> Own:
    """The results of a resolved study under ``root`` as far as they are there; ``imported``: folders of imported scores."""
    tables = {name: collected(study, name, root, imported) for name in COLLECTED}
    similarity = Path(Paths(root).similarity.replace("{place}", "tables"))
    tables["similarity"] = read_table(similarity) if similarity.is_file() else pl.DataFrame(schema=SIMILARITY)
    study, tables = origins.analysed(study, tables)
    tables = {name: seeds.averaged(name, frame) for name, frame in tables.items()}
    known = names(study)
    return Own(study, known, tables, published_form(study, tables, known), scored_by(tables["scores"], known))


def collected(study: dict, table: str, root: Path, imported: Sequence[Path]) -> pl.DataFrame:
    """One table, from the study's own where it is complete and newer than its result files, else from those that are there."""
    path = Path(Paths.fill(Paths(root).table, table=table))
    record = path.with_suffix(".json")
    files = [file.path for file in result_files(study, table, root)]
    if path.is_file() and record.is_file() and not imported and not read_json(record).get("missing"):
        made = path.stat().st_mtime_ns
        if all(file.is_file() and file.stat().st_mtime_ns <= made for file in files):
            return read_table(path)
    return collect(study, table, root, allow_missing=True, imported=imported).frame


def published_form(study: dict, tables: dict[str, pl.DataFrame], known: Names) -> frames.Data:
    """Scores and gains in the columns of :func:`frames.scores_table` and :func:`frames.gains_table`, with the paper's names.

    A judge's rating from 1 to 10 is stored as a tenth; like the published ones it becomes a fraction of the range.
    """
    keys = ["model", "dataset", "recipe", "epoch", "benchmark"]
    scores = tables["scores"].filter(pl.col("score").is_finite()).unique(keys, keep="first", maintain_order=True)
    rated, rate = pl.col("scale").fill_null(1.0) == 10, pl.col("score")
    scale = pl.when(rated).then(10 / 9).otherwise(1.0)
    scores = scores.with_columns(
        pl.when(rated).then((10 * rate - 1) / 9).otherwise(rate).alias("score"), pl.col("stderr") * scale, _scale=scale
    )
    gains = (
        tables["gains"].select(*keys, "gain", pl.col("stderr").alias("gain_stderr"), "z").unique(keys, keep="first", maintain_order=True)
    )
    base = scores.filter(pl.col("epoch") == 0).select("model", "benchmark", base_score="score")
    joined = scores.filter(pl.col("epoch") > 0).join(gains, on=keys, how="left", maintain_order="left")
    joined = joined.join(base, on=["model", "benchmark"], how="left", maintain_order="left")
    joined = joined.with_columns(pl.col("gain") * pl.col("_scale"), pl.col("gain_stderr") * pl.col("_scale"))
    about = ["model", "dataset", "recipe", "epoch", "method", "rows", "schedule", "benchmark"]
    scores = renamed(scores.select(*about, "score", "stderr", "n"), known)
    gained = joined.select(*about, "score", pl.col("gain_stderr").alias("stderr"), "n", "base_score", "gain", "z")
    described = study_of_paper(study, known, scores)
    gained = renamed(gained, known)
    return frames.Data(described, scores, gained, consistency.cells(gained, described))


def renamed(frame: pl.DataFrame, known: Names) -> pl.DataFrame:
    """The frame with the published names of base models, training sets and benchmarks."""
    pairs = (("model", known.models), ("dataset", known.datasets), ("benchmark", known.benchmarks))
    return frame.with_columns(pl.col(column).replace(mapping) for column, mapping in pairs)


def study_of_paper(study: dict, known: Names, scores: pl.DataFrame) -> dict:
    """The study as :func:`frames.study` describes the published scores: published names, labels and order for what is the paper's."""
    models = {}
    for name, entry in study["models"].items():
        key = known.models[name]
        label, family, language = paper.KEYS.get(key, (entry["label"], entry.get("family", "unknown"), entry.get("language", "unknown")))
        models[key] = {"label": label, "family": family, "language": language}
    datasets = {}
    for name, entry in study["datasets"].items():
        key = known.datasets.get(name, name)
        label, group = paper.DATASETS.get(key, (entry["label"], entry["group"]))
        members = [known.datasets.get(member, member) for member in entry["members"]]
        facts = {"label": label, "group": group, "merged": entry["merged"], "members": members}
        datasets[key] = facts | {"without": known.datasets.get(entry["without"], entry["without"]), "foreign": entry.get("foreign", False)}
    benchmarks = {}
    for name, entry in study["benchmarks"].items():
        task = columns.TASKS.get(known.benchmarks[name])
        facts = (task.label, task.group) if task else (entry["label"], entry["group"])
        benchmarks[known.benchmarks[name]] = dict(zip(("label", "group"), facts, strict=True))
    here = set(scores["benchmark"])
    runs = [
        {**run, "model": known.models.get(run["model"], run["model"]), "dataset": known.datasets.get(run["dataset"], run["dataset"])}
        for run in study["runs"]
    ]
    return {
        "study": study["study"],
        "seed": study["seed"],
        "models": {key: models[key] for key in columns.in_order(models, paper.KEYS)},
        "datasets": {key: datasets[key] for key in columns.in_order(datasets, paper.DATASETS)},
        "benchmarks": {key: benchmarks[key] for key in columns.in_order(benchmarks, columns.TASKS) if key in here},
        "recipes": study["recipes"],
        "runs": runs,
    }


def scored_by(scores: pl.DataFrame, known: Names) -> dict[str, str]:
    """The backends, with versions, and number types behind the scores of each benchmark."""
    said: dict[str, list[str]] = {}
    facts = [name for name in ("backend", "backend_version", "dtype") if name in scores.columns]
    for row in scores.select("benchmark", *facts).unique(maintain_order=True).iter_rows(named=True):
        engine = " ".join(filter(None, [row["backend"], row.get("backend_version")])) or "unknown backend"
        said.setdefault(known.benchmarks[row["benchmark"]], []).append(f"{engine}, {row.get('dtype') or 'unknown type'}")
    return {name: "; ".join(dict.fromkeys(parts)) for name, parts in said.items()}


def predictors(own: Own) -> pl.DataFrame:
    """The table ``predictors`` of what is there."""
    if own.tables["gains"].is_empty():
        return pl.DataFrame(schema=analyse_predictors.SCHEMA)
    return analyse_predictors.table(own.tables, {**own.study, "analyse": {}})


def layer_peaks(own: Own) -> pl.DataFrame:
    """The table ``layer_peaks`` of what is there."""
    if own.tables["layers"].is_empty():
        return pl.DataFrame(schema=analyse_layers.PEAKS)
    return analyse_layers.curves(own.tables, own.study)[1]


def vectors(own: Own) -> analyse_map.Vectors:
    """The checkpoints with likelihoods that are there."""
    return analyse_map.vectors(own.tables["likelihood"])
