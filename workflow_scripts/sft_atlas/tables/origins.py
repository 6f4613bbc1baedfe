"""Scores of several sources in one table, and which of them may be compared.

Ours and imported scores (rule ``import_scores``) stand beside each other in the tables. A comparison, such as a gain, takes only scores that
were measured in the same way: same metric, number of examples, number of items, and prompts. Everything that analyses, figures and findings
read goes through :func:`comparable`; what it keeps out is said in the findings.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sft_atlas.core.files import read_table
from sft_atlas.study.items import prompts_hash
from sft_atlas.study.paths import ResultFile
from sft_atlas.study.result_files import CHECKPOINT, REAL, TEXT, WHOLE, columns, read, without_subtasks
from sft_atlas.study.runs import BASE

OURS = "ours"
STUDY = "study"  # `template` of scores whose prompts are known to have the study's template
GAINED = columns("base_score gain stderr seed_covariance z", REAL) | {"n_clusters": WHOLE, "unscored": WHOLE, "base_source": TEXT}
SOURCE = columns("source source_name source_file source_version source_checkpoint template items", TEXT)


# ---------------------------------------------------------------- into the table of scores


def with_ours(scores: pl.DataFrame) -> pl.DataFrame:
    """The study's own scores with the columns that say where a score is from."""
    known = {"source": pl.lit(OURS), "template": pl.lit(STUDY)}
    return scores.with_columns(known.get(name, pl.lit(None, kind)).alias(name) for name, kind in SOURCE.items())


def with_items(scores: pl.DataFrame, samples: list[ResultFile]) -> pl.DataFrame:
    """The study's own scores of base models with ``items``, the hash of their prompts, from their samples; others keep null."""
    frame = read(samples, {**CHECKPOINT, **columns("suite benchmark prompt", TEXT), "score": REAL}).filter(pl.col("score").is_finite())
    keys = [*CHECKPOINT, "suite", "benchmark"]
    hashes = [(*key, prompts_hash(part["prompt"].to_list())) for key, part in frame.group_by(keys, maintain_order=True)]
    known = pl.DataFrame(hashes, {**{key: frame.schema[key] for key in keys}, "items": TEXT}, orient="row")
    joined = scores.drop("items").join(known, on=keys, how="left", maintain_order="left")
    return joined.with_columns(pl.when(pl.col("subtask").is_null()).then("items")).select(scores.columns)


