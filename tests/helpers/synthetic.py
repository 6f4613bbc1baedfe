"""Write the whole result tree of an invented study, with effects of known size planted in it.

Planted, at ``effect=1``: datasets 0 and 1 do the same to every benchmark; a training set that the base model finds easier (lower
perplexity) gains more; LoRA gains 0.6 of what full fine-tuning gains; weights change more in upper layers, and around depth 0.6 the more the
more a run gains; the intrinsic dimension rises above depth 0.5 only; the base model decides a checkpoint's place on the map. At
``effect=0`` every one of them is absent.
"""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import run_folder
from sft_atlas.tables.collect import ANSWERED

LAYERS, ITEMS, EPOCHS = 6, 100, (1, 2, 3)
MODELS = {"alder-1b": "en", "birch-1b": "zh", "cedar-2b": "ja", "damar-2b": "en", "elder-3b": "zh", "fig-3b": "ja"}
DATASETS = {
    "arith": "mathematics",
    "algebra": "mathematics",
    "logic": "reasoning",
    "sorting": "code",
    "words": "general",
    "chat": "general",
}
BENCHMARKS = {
    "sums": "mathematics",
    "chains": "mathematics",
    "gates": "reasoning",
    "order": "code",
    "loops": "code",
    "spell": "language",
    "facts": "knowledge",
    "follow": "instruction",
}


@functools.cache
def collected(effect: float = 1.0, seed: int = 0) -> tuple[dict, Path, dict[str, pl.DataFrame]]:
    """The default study, its folder and all its tables, made once for all tests; do not change what is in the folder."""
    study, root = study_json(), Path(_folder().name) / f"{effect}-{seed}"
    write(root, study, effect, seed)
    return study, root, every_table(study, root)


def every_table(study: dict, root: Path) -> dict[str, pl.DataFrame]:
    """All tables of a study that was written: collected ones, similarity, and the tables of statistics."""
    from sft_atlas.analyse import analyse_layers, analyse_map, analyse_noise, analyse_predictors
    from sft_atlas.study import paths
    from sft_atlas.tables.collect import collect

    frames = {table: collect(study, table, root).frame for table in paths.TABLES}
    frames["similarity"] = pl.read_parquet(root / "tables" / "similarity.parquet")
    frames["predictors"] = analyse_predictors.table(frames, study)
    frames["layer_curves"], frames["layer_peaks"] = analyse_layers.curves(frames, study)
    frames["noise"] = analyse_noise.noise(frames["gains"], study)
    result = analyse_map.vectors(frames["likelihood"])
    for name in ("shares", "effects", "spread"):
        frames[f"map_{name}"] = getattr(analyse_map, name)(result, study)
    assert set(paths.REPORTED) <= set(frames)
    return frames


def at(model: str, dataset: str, recipe: str, epoch: int) -> pl.Expr:
    """Which rows of a table are of this checkpoint."""
    keys = {"model": model, "dataset": dataset, "recipe": recipe, "epoch": epoch}
    return pl.all_horizontal(pl.col(name) == value for name, value in keys.items())


def multiplied(study: dict, frames: dict[str, pl.DataFrame], times: int) -> tuple[dict, dict[str, pl.DataFrame]]:
    """The study and its tables with every single training set, and every run without one, ``times`` as often under names of their own."""

    def renamed(name: str, i: int) -> str:
        return name if i == 0 or name in ("base", "all") else f"{name}-{i}"

    def copies(frame: pl.DataFrame) -> pl.DataFrame:
        keys = [key for key in ("dataset", "removed") if key in frame.columns]
        if not keys:
            return frame
        own = frame.filter(~pl.col("dataset").is_in(["base", "all"])) if "dataset" in keys else frame
        more = [own.with_columns(pl.format(f"{{}}-{i}", key).alias(key) for key in keys) for i in range(1, times)]
        return pl.concat([frame, *more])

    entries = {}
    for i in range(times):
        for name, entry in study["datasets"].items():
            without = entry["without"] and renamed(entry["without"], i)
            label = entry["label"] if i == 0 else f"{entry['label']} {i}"
            entries.setdefault(renamed(name, i), {**entry, "without": without, "label": label})
    runs = {
        (run["model"], name, run["folder"]): {**run, "dataset": name}
        for run in study["runs"]
        for i in range(times)
        for name in [renamed(run["dataset"], i)]
    }
    return {**study, "datasets": entries, "runs": list(runs.values())}, {name: copies(frame) for name, frame in frames.items()}


