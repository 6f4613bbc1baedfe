"""The map of checkpoints: level and power of its tests in the study's designs, divergences, and effects on them."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from helpers.checkpoints_map import grid as checkpoints
from helpers.checkpoints_map import placed
from helpers.rates import is_at_most, is_nominal
from sft_atlas.analyse import analyse_map

NULLS = [
    ("model", "last", {"models": 12, "sets": 10}, {"model_dataset": 1.5, "dataset": 1.0}),
    ("dataset", "last", {"models": 12, "sets": 10}, {"model_dataset": 1.5, "model": 3.0}),
    ("method", "last", {"models": 12, "sets": 10}, {"model_dataset": 1.5, "model_method": 1.0, "model": 3.0}),
    ("model", "last", {"models": 3, "sets": 6}, {"model_dataset": 1.5, "dataset": 1.0}),
    ("dataset", "last", {"models": 3, "sets": 6}, {"model_dataset": 1.5, "model": 3.0}),
    ("method", "last", {"models": 3, "sets": 6}, {"dataset_method": 1.0, "model_dataset": 1.5}),
    ("epoch", "epochs", {"models": 12, "sets": 4, "last": False, "paths": 3, "merged": True}, {"walk": 1.0, "model": 3.0}),
    ("epoch", "epochs", {"models": 12, "sets": 4, "last": False, "paths": 3, "merged": True}, {"model_way": 0.5}),
    ("epoch", "epochs", {"models": 3, "sets": 6, "last": False, "paths": 3}, {"walk": 1.0, "model": 3.0}),
    ("epoch", "epochs", {"models": 3, "sets": 6, "last": False, "paths": 3}, {"model_dataset_recipe_way": 0.5}),
]


def share_p(term, design, keys, study, result, seed):
    return analyse_map.shares(result, study | {"seed": seed}).filter(design=design, term=term)["p"].item()


@pytest.mark.slow
@pytest.mark.parametrize(("term", "design", "shape", "effects"), NULLS)
def test_a_term_without_effect_holds_its_level(term, design, shape, effects):
    rng = np.random.default_rng(4)
    keys, study = checkpoints(**shape)
    lost = 11 if shape["models"] == 12 and design == "last" else 0  # as many runs as failed in the paper
    p = []
    for i in range(80):
        part = keys.sample(keys.height - lost, seed=i) if lost else keys
        p.append(share_p(term, design, part, study, placed(part, rng, **effects), i))
    assert is_at_most(np.array(p) <= 0.05) and np.mean(p) < 0.65


@pytest.mark.parametrize(
    ("term", "design", "shape", "effects"),
    [(term, design, shape, effects | {"way" if term == "epoch" else term: 0.6 if term == "epoch" else 1.2})
     for term, design, shape, effects in NULLS if "model_way" not in effects],
)  # fmt: skip
def test_a_term_with_an_effect_is_found(term, design, shape, effects):
    rng = np.random.default_rng(5)
    keys, study = checkpoints(**shape)
    assert np.mean([share_p(term, design, keys, study, placed(keys, rng, **effects), i) <= 0.05 for i in range(20)]) >= 0.8


def test_sets_that_only_go_further_are_no_effect_of_the_set_where_base_models_can_be_flipped():
    rng = np.random.default_rng(6)
    keys, study = checkpoints(12, 10)
    model, dataset = (np.unique(keys[name].to_numpy(), return_inverse=True)[1] for name in ("model", "dataset"))
    p = []
    for i in range(100):
        values = rng.normal(size=(keys.height, 8)) + rng.lognormal(0, 0.7, 10)[dataset][:, None] * rng.normal(size=(12, 8))[model]
        p.append(share_p("dataset", "last", keys, study, analyse_map.Vectors(keys, values, 1.0, 0), i))
    assert is_nominal(np.array(p) <= 0.05)


def test_too_few_units_are_said_instead_of_a_p():
    keys, study = checkpoints(2, 3, paths=2)
    result = analyse_map.shares(placed(keys, np.random.default_rng(7)), study)
    assert result["p"].is_nan().all()
    tests = dict(result.select(pl.concat_str("design", "term", separator=" "), "test").iter_rows())
    assert tests["last method"] == "2 base models are too few for a sign-flip test; 3 training sets are too few for a sign-flip test"
    assert tests["last dataset"].endswith("training sets within each base model are too few for a permutation test")
    assert tests["epochs epoch"] == "2 base models are too few for a sign-flip test; 3 training sets are too few for a sign-flip test"


# ---------------------------------------------------------------- likelihoods


def test_squared_distance_over_n_is_twice_the_divergence_where_both_are_known():
    """Models p_i = p_0 exp(e f_i) / Z over a space of N texts that are uniform under p_0, each met once: both sides are exact."""
    rng = np.random.default_rng(6)
    texts, models = 4000, 4
    logits = 0.05 * rng.normal(size=(models, texts))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows = [
        {"model": f"m{i}", "dataset": "base", "recipe": "base", "epoch": 0, "method": "base", "rows": None, "schedule": None}
        | {"benchmark": "b", "item": j, "log_likelihood": log_p[i, j], "tokens": 1, "bytes": 10}
        for i in range(models)
        for j in range(texts)
    ]
    result = analyse_map.vectors(pl.DataFrame(rows), clipped=0.0)
    divergence = np.array([[(np.exp(a) * (a - b)).sum() for b in log_p] for a in log_p])
    nats = result.squared_distances() * np.log(2) * 10
    distance = ((result.values[:, None] - result.values[None]) ** 2).sum(axis=-1) / texts
    off = ~np.eye(models, dtype=bool)
    assert distance[off] == pytest.approx(2 * divergence[off], rel=0.03)
    assert nats[off] == pytest.approx(divergence[off], rel=0.03)


def made(place):
    """Vectors from positions: a function of model, dataset, method, rows and epoch."""
    rows = []
    for model in ("a", "b"):
        rows.append({"model": model, "dataset": "base", "recipe": "base", "epoch": 0, "method": "base", "rows": None, "schedule": None})
        for dataset in ("p", "q", "r", "s"):
            for recipe, method, size in (("full", "full", 10), ("lora", "lora", 10), ("large", "full", 90)):
                for epoch in (1, 2, 3):
                    rows.append({"model": model, "dataset": dataset, "recipe": recipe, "epoch": epoch, "method": method, "rows": size})  # noqa: PERF401
    keys = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.lit("cosine").alias("schedule"))
    return analyse_map.Vectors(keys, np.array([place(**row) for row in keys.iter_rows(named=True)]), 1.0, 0)


STUDY = {
    "seed": 0,
    "models": {"a": {}, "b": {}},
    "datasets": {name: {"merged": False, "without": None} for name in "pqrs"},
    "runs": [
        {"model": m, "dataset": d, "recipe": r, "method": "lora" if r == "lora" else "full", "schedule": "cosine"}
        for m in "ab"
        for d in "pqrs"
        for r in ("full", "lora", "large")
    ],
}


def test_effects_on_the_map_have_the_planted_directions():
    directions = dict(zip("pqrs", np.eye(4, 20), strict=True))

    def place(model, dataset, recipe, epoch, **_):
        start = np.full(20, 3.0 if model == "a" else -3.0)
        reach = (epoch / 3) * {"base": 0, "full": 1.0, "lora": 0.5, "large": 2.0}[recipe]
        return start + reach * directions.get(dataset, 0)

    effects = {row["effect"]: row for row in analyse_map.effects(made(place), STUDY).iter_rows(named=True)}
    assert effects["spread"]["value"] > 0 and effects["size"]["value"] > 0 and effects["method"]["value"] < 0
    assert np.isnan(effects["size"]["low"])  # four training sets are too few for an interval
    assert effects["same set"]["value"] == 1.0 and effects["same set"]["reference"] == pytest.approx(0.25)
    assert effects["same set"]["p"] < 0.1  # 24 names for 4 sets
    # LoRA at half the way of full fine-tuning: its squared divergence is a quarter of it
    full = 1 / (2 * 20) / np.log(2)
    assert effects["method"]["value"] == pytest.approx((0.25 - 1) * full)


def test_same_set_holds_its_level_where_each_method_goes_its_own_way():
    """LoRA and full fine-tuning of a set have nothing in common, whether a set goes one way in all base models, or another in each."""
    keys, study = checkpoints(6, 5)

    def row(i, **effects):
        result = analyse_map.effects(with_bases(placed(keys, np.random.default_rng(i), model=3.0, **effects)), study | {"seed": i})
        return result.row(by_predicate=pl.col("effect") == "same set", named=True)

    for effects in ({"dataset_method": 2.0}, {"model_dataset_method": 2.0, "model_method": 1.0}):
        result = [row(i, **effects) for i in range(60)]
        assert is_at_most([one["p"] <= 0.05 for one in result])
        assert is_at_most([not one["low"] <= one["reference"] <= one["high"] for one in result])
        assert np.mean([one["value"] for one in result]) == pytest.approx(0.2, abs=0.05)
    result = [row(i, model_dataset=2.0) for i in range(10)]
    assert all(one["p"] <= 0.05 and one["low"] > one["reference"] for one in result)
    assert any(one["interval_method"] == "bootstrap over 6 base models and 5 training sets" for one in result)
    certain = row(0, model_dataset=50.0)
    assert certain["value"] == certain["high"] == 1.0 and 0.4 < certain["low"] < 0.7  # as five of five


def test_how_far_a_method_goes_is_judged_over_base_models():
    """A base model's own difference between methods, alike on all of its sets, is no difference of the methods."""
    keys, study = checkpoints(8, 4)

    def p(seed, more=0.0):
        rng = np.random.default_rng(seed)
        reach = dict(zip(study["models"], rng.uniform(1.0, 3.0, (8, 2)), strict=True))
        far = np.array([reach[m][int(k == "lora")] + more * (k == "lora") for m, k in keys.select("model", "method").iter_rows()])
        values = far[:, None] * np.eye(1, 20) + 0.1 * rng.normal(size=(keys.height, 20))
        result = analyse_map.effects(with_bases(analyse_map.Vectors(keys, values, 1.0, 0)), study)
        return result.row(by_predicate=pl.col("effect") == "method", named=True)["p"]

    assert is_at_most([p(i) <= 0.05 for i in range(60)])
    assert np.mean([p(i, more=2.0) <= 0.05 for i in range(10)]) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("shape", [{"models": 6, "sets": 5, "paths": 6}, {"models": 3, "sets": 8, "paths": 3}])
