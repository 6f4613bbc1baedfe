"""Intrinsic dimension on manifolds of known dimension, pooling against single prompts, and the script that measures a checkpoint."""

import json

import numpy as np
import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.measure import measure_representation
from sft_atlas.measure.intrinsic_dimension import ESTIMATORS, dimension_rows, distances, estimate, pooled_states, standard_error
from sft_atlas.measure.likelihood import token_log_likelihoods
from sft_atlas.models.base_model import ModelFolder, load_model

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}


def manifold(dimension, points=600, features=40, seed=0):
    """A curved ``dimension``-dimensional sheet in a space of ``features`` dimensions."""
    generator = np.random.default_rng(seed)
    inner = generator.uniform(size=(points, dimension))
    wide = np.concatenate([inner, np.sin(2 * inner)], 1) @ generator.normal(size=(2 * dimension, features))
    return wide.astype(np.float32)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("dimension", "tolerance"), [(2, 0.3), (5, 0.9)])
def test_known_dimensions(estimator, dimension, tolerance):
    between, duplicates = distances(manifold(dimension) + 100)  # the place of the cloud does not matter
    value, error = estimate(between, estimator), standard_error(between, estimator, 0)
    assert duplicates == 0 and value == pytest.approx(dimension, abs=tolerance)
    assert 0.01 < error < 0.5 and error == standard_error(between, estimator, 0)


def test_estimators_are_those_of_scikit_dimension():
    import skdim

    points = manifold(4, points=200).astype(np.float64)
    between, _ = distances(points)
    assert estimate(between, "twonn") == pytest.approx(skdim.id.TwoNN().fit(points).dimension_, rel=1e-6)
    assert estimate(between, "mle") == pytest.approx(skdim.id.MLE().fit(points).dimension_, rel=1e-6)
    assert estimate(between, "gride") == pytest.approx(skdim.id.GRIDE(n1=2, n2=4).fit(points).dimension_, rel=1e-6)


def test_standard_error_is_about_the_spread_over_samples():
    values = [estimate(distances(manifold(3, 300, seed=seed))[0], "twonn") for seed in range(12)]
    errors = [standard_error(distances(manifold(3, 300, seed=seed))[0], "twonn", 0) for seed in range(3)]
    assert 0.4 < np.mean(errors) / np.std(values, ddof=1) < 2.5


def test_duplicates_are_left_out_and_counted():
    points = manifold(3, 200)
    between, duplicates = distances(np.concatenate([points, points[:50] * np.float32(1 + 1e-7), points[:10]]))
    assert between.shape == (200, 200) and duplicates == 60
    assert estimate(between, "twonn") == pytest.approx(estimate(distances(points)[0], "twonn"), rel=1e-3)


def test_what_cannot_be_estimated_is_null():
    same = np.ones((30, 8), np.float32)
    few = manifold(2, 15)
    rows = dimension_rows({"last": np.stack([same, same]), "mean": np.stack([few, few])[:, :, :8]}, ["twonn", "mle"], 0)
    assert [(row["layer"], row["pooling"]) for row in rows[::2]] == [(0, "last"), (0, "mean"), (1, "last"), (1, "mean")]
    assert [row["depth"] for row in rows[::2]] == [0, 0, 1, 1]
    for row in rows:
        if row["pooling"] == "last":
            assert (row["dimension"], row["stderr"], row["n"], row["duplicates"]) == (None, None, 1, 29)
        else:
            assert row["dimension"] > 0 and row["stderr"] is None and row["n"] == 15


def test_states_do_not_depend_on_the_batch(tiny_base):
    import torch

    model = load_model(ModelFolder.read(tiny_base))
    generator = np.random.default_rng(0)
    sequences = [generator.integers(3, 320, size=length).tolist() for length in (5, 1, 12, 7)]
    pooled = pooled_states(model, sequences, 3, 0)
    for index, ids in enumerate(sequences):
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            assert pooled["last"][layer, index] == pytest.approx(state[0, -1].numpy(), abs=1e-4)
            assert pooled["mean"][layer, index] == pytest.approx(state[0, min(1, len(ids) - 1) :].mean(0).numpy(), abs=1e-4)