def with_seeds(study: dict, recipe: str, dataset: str, seeds: tuple[int, ...]) -> dict:
    """The study with its runs of a recipe on a training set trained once with each seed; 0 is the recipe's own."""
    runs = []
    for run in study["runs"]:
        own = (run["recipe"], run["dataset"]) == (recipe, dataset)
        runs += [{**run, "seed": seed, "folder": run_folder(recipe, seed, 0)} for seed in seeds] if own else [run]
    return {**study, "runs": runs}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="sft-atlas-")


def study_json(
    models: int = 3, datasets: int = 6, lora: bool = True, trajectories: bool = True, leave_one_out: bool = True, merged: bool = True
) -> dict:
    """A resolved study. The trajectory block (constant schedule, two sizes) and leave-one-out run on the first model only."""
    names, sets = list(MODELS)[:models], list(DATASETS)[:datasets]
    recipes = {}

    def recipe(name: str, method: str, rows: int, schedule: str) -> str:
        recipes[name] = {"label": name, "method": method, "rows": rows, "schedule": schedule, "epochs": 3, "save_epochs": list(EPOCHS)}
        return name

    methods = ["full", "lora"] if lora else ["full"]
    single = [recipe(f"{method}-256", method, 256, "cosine") for method in methods]
    runs = [_run(model, dataset, recipes[name], name, "single") for name in single for model in names for dataset in sets]
    if merged:
        runs += [_run(model, "all", recipes[name], name, "merged") for name in single for model in names]
    if leave_one_out:
        runs += [_run(names[0], f"without-{dataset}", recipes[single[0]], single[0], "leave-one-out") for dataset in sets]
    if trajectories:
        for rows in (256, 2048):
            name = recipe(f"full-{rows}-constant", "full", rows, "constant")
            runs += [_run(names[0], dataset, recipes[name], name, f"trajectory-{rows}") for dataset in sets]
    entries = {
        name: {"label": name.capitalize(), "group": DATASETS[name], "merged": False, "members": [], "without": None, "smallest_rows": 256}
        for name in sets
    }
    entries["all"] = {"label": "All", "group": "merged", "merged": True, "members": sets, "without": None}
    entries |= {
        f"without-{name}": {
            "label": f"w/o {name.capitalize()}",
            "group": "merged",
            "merged": True,
            "members": [member for member in sets if member != name],
            "without": name,
        }
        for name in sets
    }
    return {
        "study": "synthetic",
        "results": "results/synthetic",
        "seed": 0,
        "template": {},
        "analyse": {"leave_out": {"last": sets[-1:]} if len(sets) > 4 else {}, "drawings": ["pca", "tsne"]},
        "measure": {"representation": {"estimators": ["twonn"]}},
        "models": {name: {"label": name.capitalize(), "family": name.split("-")[0], "language": MODELS[name]} for name in names},
        "datasets": entries,
        "benchmarks": {
            name: {"label": name.capitalize(), "group": group, "chance": 0.0, "metric": "exact_match"} for name, group in BENCHMARKS.items()
        },
        "recipes": recipes,
        "suites": {"short": {"benchmarks": list(BENCHMARKS)[:5]}, "long": {"benchmarks": list(BENCHMARKS)[5:]}},
        "blocks": {name: {"label": name} for name in dict.fromkeys(run["blocks"][0] for run in runs)},
        "runs": runs,
    }