def test_spread_and_size_hold_their_level_and_are_found(shape):
    """Base models, or training sets where these are few, that have ways of their own, from a start that is their own."""
    keys, study = checkpoints(**shape, last=False)
    large = 1.0 + (keys["rows"].to_numpy() > 1000)[:, None]

    def p(seed, spread=0.0, size=0.0, **effects):
        rng = np.random.default_rng(seed)
        result = placed(keys, rng, model_dataset_recipe_way=spread, model_epoch=1.0, **effects)
        result = with_bases(analyse_map.Vectors(keys, result.values * large**size, 1.0, 0))
        return [row["p"] for row in analyse_map.effects(result, study).rows(named=True) if row["effect"] in ("spread", "size")]

    null = np.array([p(i, model_dataset=1.0) for i in range(50)])
    assert all(is_at_most(column) for column in (null <= 0.05).T)
    assert (np.array([p(i, spread=0.5, size=1.0, model_dataset=1.0) for i in range(10)]) <= 0.05).mean(axis=0).min() > 0.8


def with_bases(result):
    """The same with every base model at the origin."""
    names = result.keys["model"].unique(maintain_order=True)
    base = pl.DataFrame(
        {"model": names, **{key: ["base"] * len(names) for key in ("dataset", "recipe", "method")}, "epoch": [0] * len(names)}
    )
    keys = pl.concat([result.keys, base.with_columns(pl.col("epoch").cast(pl.Int64))], how="diagonal")
    return analyse_map.Vectors(keys, np.concatenate([result.values, np.zeros((len(names), result.values.shape[1]))]), 1.0, 0)


