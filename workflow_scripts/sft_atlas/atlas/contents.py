"""What the pages of an atlas share: labels and colours, and every checkpoint with its scores, as plain values.

Tables are held by column, ``{"model": ["llama", ...], "gain": [1.5, ...]}``. Scores, gains and their standard errors are in percentage
points here and in every page; what is missing is None.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from sft_atlas.analyse import analyse_map, select
from sft_atlas.atlas import rankings
from sft_atlas.stats.wording import METHODS, SIGNIFICANT
from sft_atlas.study import paths
from sft_atlas.tables.origins import OURS

RUN = ["model", "dataset", "folder"]
KEYS = [*RUN, "epoch"]
POINTS = ["score", "stderr", "gain", "gain_stderr", "low", "high"]


@dataclass(frozen=True)
class Contents:
    """A study and its tables (see CONTRIBUTING), or published scores in the same form.

    ``tables`` are averaged over seeds, as those that figures and findings read; ``each_seed`` holds the same tables with every run by itself.
    ``expected``: the keys of every checkpoint that there should be; None where nobody can know. ``reading`` says how to read the numbers.
    ``root`` is the folder of the results, or empty; ``remarks`` are said on the pages of single checkpoints, by their addresses;
    ``audited`` holds published scores as they are in the CSV, repairs and audit. ``listed``: tables that the page *Tables* shows in the place of
    those of ``each_seed``, such as all scores, also those that no comparison takes.
    ``heading``, ``opening`` (Markdown) and ``sections`` are those of the landing page, with figures from the folder ``figures``.
    """

    study: dict
    tables: dict[str, pl.DataFrame]
    each_seed: dict[str, pl.DataFrame]
    expected: list[tuple] | None = None
    reading: str = ""
    heading: str = ""
    opening: str = ""
    sections: list = field(default_factory=list)
    figures: str = ""
    root: str = ""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    audited: dict[str, pl.DataFrame] = field(default_factory=dict)
    listed: dict[str, pl.DataFrame] = field(default_factory=dict)

    @cached_property
    def rankings(self) -> dict:
        """See :mod:`sft_atlas.atlas.rankings`."""
        return rankings.rankings(self.tables["gains"], self.tables["scores"], self.study)

    @cached_property
    def measured(self) -> pl.DataFrame:
        """See :func:`measured`."""
        return measured(self)

    @cached_property
    def checkpoints(self) -> dict:
        """See :func:`checkpoints`."""
        return checkpoints(self)

    @cached_property
    def vectors(self) -> analyse_map.Vectors | None:
        """Log-likelihoods of the checkpoints on the map, whose ``recipe`` is the folder of the run; None without any."""
        table = self.each_seed.get("likelihood")
        if table is None or table.is_empty():
            return None
        return analyse_map.vectors(by_folder(table, self.study).rename({"folder": "recipe"}))


def expected(study: dict) -> list[tuple]:
    """The keys of every checkpoint of a study, base models first."""
    return [(each.model, each.dataset, each.recipe, each.epoch) for each in paths.checkpoints(study)]  # its recipe is the folder


def address(model: str, dataset: str, folder: str, epoch: int) -> str:
    """The name of a checkpoint in links: ``model/dataset/recipe/epoch``; the recipe has its seed where the folder of the run has."""
    return f"{model}/{dataset}/{folder}/{epoch}"


def runs(study: dict) -> pl.DataFrame:
    """The runs of a study with their folder, recipe, seed, method, rows and schedule."""
    keys = {**dict.fromkeys(("model", "dataset", "folder", "recipe", "method", "schedule"), pl.String), "rows": pl.Int64, "seed": pl.Int64}
    return pl.DataFrame([{"folder": run["recipe"]} | {key: run[key] for key in keys if key in run} for run in study["runs"]], schema=keys)


def by_folder(frame: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Rows of single runs with ``folder`` in place of recipe and seed, which together name the run as its folder does."""
    if "seed" not in frame.columns:
        return frame.rename({"recipe": "folder"})
    keys = ["model", "dataset", "recipe", "seed"]
    named = frame.join(runs(study).select(*keys, "folder"), on=keys, how="left", nulls_equal=True, maintain_order="left")
    return named.with_columns(pl.col("folder").fill_null(pl.col("recipe"))).drop("recipe", "seed")