def imported(folders: Iterable[Path], schema: dict) -> pl.DataFrame:
    """The scores of all imports in the columns of ``schema``, which also names ``of_study``: whether a checkpoint is one of the study."""
    wanted = {**schema, "of_study": pl.Boolean}
    frames = [read_table(folder / "scores.parquet") for folder in folders]
    parts = [
        frame.select((pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in wanted.items())
        for frame in frames
    ]
    return pl.concat([pl.DataFrame(schema=wanted), *parts])


# ---------------------------------------------------------------- what may be compared


@dataclass(frozen=True)
class KeptOut:
    """Imported scores that no comparison has: how many, of which import and benchmark, and why."""

    source_name: str
    benchmark: str
    scores: int
    reason: str


def comparable(scores: pl.DataFrame) -> tuple[pl.DataFrame, list[KeptOut]]:
    """The scores of a study that may be compared with each other, benchmark by benchmark, and which were kept out.

    With own scores of a benchmark an imported one stays if its metric, examples and items are theirs, and its prompts too: the prompts
    themselves (``items``), or the study's template by the study's word (``template``). Without own scores those of the largest group that
    agrees in all of this stay, of several such groups the first. A checkpoint that we scored keeps our score. Rows of the tasks of a group
    are never kept: their items are in the group's row.
    """
    whole = without_subtasks(scores)
    if "source" not in scores.columns or scores["source"].is_in([OURS]).all():
        return whole, []
    kept, out = [], []
    parts = scores.filter(pl.col("subtask").is_not_null(), pl.col("source") != OURS)
    for source, benchmark, subtask, count in parts.group_by("source_name", "benchmark", "subtask", maintain_order=True).len().iter_rows():
        reason = f"its items are in the score of the group {benchmark}; to compare it name it in `benchmarks` of the import"
        out.append(KeptOut(source, subtask, count, reason))
    for (benchmark,), part in whole.with_row_index("_row").group_by("benchmark", maintain_order=True):
        own = part.filter(pl.col("source") == OURS)
        kept.append(own)
        others = part.filter(pl.col("source") != OURS)
        reasons = _against_own(others, own) if own.height else _against_largest(others)
        others = others.with_columns(pl.Series("_reason", reasons, dtype=TEXT))
        kept.append(others.filter(pl.col("_reason").is_null()).drop("_reason"))
        counts = others.drop_nulls("_reason").group_by("source_name", "_reason", maintain_order=True).len()
        out += [KeptOut(source, str(benchmark), count, reason) for source, reason, count in counts.iter_rows()]
    return pl.concat(kept).sort("_row").drop("_row"), out


def _against_own(others: pl.DataFrame, own: pl.DataFrame) -> list[str | None]:
    """For each imported score, why it cannot be compared with ours; None where it can."""
    metrics, shots = set(own["metric"]), set(own["shots"])
    counts, items = set(own["n"]), set(own["items"].drop_nulls())
    scored = set(own.select(_keys(own)).rows())
    suites = own["suite"].n_unique()
    found: list[str | None] = []
    taken: set[tuple] = set()
    for row in others.iter_rows(named=True):
        differing = []
        if row["metric"] not in metrics:
            differing.append(f"metric {row['metric']}, ours {_listed(metrics)}")
        if row["shots"] not in shots or row["shots"] is None:
            differing.append(f"{_number(row['shots'], 'examples')}, ours {_listed(shots)}")
        if row["n"] is None or row["n"] not in counts:
            differing.append(f"{_number(row['n'], 'items')}, ours {_listed(counts)}")
        if not (row["items"] in items if row["items"] else row["template"] == STUDY):
            differing.append("other prompts than ours" if row["items"] else "its prompts are not known to be ours")
        if not differing and row["score"] is None:
            differing.append("no score")
        if not differing and tuple(row[key] for key in _keys(own)) in scored:
            differing.append("we scored the same checkpoint")
        if not differing and suites > 1:
            differing.append("several suites of the study have this benchmark")
        place = tuple(row[key] for key in _keys(others))
        if not differing and place in taken:
            differing.append("another import has a score of the same checkpoint")
        if not differing:
            taken.add(place)
        found.append("; ".join(differing) or None)
    return found


def _keys(frame: pl.DataFrame) -> list[str]:
    return [key for key in ("model", "dataset", "recipe", "seed", "epoch") if key in frame.columns]


def _against_largest(others: pl.DataFrame) -> list[str | None]:
    """For each imported score of a benchmark that we have not scored, why it is not in the largest group that agrees; None where it is."""
    # Where prompts are known they decide; else what is said of the template, which is nothing where it is null: then nothing agrees.
    prompts = pl.coalesce("items", pl.col("template"), pl.lit("unknown of ") + pl.col("source_name"))
    groups = others.with_columns(_prompts=prompts).select("metric", "shots", "n", "_prompts").rows()
    counts = Counter(groups)  # in the order in which they come
    largest = max(counts, key=lambda group: counts[group]) if counts else None
    places = [tuple(row[key] for key in _keys(others)) for row in others.iter_rows(named=True)]
    found, seen = [], set()
    for group, place, score in zip(groups, places, others["score"], strict=True):
        names = ("metric", "examples", "items", "prompts")
        differing = [name for name, value, other in zip(names, group, largest, strict=True) if value != other]
        if differing:
            found.append(f"differs in {', '.join(differing)} from the {counts[largest]} scores that are compared")
        elif score is None:
            found.append("no score")
        elif place in seen:
            found.append("another import has a score of the same checkpoint")
        else:
            seen.add(place)
            found.append(None)
    return found


def _listed(values: set) -> str:
    return " or ".join(sorted(map(str, values)))


def _number(value: int | None, what: str) -> str:
    return f"number of {what} unknown" if value is None else f"{value:,} {what}"


# ---------------------------------------------------------------- gains of imported checkpoints


def gains(scores: pl.DataFrame, samples: dict[str, pl.DataFrame], own: list[ResultFile]) -> pl.DataFrame:
    """Gains of imported checkpoints over their base models, ours or imported, where their scores may be compared.

    ``scores`` is the table of scores, ``samples`` holds those of imports by name, ``own`` the files of the study's base models. Paired item by
    item where both sides have samples of the same prompts. Else the difference of two scores, whose standard error counts the items of both as independent, an
    upper bound.
    """
    kept, _ = comparable(scores)
    tuned = kept.filter(pl.col("source") != OURS, ~pl.col("dataset").is_in([BASE]), pl.col("epoch") > 0)
    bases = kept.filter(pl.col("dataset") == BASE)
    rows = []
    for row in tuned.iter_rows(named=True):
        found = bases.filter(model=row["model"], benchmark=row["benchmark"])
        if found.is_empty() or found["score"][0] is None:
            continue
        base = found.row(0, named=True)
        pair = None
        if row["items"] and row["items"] == base["items"]:
            pair = _paired(_items(row, samples, own), _items(base, samples, own))
        rows.append({**row, "base_score": base["score"], "base_source": base["source"], **(pair or _unpaired(row, base))})
    frame = pl.DataFrame(rows, schema={**scores.schema, **GAINED})
    return frame.with_columns(z=(pl.col("gain") / pl.col("stderr")).fill_nan(0.0))


def _items(row: dict, samples: dict[str, pl.DataFrame], own: list[ResultFile]) -> pl.DataFrame:
    """prompt, score and cluster of each item of a score; imported items have no clusters."""
    if row["source"] == OURS:
        file = [
            file
            for file in own
            if file.keys["model"] == row["model"] and file.keys["dataset"] == BASE and file.keys["suite"] == row["suite"]
        ]
        frame = read(file, {**CHECKPOINT, **columns("suite benchmark prompt cluster", TEXT), "score": REAL})
        return frame.filter(pl.col("score").is_finite(), benchmark=row["benchmark"]).select("prompt", "score", "cluster")
    frame = samples[row["source_name"]].filter(pl.col("main"), source_checkpoint=row["source_checkpoint"], benchmark=row["benchmark"])
    of_group = frame["subtask"].is_not_null().any()
    if of_group and (frame["score"].has_nulls() or abs(frame["score"].mean() - row["score"]) > 1e-6):
        frame = frame.clear()  # a group that weighs its tasks equally is no mean over items
    return frame.select("prompt", "score", "cluster")


def _paired(tuned: pl.DataFrame, base: pl.DataFrame) -> dict | None:
    """The gain of paired items; None where a side has no items of its own. A prompt that is there twice is paired in order.

    The standard error is clustered as the base model's items are, as in :func:`sft_atlas.tables.gains.paired_gains`.
    """
    if tuned.is_empty() or tuned.height != base.height:
        return None
    sides = [
        frame.with_columns(_copy=pl.int_range(pl.len()).over("prompt")) for frame in (tuned.drop("cluster"), base.rename({"score": "base"}))
    ]
    both = sides[0].join(sides[1], on=["prompt", "_copy"], maintain_order="left")
    if both.height != tuned.height:
        return None
    scored = both.filter(pl.col("score").is_not_null() & pl.col("base").is_not_null())
    if scored.is_empty():
        return None
    difference = scored["score"] - scored["base"]
    unit = pl.coalesce("cluster", pl.format("item {}", pl.int_range(pl.len())))
    sums = scored.with_columns(_error=difference - difference.mean()).group_by(unit.alias("_unit")).agg(pl.col("_error").sum())["_error"]
    units = len(sums)
    stderr = None if units < 2 else (units / (units - 1) * float((sums**2).sum())) ** 0.5 / len(difference)
    return {
        "base_score": scored["base"].mean(), "score": scored["score"].mean(), "gain": difference.mean(), "stderr": stderr, "n": scored.height,
        "n_clusters": units, "unscored": both.height - scored.height,
    }  # fmt: skip


def _unpaired(row: dict, base: dict) -> dict:
    errors = (row["stderr"], base["stderr"])
    stderr = None if None in errors else (errors[0] ** 2 + errors[1] ** 2) ** 0.5
    return {"gain": row["score"] - base["score"], "stderr": stderr, "n": row["n"], "n_clusters": None, "unscored": None}


# ---------------------------------------------------------------- what analyses read


def analysed(study: dict, tables: dict[str, pl.DataFrame]) -> tuple[dict, dict[str, pl.DataFrame]]:
    """The study and its tables for analyses, figures and findings: comparable scores of benchmarks only, without those of the tasks of a
    group, and what they are of in the study too.

    The study gets ``imports``, lines about what was imported and what was kept out, and entries for models, training sets, benchmarks, recipes
    and runs that only imported scores have, marked ``imported``.
    """
    scores = tables.get("scores")
    if scores is not None:
        tables = {**tables, "scores": without_subtasks(scores)}
    shown = {name: frame for name, frame in tables.items() if name in ("scores", "gains") and "source" in frame.columns}
    if not any((frame["source"] != OURS).any() for frame in shown.values()):
        return study, tables
    lines = []
    if scores is not None and "source" in scores.columns:
        kept, out = comparable(scores)
        tables = {**tables, "scores": kept}
        lines = words(scores, kept, out)
    return with_imported(study, [tables[name] for name in shown]) | {"imports": lines}, tables


def words(scores: pl.DataFrame, kept: pl.DataFrame, out: list[KeptOut]) -> list[str]:
    """What was imported and what was kept out of comparisons, in sentences."""
    lines = []
    for (name,), part in scores.filter(pl.col("source") != OURS).group_by("source_name", maintain_order=True):
        compared = kept.filter(pl.col("source") != OURS, source_name=name).height
        kind, version = part["source"][0], part["source_version"][0]
        text = f"IMPORTED from {name} ({kind}, {version}): {part.height:,} scores of {part['source_checkpoint'].n_unique():,} checkpoints; {compared:,} are compared with others."
        reasons: dict[str, list[KeptOut]] = {}
        for entry in out:
            if entry.source_name == name:
                reasons.setdefault(entry.reason, []).append(entry)
        for reason, entries in reasons.items():
            text += f" Kept out: {', '.join(f'{entry.benchmark} ({entry.scores:,})' for entry in entries)}: {reason}."
        lines.append(text)
    own = set(kept.filter(pl.col("source") == OURS, pl.col("epoch") > 0)["benchmark"])  # those that have gains of ours
    if own and (others := [name for name in kept["benchmark"].unique(maintain_order=True) if name not in own]):
        lines.append(f"In no mean over benchmarks, as this study has not scored them itself: {', '.join(others)}.")
    return lines


def with_imported(study: dict, frames: list[pl.DataFrame]) -> dict:
    """A resolved study with entries for names that only imported scores have."""
    parts = {"models": "model", "datasets": "dataset", "benchmarks": "benchmark", "recipes": "recipe"}
    entries = {part: dict(study[part]) for part in parts}
    known_runs = {(run["model"], run["dataset"], run["recipe"], run["seed"]) for run in study["runs"]}
    runs = list(study["runs"])
    blank = {
        "models": {"family": "unknown", "language": "unknown"},
        "datasets": {"group": "other", "merged": False, "members": [], "without": None, "smallest_rows": None, "foreign": True},
        "benchmarks": {"group": "other", "chance": None},
        "recipes": {"save_epochs": []},
    }
    for frame in frames:
        foreign = frame.filter(pl.col("source") != OURS, pl.col("epoch").is_not_null())  # of others nothing but a name is known
        for part, column in parts.items():
            for name in foreign[column].unique(maintain_order=True):
                if name not in (BASE, None):
                    entries[part].setdefault(name, {"label": name, "imported": True, **blank[part]})
        for row in (
            foreign.filter(pl.col("epoch") > 0)
            .unique(["model", "dataset", "recipe", "seed"], keep="first", maintain_order=True)
            .iter_rows(named=True)
        ):
            if row["recipe"] is not None:
                entries["recipes"][row["recipe"]].setdefault("method", row["method"])
            key = (row["model"], row["dataset"], row["recipe"], row["seed"])
            if key not in known_runs and row["method"] is not None:
                known_runs.add(key)
                facts = {name: row[name] for name in ("model", "dataset", "recipe", "seed", "method", "rows", "schedule")}
                folder = row["recipe"] if row["seed"] is None else f"{row['recipe']}-seed-{row['seed']}"
                runs.append(
                    {
                        **facts,
                        "folder": folder,
                        "epochs": row["epoch"],
                        "save_epochs": [row["epoch"]],
                        "blocks": [],
                        "measure_representation": False,
                        "settings": {},
                        "imported": True,
                    }
                )
    for entry in entries["recipes"].values():
        entry.setdefault("method", None)
    return {**study, **entries, "runs": runs}
