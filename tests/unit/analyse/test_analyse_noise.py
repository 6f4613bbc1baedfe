"""The noise of training is found at its size beside that of items, and a study without seeds says that it is unknown."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import analyse_noise
from sft_atlas.report.sections import noise as section

ITEMS, BENCHMARKS = 400, ("sums", "facts")
STUDY = {
    "seed": 0,
    "models": {f"m{i}": {} for i in range(6)},
    "datasets": {f"d{i}": {"merged": False, "without": None} for i in range(5)},
    "benchmarks": {name: {} for name in BENCHMARKS},
    "recipes": {name: {"label": name.capitalize(), "method": name, "seed": 0} for name in ("full", "lora")},
}


def planted(rng, seeds: dict[str, int], model=4.0, dataset=3.0, cell=1.0, training=1.0, flips=20.0) -> tuple[pl.DataFrame, dict]:
    """Gains (SDs in points) by recipe with a number of ``seeds``; an answer to an item changes with every run by ``flips``."""
    of_model, of_dataset = rng.normal(0, model, (6, len(BENCHMARKS))), rng.normal(0, dataset, (5, len(BENCHMARKS)))
    rows, runs = [], []
    for recipe, count in seeds.items():
        for m, name in enumerate(STUDY["models"]):
            for d, dataset_name in enumerate(STUDY["datasets"]):
                of_cell = rng.normal(0, cell, len(BENCHMARKS))
                keys = {
                    "model": name,
                    "dataset": dataset_name,
                    "recipe": recipe,
                    "method": recipe,
                    "schedule": "cosine",
                    "epoch": 1,
                    "rows": 8,
                }
                for seed in range(count):
                    folder = recipe if seed == 0 else f"{recipe}-seed-{seed}"
                    runs.append({**keys, "seed": seed, "folder": folder})
                    for b, benchmark in enumerate(BENCHMARKS):
                        noise = rng.normal(0, training) + rng.normal(0, flips / ITEMS**0.5)
                        gain = of_model[m, b] + of_dataset[d, b] + of_cell[b] + noise
                        square = (flips**2 + 30**2) / ITEMS
                        covariance = 30**2 / ITEMS / 10**4 if count > 1 else None
                        rows.append({
                            **keys, "seed": seed, "suite": "s", "benchmark": benchmark, "gain": gain / 100, "stderr": square**0.5 / 100,
                            "seed_covariance": covariance, "n": ITEMS,
                        })  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"seed_covariance": pl.Float64}), {**STUDY, "runs": runs}


def variance(table: pl.DataFrame, **keys) -> float:
    return table.filter(**keys)["variance"].item()


def test_planted_noise_is_found_at_its_size():
    rng, found = np.random.default_rng(10), {}
    for _ in range(25):
        table = analyse_noise.noise(*planted(rng, {"full": 3, "lora": 2}))
        for benchmark in ("sums", "facts"):
            for term in ("seed", "items", "model x dataset x method", "dataset"):
                found.setdefault(term, []).append(variance(table, design="split", benchmark=benchmark, term=term))
        found.setdefault("mean", []).append(variance(table, design="training", recipe="lora", benchmark="all", term="seed"))
        found.setdefault("score", []).append(variance(table, design="training", recipe="full", benchmark="sums", term="score"))
    assert np.mean(found["seed"]) == pytest.approx(1.0, rel=0.1) and np.mean(found["items"]) == pytest.approx(1.0)
    assert np.mean(found["score"]) == pytest.approx(1300 / 400)
    assert np.mean(found["model x dataset x method"]) == pytest.approx(1.0, rel=0.25)
    assert np.mean(found["dataset"]) == pytest.approx(9.0, rel=0.5)
    assert np.mean(found["mean"]) == pytest.approx(0.5, rel=0.25), "the mean of two benchmarks, whose noises are independent here"


def test_seeds_of_one_method_do_not_speak_for_the_other():
    table = analyse_noise.noise(*planted(np.random.default_rng(1), {"full": 3, "lora": 1}))
    assert set(table.filter(design="training")["recipe"]) == {"full"}
    terms = set(table.filter(design="split")["term"])
    assert "rest" in terms and not terms & {"seed", "items"}


def test_the_shares_of_a_split_add_up_and_its_size_is_told():
    table = analyse_noise.noise(*planted(np.random.default_rng(2), {"full": 2, "lora": 2})).filter(design="split")
    for _, part in table.group_by("benchmark"):
        assert part["share"].sum() == pytest.approx(1.0)
    assert table.select("models", "datasets", "methods", "cells", "runs").unique().rows() == [(6, 5, 2, 60, 120)]


def test_a_cell_that_is_missing_leaves_out_its_slice_and_missing_seeds_only_weaken():
    frame, study = planted(np.random.default_rng(3), {"full": 2, "lora": 2})
    gone = (pl.col("model") == "m0") & (pl.col("dataset") == "d0")
    without_cell = analyse_noise.noise(frame.filter(~(gone & (pl.col("recipe") == "lora"))), study).filter(design="split", term="seed")
    assert without_cell.filter(benchmark="sums").select("models", "datasets").row(0) in ((5, 5), (6, 4))
    without_seed = analyse_noise.noise(frame.filter(~(gone & (pl.col("seed") == 1))), study).filter(design="split", term="seed")
    assert without_seed.filter(benchmark="sums").select("models", "runs", "fewest_seeds").row(0) == (6, 118, 1)


def test_the_findings_state_both_noises_or_that_one_is_unknown():
    frame, study = planted(np.random.default_rng(4), {"full": 3, "lora": 1})
    finding = section.noise(analyse_noise.noise(frame, study), pl.DataFrame(study["runs"]), study)
    full, unknown, split, *_ = finding.notes
    assert full.startswith("Full: trained once more with another seed, the mean gain over benchmarks differs by a standard deviation of ")
    assert "30 combinations of base model and training set with 3 seeds, 60 degrees of freedom" in full and "by items" in full
    assert unknown.startswith("Trained with one seed: Lora. What training once more would change is unknown there")
    assert "6 base models, 5 training sets, 2 methods" in split and "rest (the interaction of all, training once more, items)" in split


def test_every_recipe_that_the_comparisons_leave_out_is_named():
    study = synthetic.study_json()
    (line,) = section.recipes_left_out(study)
    assert "They leave out full-256-constant (6 runs), full-2048-constant (6 runs)" in line
    twins = {**STUDY["recipes"], "full_s1": {**STUDY["recipes"]["full"], "seed": 1}}
    runs = [
        {"model": "m0", "dataset": "d0", "recipe": name, "method": entry["method"], "schedule": "cosine", "seed": entry["seed"]}
        for name, entry in twins.items()
    ]
    (line,) = section.recipes_left_out({**STUDY, "recipes": twins, "runs": runs})
    assert "They leave out Full (1 run). full, full_s1 differ in the seed alone: give one recipe `seeds`" in line


def test_recipes_of_others_are_named_without_a_claim_on_settings_that_nobody_knows():
    theirs = {name: {"label": name, "method": "full", "seed": seed, "outside": True} for name, seed in (("a", 1), ("b", 2))}
    theirs["imported-full"] = {"label": "imported-full", "method": "full", "imported": True}
    keys = {"model": "m0", "method": "full", "schedule": None}
    runs = [{**keys, "dataset": "d0", "recipe": name, "seed": theirs[name].get("seed"), "imported": name not in "ab"} for name in theirs]
    runs += [{**runs[2], "model": f"m{i}"} for i in range(1, 4)]
    (line,) = section.recipes_left_out({**STUDY, "recipes": STUDY["recipes"] | theirs, "runs": runs})
    assert "take a, of each method the one with most runs, an imported one only without others" in line
    assert line.endswith("They leave out b (1 run), imported-full (4 runs).")


def test_cells_with_fewer_seeds_than_others_are_counted_by_recipe():
    _, study = planted(np.random.default_rng(5), {"full": 2, "lora": 1})
    runs = pl.DataFrame(study["runs"])
    (line,) = section.numbers_of_seeds(runs.filter(~((pl.col("model") == "m0") & (pl.col("seed") == 1))))
    assert line.startswith("SEEDS: 25 of 60 combinations") and "fewer seeds than others of their recipe: full 5;" in line
    assert section.numbers_of_seeds(runs.filter(pl.col("seed") == 0)) == []
