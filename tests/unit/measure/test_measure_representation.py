"""The job that measures a checkpoint on benchmark items: likelihood of each answer, dimension of each layer, provenance."""

import json

import numpy as np
import polars as pl
import pytest

from sft_atlas.core import job
from sft_atlas.core.errors import AtlasError
from sft_atlas.measure import measure_representation
from sft_atlas.measure.likelihood import token_log_likelihoods
from sft_atlas.models.base_model import ModelFolder, load_model

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}


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
            "estimators": ("twonn", "mle"),
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
    for wrong, message in (({"items": "nothing"}, "not of the form NAME=FILE"), ({"estimators": "pca"}, "invalid choice: 'pca'")):
        with pytest.raises(SystemExit):
            job.parser(measure_representation).parse_args([f"--{name}={value}" for name, value in wrong.items()])
        assert message in capsys.readouterr().err