def _run(model: str, dataset: str, recipe: dict, name: str, block: str) -> dict:
    settings = {key: recipe[key] for key in ("method", "rows", "schedule", "epochs", "save_epochs")}
    return {
        "model": model,
        "dataset": dataset,
        "recipe": name,
        "seed": 0,
        "folder": name,
        **settings,
        "blocks": [block],
        "measure_representation": True,
    }


class World:
    """The truth behind the study: base abilities, gains, perplexities; ``effect`` scales all that is planted."""

    def __init__(self, study: dict, effect: float, seed: int) -> None:
        self.study, self.effect = study, effect
        rng = np.random.default_rng(seed)
        self.datasets = [name for name, entry in study["datasets"].items() if not entry["merged"]]
        self.base = {model: rng.uniform(0.25, 0.5, len(BENCHMARKS)) for model in study["models"]}
        self.uniform = {model: rng.uniform(size=(len(BENCHMARKS), ITEMS)) for model in study["models"]}
        # log-perplexity by model and dataset, and the gain that goes with it
        self.nll = {
            (model, name): 1.0 + 0.25 * i + rng.normal(0, 0.15) for model in study["models"] for i, name in enumerate(self.datasets)
        }
        self.luck = {key: rng.normal(0, 0.04) for key in self.nll}
        pattern = rng.normal(0, 0.13, (len(self.datasets), len(BENCHMARKS)))
        if len(self.datasets) > 1:
            pattern[1] = pattern[0]
        self.pattern = dict(zip(self.datasets, pattern - pattern.mean(axis=1, keepdims=True), strict=True))
        self.place = {model: rng.normal(0, 1.0, (len(BENCHMARKS), 20)) for model in study["models"]}
        self.common = rng.normal(-20, 5, (len(BENCHMARKS), 20))

    def gain(self, run: dict, epoch: int) -> np.ndarray:
        """True gain per benchmark."""
        model, entry = run["model"], self.study["datasets"][run["dataset"]]
        names = [name for name in self.datasets if name != entry["without"]] if entry["merged"] else [run["dataset"]]
        mean = np.mean([self.pattern[name] + 0.25 * (1.6 - self.nll[model, name]) + self.luck[model, name] for name in names], axis=0)
        return self.effect * mean * epoch / 3 * (0.6 if run["method"] == "lora" else 1.0)


def write(root: Path, study: dict, effect: float = 1.0, seed: int = 0) -> Path:
    """Write ``study.json`` and every result file under ``root``; return the path of ``study.json``."""
    world, rng = World(study, effect, seed), np.random.default_rng(seed + 1)
    paths = Paths(root)
    root.mkdir(parents=True, exist_ok=True)
    Path(paths.study).write_text(json.dumps(study))
    for model in study["models"]:
        keys = {"model": model, "dataset": "base", "recipe": "base", "epoch": 0}
        _checkpoint(paths, keys, study, world.base[model], world.uniform[model], rng)
        _represent(paths, keys, world, 0.0, rng)
        for dataset in world.datasets:
            _perplexity(paths.fill(paths.perplexity, model=model, dataset=dataset), model, dataset, world.nll[model, dataset], rng)
    for dataset in world.datasets:
        _properties(paths.fill(paths.properties, dataset=dataset, rows=256), dataset, rng)
    _similarity(paths.fill(paths.similarity, place="tables"), world.datasets, rng)
    for run in study["runs"]:
        keys = {"model": run["model"], "dataset": run["dataset"], "recipe": run["folder"]}
        _training(paths, keys, run, rng)
        for epoch in run["save_epochs"]:
            at = {**keys, "epoch": epoch}
            probability = np.clip(world.base[run["model"]] + world.gain(run, epoch), 0, 1)
            _checkpoint(paths, at, study, probability, world.uniform[run["model"]], rng)
            _layers(paths.fill(paths.layers, **at), at, run["method"], effect, world.gain(run, epoch).mean(), rng)
            _represent(paths, at, world, epoch / 3, rng)
    return Path(paths.study)