def test_spread_is_the_mean_squared_distance_to_the_centre_without_bias():
    rng = np.random.default_rng(7)
    table = {}

    def place(**row):
        return table.setdefault(tuple(row.values()), rng.normal(size=400))

    result = analyse_map.spread(made(place), STUDY)
    assert result["spread"].mean() == pytest.approx(1 / 2 / np.log(2), rel=0.05)  # one unit of variance in each direction
    assert result.height == 2 * 3 * 3 and set(result["runs"]) == {4}


def test_shares_of_the_synthetic_study():
    _, _, frames = synthetic.collected()
    last = frames["map_shares"].filter(design="last")
    assert last.filter(term="model")["share"].item() > 0.5 and last.filter(term="model")["p"].item() < 0.01
    assert last.filter(term="dataset")["p"].item() > 0.05
    _, _, frames = synthetic.collected(effect=0.0, seed=3)
    assert is_at_most((frames["map_shares"].filter(design="last")["p"].drop_nans() < 0.05).to_list())


def test_likelihood_vectors_are_double_centred_and_distances_are_bits_per_byte():
    rng = np.random.default_rng(0)
    values = rng.normal(-20, 3, (3, 50))
    rows = [
        {"model": f"m{i}", "dataset": "base", "recipe": "base", "epoch": 0, "method": "base", "rows": None, "schedule": None}
        | {"benchmark": "b", "item": j, "log_likelihood": values[i, j], "tokens": 5, "bytes": 4000 if j == 7 else 40}
        for i in range(3)
        for j in range(50)
    ]
    frame = pl.DataFrame(rows).filter(~((pl.col("model") == "m1") & (pl.col("item") == 7)))
    result = analyse_map.vectors(frame.sample(fraction=1, shuffle=True, seed=1))
    assert result.values.shape == (3, 49)
    assert result.dropped == 1
    assert np.abs(result.values.mean(axis=0)).max() < 1e-12
    clipped = np.delete(values, 7, axis=1)
    clipped = np.maximum(clipped, np.quantile(clipped, 0.02))
    clipped -= clipped.mean(axis=1, keepdims=True)
    first, second = (int(result.keys["model"].to_list().index(name)) for name in ("m0", "m2"))
    by_hand = np.mean((clipped[0] - clipped[2]) ** 2) / 2 / np.log(2) / 40
    assert result.squared_distances()[first, second] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("rows", "draw", "how"),
    [
        (12, analyse_map.embed, "PCA"),
        (40, analyse_map.embed, "t-SNE"),
        pytest.param(40, lambda values, seed: analyse_map.project(values, "umap", seed), "UMAP", marks=pytest.mark.slow),  # it compiles
    ],
)
def test_the_map_is_the_same_twice_and_keeps_clusters_apart(rows, draw, how):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 20)) + 20 * (np.arange(rows) % 2)[:, None]
    place, method = draw(values, seed=3)
    again, _ = draw(values, seed=3)
    assert np.array_equal(place, again)
    assert method.startswith(how)
    centres = place[::2].mean(axis=0), place[1::2].mean(axis=0)
    assert np.linalg.norm(centres[0] - centres[1]) > place[::2].std()


def test_base_share_is_high_where_it_was_planted_and_divergence_grows():
    study, _, frames = synthetic.collected()
    result = analyse_map.vectors(frames["likelihood"])
    assert analyse_map.base_share(result, study)[0].low > 0.4
    moved = analyse_map.distances(result)
    assert moved.filter(pl.col("epoch") == 0)["distance"].max() == 0
    means = moved.group_by("epoch").agg(pl.col("distance").mean()).sort("epoch")["distance"].to_list()
    assert means == sorted(means)
