"""Variance components of a comparison are found at their planted sizes, and what a source does not show stays unknown."""

import numpy as np
import polars as pl
import pytest

from sft_atlas.analyse import analyse_noise, contrast
from sft_atlas.core.errors import AtlasError

MODELS, SETS = [f"m{i}" for i in range(8)], [f"d{i}" for i in range(6)]
RUN_ITEMS, SHARED_ITEMS = 0.5, 2.0  # variances: of a gain by items, beyond what seeds share, and shared by them


def study_of(recipes):
    return {
        "seed": 0,
        "models": {name: {} for name in MODELS},
        "datasets": {name: {"merged": False, "without": None} for name in SETS},
        "benchmarks": {"quiz": {}},
        "recipes": {name: {"label": name, "method": name.split("-")[0], "seed": 0} for name in recipes},
        "runs": [
            {"model": m, "dataset": d, "recipe": r, "method": r.split("-")[0], "schedule": "cosine"}
            for m in MODELS
            for d in SETS
            for r in recipes
        ],
    }


def gains(rng, seeds, by_model=0.0, by_set=0.0, cell=2.0, training=1.0):
    """Gains, SDs in points: base models and sets differ by 5; ``by_model``, ``by_set`` and ``cell`` of each recipe apart; ``seeds`` by recipe."""
    level = rng.normal(0, 5, (len(MODELS), 1)) + rng.normal(0, 5, (1, len(SETS)))
    rows = []
    for recipe, count in seeds.items():
        own = rng.normal(0, by_model, (len(MODELS), 1)) + rng.normal(0, by_set, (1, len(SETS))) + rng.normal(0, cell, level.shape)
        for m, model in enumerate(MODELS):
            for d, dataset in enumerate(SETS):
                for seed in range(count):
                    gain = level[m, d] + own[m, d] + rng.normal(0, training) + rng.normal(0, RUN_ITEMS**0.5)
                    rows.append({
                        "model": model, "dataset": dataset, "recipe": recipe, "seed": seed, "method": recipe.split("-")[0], "benchmark": "quiz", "epoch": 1,
                        "gain": gain / 100, "stderr": (RUN_ITEMS + SHARED_ITEMS) ** 0.5 / 100, "seed_covariance": SHARED_ITEMS / 10**4 if count > 1 else None,
                    })  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"seed_covariance": pl.Float64})


def means(found, *names):
    return {name: np.mean([getattr(one, name).variance for one in found]) for name in names}


def test_the_components_of_two_sets_are_those_planted():
    rng = np.random.default_rng(10)
    found = [contrast.of_study(gains(rng, {"full": 2}), study_of(["full"]), ("full",), None) for _ in range(60)]
    got = means(found, "cell", "run", "seed", "items", "score")
    assert got == pytest.approx({"cell": 4.0, "run": 1.5, "seed": 1.0, "items": 0.5, "score": 2.5}, rel=0.15)
    first = found[0]
    assert not first.confounded and (first.model, first.dataset) == (None, None) and (first.models, first.sets, first.seeded) == (8, 6, 48)
    assert np.mean([one.cell.low < 4 < one.cell.high for one in found]) > 0.85


def test_the_components_of_two_recipes_are_those_planted():
    rng = np.random.default_rng(1)
    seeds = {"full": 2, "full-large": 2}
    found = [contrast.of_study(gains(rng, seeds, by_model=2, by_set=2), study_of(seeds), tuple(seeds), None) for _ in range(60)]
    assert means(found, "model", "dataset", "cell", "run") == pytest.approx({"model": 4, "dataset": 4, "cell": 4, "run": 1.5}, rel=0.25)


def test_the_component_of_two_sets_is_that_of_the_table_of_noise():
    frame, study = gains(np.random.default_rng(2), {"full": 3}), study_of(["full"])
    table = analyse_noise.noise(frame, study).filter(design="split", benchmark="all")
    found = contrast.of_study(frame, study, ("full",), None)
    for term, part in (("model x dataset", found.cell), ("seed", found.seed), ("items", found.items)):
        assert part.variance == pytest.approx(table.filter(term=term)["variance"].item())


def test_without_seeds_their_noise_is_unknown_and_in_the_cells():
    rng = np.random.default_rng(3)
    found = [contrast.of_study(gains(rng, {"full": 1}), study_of(["full"]), ("full",), None) for _ in range(30)]
    assert all(one.confounded and one.run is None and one.items is None for one in found)
    assert means(found, "cell")["cell"] == pytest.approx(4 + 1.5, rel=0.12)
    stated = [one.with_seed(1.5**0.5) for one in found]
    assert means(stated, "cell", "run") == pytest.approx({"cell": 4, "run": 1.5}, rel=0.15) and not stated[0].confounded
    assert found[0].with_seed(100).cell.variance == 0.0


def test_one_base_model_shows_the_seeds_and_nothing_between_models():
    frame = gains(np.random.default_rng(4), {"full": 3, "lora": 3}).filter(pl.col("model") == "m0")
    study = study_of(["full", "lora"])
    sets = contrast.of_study(frame, study, ("full",), None)
    assert sets.cell is None and sets.run is not None
    methods = contrast.of_study(frame, study, ("full", "lora"), None)
    assert methods.model is None and methods.dataset is not None and methods.cell is None
    nothing = contrast.of_study(frame, study, ("other",), None)
    assert nothing == contrast.Components()
    stated = nothing.with_interaction(3.0)
    assert 2 * stated.model.variance == 9.0 and stated.cell.variance == 0.0


def published(rng, cell=2.0):
    rows = [
        {"model": m, "dataset": d, "method": k, "task": t, "benchmark": t.split("-")[0], "score": s}
        for m in MODELS for d in SETS for k in ("full", "lora") for s in [rng.normal(0, cell)] for t in ("quiz-0", "quiz-4", "sums-0")
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_published_scores_have_one_run_a_cell_and_count_each_benchmark_once():
    frame = published(np.random.default_rng(5))
    found = contrast.of_published(frame, ("full",), None, 0)
    assert found.confounded and found.run is None and found.cell.variance == pytest.approx(4, rel=0.6)
    lone = frame.with_columns(score=pl.when(pl.col("task") == "quiz-4").then(pl.col("score") * 3).otherwise("score"))
    quiz, both = (contrast.of_published(lone, ("full",), name, 0).cell.variance for name in ("quiz", None))
    assert quiz == pytest.approx(4 * found.cell.variance) and both == pytest.approx(1.5**2 * found.cell.variance)
    gap = frame.with_columns(
        score=pl.when((pl.col("task") == "sums-0") & (pl.col("dataset") == "d1") & (pl.col("model") == "m1")).then(None).otherwise("score")
    )
    assert contrast.of_published(gap, ("full",), None, 0).models == 8  # m1 counts with the columns that all its sets have
    with pytest.raises(AtlasError, match=r"design\.benchmark: there are no published scores of quizz; did you mean 'quiz'"):
        contrast.of_published(frame, ("full",), "quizz", 0)
