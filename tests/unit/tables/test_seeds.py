"""Several seeds of a run: tables know them, means over them carry the noise of training."""

import numpy as np
import polars as pl
import pytest
from scipy.special import stdtrit

from helpers import synthetic
from sft_atlas.study import paths
from sft_atlas.tables import collect, seeds

ITEMS = 400


@pytest.fixture(scope="module")
def study():
    """Two base models, two training sets; LoRA with three seeds on one of them."""
    plain = synthetic.study_json(models=2, datasets=2, trajectories=False, leave_one_out=False, merged=False)
    return synthetic.with_seeds(plain, "lora-256", "arith", (0, 1, 2))


@pytest.fixture(scope="module")
def tables(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    synthetic.write(root, study)
    return {name: collect.collect(study, name, root).frame for name in paths.TABLES}


def test_a_table_names_recipe_and_seed_of_each_run_instead_of_its_folder(tables):
    for name in ("runs", "history", "scores", "gains", "layers", "dimension", "likelihood"):
        tuned = tables[name].filter(pl.col("dataset") != "base")
        assert set(tuned["recipe"]) == {"full-256", "lora-256"}
        several = tuned.filter(pl.col("recipe") == "lora-256", pl.col("dataset") == "arith")
        assert set(several["seed"]) == {0, 1, 2} and several["method"].unique().to_list() == ["lora"]
        assert set(tuned.filter(pl.col("recipe") == "full-256")["seed"]) == {0}
        assert (
            tables[name].filter(pl.col("dataset") == "base")["seed"].null_count() == tables[name].filter(pl.col("dataset") == "base").height
        )


def test_seeds_of_a_cell_become_one_row_and_nothing_else_changes(tables):
    for name in seeds.ROWS:
        frame = seeds.averaged(name, tables[name])
        assert not frame.select(*seeds.CELL, *seeds.ROWS[name]).is_duplicated().any()
        one = pl.col("recipe") != "lora-256"
        kept = [column for column in tables[name].columns if column not in ("seed", "df")]
        assert frame.filter(one).select(kept).equals(tables[name].filter(one).select(kept))
    gains = seeds.averaged("gains", tables["gains"]).filter(pl.col("dataset") == "arith", pl.col("recipe") == "lora-256")
    assert set(gains["seeds"]) == {3}
    raw = tables["gains"].filter(pl.col("dataset") == "arith", pl.col("recipe") == "lora-256")
    assert gains["gain"].mean() == pytest.approx(raw["gain"].mean())


def test_the_covariance_of_two_seeds_is_that_of_their_differences_per_item(study, tmp_path):
    synthetic.write(tmp_path, study)
    gains = collect.collect(study, "gains", tmp_path).frame
    row = gains.filter(model="alder-1b", dataset="arith", recipe="lora-256", seed=0, epoch=3).row(0, named=True)
    tree = paths.Paths(tmp_path)

    def scores(dataset, folder, epoch):
        at = {"model": "alder-1b", "dataset": dataset, "recipe": folder, "epoch": epoch, "suite": row["suite"]}
        return pl.read_parquet(tree.fill(tree.samples, **at)).filter(benchmark=row["benchmark"]).sort("item")["score"].to_numpy()

    own, *others = [scores("arith", f"lora-256{seed}", 3) - scores("base", "base", 0) for seed in ("", "-seed-1", "-seed-2")]
    expected = np.mean([np.cov(own, other)[0, 1] / len(own) for other in others])
    assert row["seed_covariance"] == pytest.approx(expected)
    assert gains.filter(pl.col("recipe") == "full-256")["seed_covariance"].null_count() == gains.filter(recipe="full-256").height


def simulated(rng, training: float, flips: float, counts: list[int], clusters: int = ITEMS) -> pl.DataFrame:
    """Gains of cells with ``counts`` seeds and a true gain of 0: items differ by 0.5, answers to an item by ``flips``, runs by ``training``.

    Items of one of the ``clusters`` differ from others in the same way.
    """
    rows = []
    for cell, count in enumerate(counts):
        item = np.repeat(rng.normal(0, 0.5, clusters), ITEMS // clusters)
        difference = item + rng.normal(0, training, (count, 1)) + rng.normal(0, flips, (count, ITEMS))
        sums = (difference - difference.mean(axis=1, keepdims=True)).reshape(count, clusters, -1).sum(axis=2)
        covariance = clusters / (clusters - 1) * sums @ sums.T / ITEMS**2
        for seed in range(count):
            others = [covariance[seed, other] for other in range(count) if other != seed]
            gain, stderr = difference[seed].mean(), np.sqrt(covariance[seed, seed])
            rows.append({
                "model": f"m{cell}", "dataset": "d", "recipe": "lora", "seed": seed, "epoch": 1, "suite": "s", "benchmark": "b", "blocks": ["x"],
                "gain": gain, "stderr": stderr, "seed_covariance": float(np.mean(others)) if others else None, "n": ITEMS, "n_clusters": clusters, "z": gain / stderr,
            })  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"seed_covariance": pl.Float64})