def _save(path: str, keys: dict, columns: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).select(*(pl.lit(value).alias(key) for key, value in keys.items()), pl.all()).write_parquet(
        path, compression="uncompressed"
    )


def _checkpoint(paths: Paths, keys: dict, study: dict, probability: np.ndarray, uniform: np.ndarray, rng: np.random.Generator) -> None:
    fresh = rng.uniform(size=uniform.shape) < 0.15  # items whose outcome this checkpoint draws anew
    right = (np.where(fresh, rng.uniform(size=uniform.shape), uniform) < probability[:, None]).astype(float)
    order = list(BENCHMARKS)
    for suite, entry in study["suites"].items():
        names = entry["benchmarks"]
        index = [order.index(name) for name in names]
        score = right[index]
        at = {**keys, "suite": suite}
        stderr = score.std(axis=1, ddof=1) / ITEMS**0.5
        columns = {"benchmark": names, "metric": ["exact_match"] * len(names), "score": score.mean(axis=1), "stderr": stderr}
        columns |= {"n": [ITEMS] * len(names), "backend": ["hf"] * len(names), "scale": [1.0] * len(names)}
        _save(paths.fill(paths.scores, **at), at, columns | {name: [None] * len(names) for name in ANSWERED} | {"shots": [0] * len(names)})
        prompts = [f"{name} {item}" for name in names for item in range(ITEMS)]
        text = [""] * (ITEMS * len(names))
        columns = {"benchmark": np.repeat(names, ITEMS), "item": np.tile(np.arange(ITEMS), len(names)), "prompt": prompts, "target": text}
        columns |= {"output": text, "extracted": text, "score": score.ravel(), "cluster": [None] * len(text)}
        _save(paths.fill(paths.samples, **at), at, columns)


def _represent(paths: Paths, keys: dict, world: World, progress: float, rng: np.random.Generator) -> None:
    depth = np.arange(1, LAYERS + 1) / LAYERS
    rise = world.effect * progress * 6 * np.clip(depth - 0.5, 0, None)
    columns = {"layer": np.tile(np.arange(LAYERS), 2), "depth": np.tile(depth, 2), "pooling": np.repeat(["last", "mean"], LAYERS)}
    value = 8 + 4 * np.sin(np.pi * depth) + rise
    columns |= {"estimator": ["twonn"] * (2 * LAYERS), "dimension": np.tile(value, 2) + rng.normal(0, 0.15, 2 * LAYERS)}
    _save(paths.fill(paths.dimension, **keys), keys, {**columns, "stderr": np.full(2 * LAYERS, 0.15), "n": np.full(2 * LAYERS, 200)})
    model = keys["model"]
    own = 0.5 * rng.normal(size=world.common.shape) * (0.2 + progress)
    vector = world.common + world.effect * world.place[model] + own
    count = vector.size
    columns = {
        "benchmark": np.repeat(list(BENCHMARKS), 20),
        "item": np.tile(np.arange(20), len(BENCHMARKS)),
        "log_likelihood": vector.ravel(),
    }
    _save(paths.fill(paths.likelihood, **keys), keys, {**columns, "tokens": np.full(count, 12), "bytes": np.full(count, 40)})


def _properties(path: str, dataset: str, rng: np.random.Generator) -> None:
    columns = {"n": [256], "instruction_words": rng.uniform(5, 50, 1), "response_words": rng.uniform(5, 200, 1)}
    columns |= {"response_characters": rng.uniform(20, 900, 1), "lexical_diversity": rng.uniform(0.5, 0.9, 1)}
    _save(path, {"dataset": dataset, "rows": 256}, {**columns, "near_duplicates": rng.uniform(0, 0.1, 1)})