def described(contents: Contents) -> dict:
    """The study for every page: name, notes, and models, training sets, benchmarks, recipes and methods with labels and colours."""
    from sft_atlas.report.figures import style

    study, scores = contents.study, contents.tables["scores"]
    of_models = style.colours(list(study["models"]))
    of_sets = style.dataset_colours(study, list(study["datasets"]))[0]
    kinds = {name: kind for kind in ("single", "merged", "without") for name in select.kinds(study, kind)}
    facts = {}
    for column in ("metric", "backend", "scale", "judge", "shots"):
        if column in scores.columns:
            for name, value in (
                scores.drop_nulls(column).group_by("benchmark", maintain_order=True).agg(pl.col(column).unique()).iter_rows()
            ):
                facts.setdefault(name, {})[column] = sorted(value)
    return {
        "study": study["study"],
        "models": [
            {"key": key, "label": entry.get("label", key), "family": entry.get("family"), "language": entry.get("language")}
            | {"colour": of_models[key], "dtype": entry.get("dtype")}
            for key, entry in study["models"].items()
        ],
        "datasets": [
            {
                "key": key,
                "label": entry.get("label", key),
                "group": entry.get("group"),
                "kind": kinds.get(key, "unknown"),
                "colour": of_sets[key],
            }
            for key, entry in study["datasets"].items()
        ],
        "benchmarks": [
            {"key": key, "label": entry.get("label", key), "group": entry.get("group", "other"), "chance": points(entry.get("chance"))}
            | facts.get(key, {})
            for key, entry in study["benchmarks"].items()
        ],
        "recipes": [{"key": key, "label": entry.get("label", key), "method": entry["method"]} for key, entry in study["recipes"].items()],
        **({"outside": outside} if (outside := [run["folder"] for run in study["runs"] if run.get("outside")]) else {}),
        "methods": [{"key": key, "label": label, "colour": style.METHOD_COLOURS.get(key, style.GREY)} for key, label in METHODS.items()],
    }


def points(fraction: float | None) -> float | None:
    """A fraction in percentage points."""
    return None if fraction is None else 100 * fraction


def measured(contents: Contents) -> pl.DataFrame:
    """Every score with its gain, in percentage points: the keys, benchmark, n, score, stderr, gain, gain_stderr, low, high, q.

    ``low`` and ``high`` are the 95 % interval of the gain over the items; q is Benjamini-Hochberg's over all gains of the last checkpoints
    of runs that are in one family: single sets with the main recipe of each method, as in the figure ``gains``, and all other checkpoints.
    """
    study, gains, keys = contents.study, contents.each_seed["gains"], [*select.RUN, "epoch"]
    first = select.single(gains, study).select(keys).unique()
    families = [gains.join(first, on=keys, how=how, maintain_order="left") for how in ("semi", "anti")]
    tested = by_folder(pl.concat([select.with_intervals(select.tested(family)) for family in families]), study)
    tested = tested.select(*KEYS, "benchmark", "gain", "low", "high", "q", gain_stderr="stderr", pairs="n")
    scores = by_folder(contents.each_seed["scores"], study).select(*KEYS, "benchmark", "score", "stderr", "n")
    joined = scores.join(tested, on=[*KEYS, "benchmark"], how="left", maintain_order="left")
    return joined.with_columns(pl.col(name) * 100 for name in POINTS)