@pytest.mark.parametrize(("training", "flips"), [(0.0, 0.0), (0.0, 0.6), (0.05, 0.3), (0.1, 0.0)])
def test_intervals_of_a_cells_mean_gain_cover_whatever_the_noise_of_training(training, flips):
    """Cells with one, two and three seeds, whose variance between seeds is pooled: 5 degrees of freedom in all."""
    rng, inside, total = np.random.default_rng(3), 0, 0
    for _ in range(250):
        frame = seeds.averaged("gains", simulated(rng, training, flips, [3, 3, 2, 1]))
        half = stdtrit(frame["df"].to_numpy(), 0.975) * frame["stderr"].to_numpy()
        inside += int((np.abs(frame["gain"].to_numpy()) <= half).sum())
        total += frame.height
    assert 0.93 <= inside / total <= 0.985


@pytest.mark.parametrize(("training", "clusters"), [(0.0, 10), (0.1, 10), (0.2, 40)])
def test_clusters_of_items_are_the_units_of_these_intervals(training, clusters):
    rng, inside, by_items, total = np.random.default_rng(6), 0, 0, 0
    for _ in range(250):
        frame = simulated(rng, training, 0.3, [3, 3, 2, 1], clusters)
        for which in (frame, frame.drop("n_clusters")):
            found = seeds.averaged("gains", which)
            half = stdtrit(found["df"].to_numpy(), 0.975) * found["stderr"].to_numpy()
            hits = int((np.abs(found["gain"].to_numpy()) <= half).sum())
            inside, by_items = (inside + hits, by_items) if which is frame else (inside, by_items + hits)
        total += frame.select(seeds.CELL).unique().height
    assert 0.93 <= inside / total <= 0.985 and by_items <= inside


def test_the_noise_of_training_is_found_at_its_size_whatever_the_items_do():
    rng = np.random.default_rng(4)
    for training, flips in ((0.05, 0.0), (0.05, 0.6), (0.1, 0.3)):
        frames = [simulated(rng, training, flips, [3] * 8) for _ in range(60)]
        keys = [*seeds.CELL, *seeds.ROWS["gains"]]
        found = np.mean([seeds.noise_of_training(frame, keys)["seed_variance"][0] for frame in frames])
        assert np.sqrt(found) == pytest.approx(training, rel=0.08)


def test_cells_with_one_seed_have_the_noise_of_other_cells_of_their_recipe_and_else_none():
    frame = simulated(np.random.default_rng(5), 0.1, 0.0, [3, 1])
    other = frame.filter(pl.col("seed") == 0).with_columns(recipe=pl.lit("full"), seed_covariance=pl.lit(None, pl.Float64))
    known = seeds.averaged("gains", pl.concat([frame, other]))
    three, one, *unknown = known.iter_rows(named=True)
    assert one["seed_stderr"] == pytest.approx(three["seed_stderr"] * 3**0.5) and one["stderr"] > one["item_stderr"]
    assert [row["seed_stderr"] for row in unknown] == [None, None]
    assert [row["stderr"] for row in unknown] == other["stderr"].to_list() and [row["df"] for row in unknown] == [ITEMS - 1] * 2