@pytest.fixture
def items(tmp_path):
    """Two benchmarks; the second has an answer that is too long and two equal questions."""
    words = ["apples", "pears", "lemons", "foxes", "dogs", "jumps"]
    rows = [{"instruction": f"How many {words[index % 6]} in {index}?", "answer": f"{index} {words[index % 6]}"} for index in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"instruction": "same", "answer": "x"}, {"instruction": "same", "answer": "y"}, {"instruction": "long", "answer": "z " * 300}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def measure(run_script, tiny_base, items):
    """Run the script on both benchmarks; gives the two tables and the JSON beside the likelihoods."""

    def call(benchmarks=("a", "b"), **options):
        settings = {
            "items_per_benchmark": 30,
            "template": json.dumps(TEMPLATE),
            "estimators": "twonn,mle",
            "batch_size": 4,
            "max_length": 128,
        }
        base = {"dataset": "base", "recipe": "base"}
        outputs = {"output_dimension": items / "dimension.parquet", "output_likelihood": items / "likelihood.parquet"}
        files = [f"{name}={items / name}.jsonl" for name in benchmarks]
        run_script(measure_representation, base=tiny_base, model="tiny", items=files, **base | settings | outputs | options)
        record = json.loads((items / "likelihood.json").read_text())
        return pl.read_parquet(outputs["output_dimension"]), pl.read_parquet(outputs["output_likelihood"]), record

    return call


def test_measure_representation_of_a_base_model(tiny_base, tiny_tokenizer, measure):
    dimension, likelihood, record = measure(epoch=0)
    assert likelihood.columns == ["model", "dataset", "recipe", "epoch", "benchmark", "item", "log_likelihood", "tokens", "bytes"]
    assert likelihood.filter(benchmark="b")["item"].to_list() == [0, 1] and len(likelihood) == 32
    assert record["dropped"] == [{"benchmark": "b", "item": 2}] and record["n_prompts_equal"] == 1 and record["dtype"] == "float32"
    assert likelihood.select("model", "dataset", "recipe", "epoch").unique().rows() == [("tiny", "base", "base", 0)]
    alone, _ = token_log_likelihoods(
        load_model(ModelFolder.read(tiny_base)), tiny_tokenizer, ["###Question: same\n###Answer:"], [" y"], 1, 128, with_eos=False
    )
    row = likelihood.row(-1, named=True)
    assert row["log_likelihood"] == pytest.approx(-alone["nll_response"][0], abs=1e-4) and row["tokens"] == alone["tokens_response"][0]
    assert row["bytes"] == 2
    columns = "model dataset recipe epoch layer depth pooling estimator dimension stderr n duplicates"
    assert dimension.columns == columns.split()
    assert len(dimension) == 3 * 2 * 2 and dimension["depth"].unique().sort().to_list() == [0, 0.5, 1]
    assert dimension.filter(layer=0, pooling="last")["dimension"].null_count() == 2  # every prompt ends in the same token
    assert dimension.filter(layer=2)["dimension"].null_count() == 0 and dimension.filter(layer=2)["n"].unique().to_list() == [32]


def test_measure_representation_of_a_checkpoint(tiny_base, items, measure):
    model = load_model(ModelFolder.read(tiny_base))
    model.lm_head.weight.data.zero_()
    weights = items / "epoch-2/weights"
    model.save_pretrained(weights)
    (items / "train.json").write_text(json.dumps({"template": TEMPLATE}))
    _, likelihood, _ = measure(weights=weights, dataset="d", recipe="r", epoch=2)
    assert likelihood.select("dataset", "recipe", "epoch").unique().rows() == [("d", "r", 2)]
    each = likelihood["log_likelihood"] / likelihood["tokens"]
    assert each.to_list() == pytest.approx([-np.log(320)] * len(each), abs=1e-5)


def test_wrong_arguments_are_named(measure, capsys):
    with pytest.raises(AtlasError, match="twice"):
        measure(("a", "a"), epoch=0)
    for wrong, message in (({"items": "nothing"}, "not of the form NAME=FILE"), ({"estimators": "pca"}, "unknown estimator 'pca'")):
        with pytest.raises(SystemExit):
            measure_representation.parser().parse_args([f"--{name}={value}" for name, value in wrong.items()])
        assert message in capsys.readouterr().err