def checkpoints(contents: Contents) -> dict:
    """Every checkpoint with what the study knows about it, by column, base models first, and ``scores`` by benchmark.

    ``perplexity`` is that of the training set's responses under the base model, ``weight_change`` the relative change of all weights at
    the last epoch. A checkpoint that is expected and has no score is there with nothing.
    """
    study, tables, everything = contents.study, contents.each_seed, contents.measured
    known = runs(study)
    if contents.expected is not None:
        frame = pl.DataFrame(contents.expected, schema={**dict.fromkeys(RUN, pl.String), "epoch": pl.Int64}, orient="row")
    else:
        frame = in_order(everything.select(KEYS).unique(maintain_order=True), study)
    frame = frame.join(known, on=RUN, how="left", maintain_order="left")
    base = pl.col("epoch") == 0
    frame = frame.with_columns(pl.when(base).then(pl.lit("base")).otherwise(pl.col(name)).alias(name) for name in ("recipe", "method"))
    means = select.mean_gains(by_folder(tables["gains"], study).rename({"folder": "recipe"})).rename({"recipe": "folder"})
    means = means.select(*KEYS, mean_gain=100 * pl.col("gain"), mean_gain_stderr=100 * pl.col("stderr"))
    frame = frame.join(means, on=KEYS, how="left", maintain_order="left")
    last = pl.col("epoch") == pl.col("epoch").max().over(RUN)
    if "perplexity" in tables:
        own = tables["perplexity"].filter(pl.col("scope") == "response").select("model", "dataset", "perplexity")
        frame = frame.join(own, on=["model", "dataset"], how="left", maintain_order="left")
    if "runs" in tables:
        own = by_folder(tables["runs"], study).select(*RUN, "weight_change", "train_loss", "dtype", "device")
        frame = frame.join(own, on=RUN, how="left", maintain_order="left")
        frame = frame.with_columns(pl.when(last).then(pl.col("weight_change")).alias("weight_change"))
    scored = tables["scores"]
    if "source" in scored.columns and (scored["source"] != OURS).any():
        of = by_folder(scored, study).group_by(KEYS, maintain_order=True).agg(pl.col("source").unique(maintain_order=True).str.join(", "))
        frame = frame.join(of, on=KEYS, how="left", maintain_order="left")
    places = frame.select(KEYS)
    by_benchmark = {}
    for benchmark in study["benchmarks"]:
        part = everything.filter(pl.col("benchmark") == benchmark).drop("benchmark").unique(KEYS, keep="first", maintain_order=True)
        if part.height:
            by_benchmark[benchmark] = by_column(places.join(part, on=KEYS, how="left", maintain_order="left").drop(KEYS))
    addresses = [address(*row) for row in places.iter_rows()]
    scores = [entry["score"] for entry in by_benchmark.values()]
    return {
        "address": addresses,
        **by_column(frame.with_columns(last=last)),
        "scores": by_benchmark,
        "limits": {
            "mean": robust_limit(frame["mean_gain"].to_list()),
            "scores": {name: robust_limit(entry["gain"], entry["q"]) for name, entry in by_benchmark.items()},
        },
        "missing": [name for place, name in enumerate(addresses) if all(column[place] is None for column in scores)],
    }


def in_order(frame: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Rows in the order of the study's models, training sets and recipes, then epochs; base models first."""
    places = {
        key: {name: place for place, name in enumerate(study[f"{kind}s"])}
        for key, kind in zip(RUN, ("model", "dataset", "recipe"), strict=True)
    }
    order = [pl.col(key).replace_strict(place, default=-1, return_dtype=pl.Int64) for key, place in places.items()]
    return frame.sort(pl.col("epoch") > 0, *order, "epoch", maintain_order=True)


def robust_limit(gains: list[float | None], q: list[float | None] | None = None) -> float:
    """Where the colours of these gains in points end, as in figures (:func:`sft_atlas.report.figures.style.colour_limit`)."""
    from sft_atlas.report.figures import style

    corrected = np.array(q if q is not None else [None] * len(gains), dtype=float)
    return round(style.colour_limit(np.array(gains, dtype=float), corrected < SIGNIFICANT), 3)


def by_column(frame: pl.DataFrame) -> dict[str, list]:
    """A frame as lists; numbers have as many digits as anybody reads."""
    rounded = frame.with_columns(pl.col(name).round_sig_figs(7) for name, kind in frame.schema.items() if kind == pl.Float64)
    return {name: column.to_list() for name, column in rounded.to_dict().items()}


def matrix(frame: pl.DataFrame, value: str, rows: str, columns: str, names: tuple[list[str], list[str]]) -> list[list[float]]:
    """``value`` over the named rows and columns, for a chart."""
    return np.round(select.array(frame, value, {rows: names[0], columns: names[1]}), 6).tolist()