def _similarity(path: str, datasets: list[str], rng: np.random.Generator) -> None:
    rows = [(dataset, benchmark, "lexical") for dataset in datasets for benchmark in BENCHMARKS]
    columns = dict(zip(("dataset", "benchmark", "space"), zip(*rows, strict=True), strict=True))
    columns |= {name: rng.uniform(0, 1, len(rows)) for name in ("centroid", "nearest", "mmd")}
    _save(path, {}, {**columns, "n_dataset": [256] * len(rows), "n_benchmark": [ITEMS] * len(rows)})


def _layers(path: str, keys: dict, method: str, effect: float, gain: float, rng: np.random.Generator) -> None:
    depth = np.arange(LAYERS) / (LAYERS - 1)
    change = (0.02 if method == "full" else 0.004) * (1 + effect * (depth + 0.2)) * rng.lognormal(0, 0.1, LAYERS)
    change = change * np.exp(effect * 4 * gain * np.exp(-(((depth - 0.6) / 0.15) ** 2) / 2))
    parts = {"all": change, "q": change * 1.2, "down": change * 0.8}
    columns = {
        "layer": np.tile(np.arange(LAYERS), len(parts)),
        "depth": np.tile(depth, len(parts)),
        "component": np.repeat(list(parts), LAYERS),
    }
    size = LAYERS * len(parts)
    columns |= {
        "relative_change": np.concatenate(list(parts.values())),
        "stable_rank": [None] * size,
        "effective_rank": [None] * size,
        "mean_abs_change": np.full(size, 1e-4),
        "cosine": np.full(size, 0.99),
    }
    _save(path, keys, {**columns, "unchanged": np.zeros(size), "parameters": np.full(size, 1000)})


def _training(paths: Paths, keys: dict, run: dict, rng: np.random.Generator) -> None:
    steps = 24
    counts = {"steps": steps, "tokens": 90000, "supervised_tokens": 30000, "samples": 3 * run["rows"], "train_loss": 1.2}
    speed = {"seconds": 4.0, "tokens_per_second": 22500.0, "device": "cpu", "dtype": "float32"}
    counts |= {"logit_change_mean": 0.2, "logit_resolution": 1e-6, "weight_change": 0.01}
    columns = {"step": np.arange(1, steps + 1), "epoch": np.arange(1, steps + 1) / steps * 3, "loss": 2 * np.exp(-np.arange(steps) / 10)}
    # Of full fine-tuning held-out rows show that the second epoch is best.
    level = 1 + sum(map(ord, keys["model"] + keys["dataset"])) % 7 / 10
    columns["loss"] = level * columns["loss"]
    held_out = [level * (0.9 + abs(i + 1 - 16) / 24) if i % 8 == 7 else None for i in range(steps)]
    columns["validation_loss"] = pl.Series(held_out if run["method"] == "full" else [None] * steps, dtype=pl.Float64)
    columns |= {"learning_rate": np.full(steps, 1e-4), "grad_norm": rng.lognormal(0, 0.3, steps)}
    _save(paths.fill(paths.history, **keys), keys, columns)
    Path(paths.fill(paths.record, **keys)).write_text(json.dumps({"settings": {**run, **keys}, **counts, **speed}))


def _perplexity(path: str, model: str, dataset: str, nll: float, rng: np.random.Generator) -> None:
    tokens = rng.integers(5, 30, 40)
    response, full = nll * tokens * rng.lognormal(0, 0.1, 40), 1.1 * nll * 3 * tokens
    columns = {
        "rows": np.full(40, 256),
        "sample": np.arange(40),
        "nll_response": response,
        "tokens_response": tokens,
        "bytes_response": tokens * 4,
    }
    _save(path, {"model": model, "dataset": dataset}, {**columns, "nll_full": full, "tokens_full": tokens * 3, "bytes_full": tokens * 12})
