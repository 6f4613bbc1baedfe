"""The loss on held-out samples: its value, that it changes nothing, and that no held-out row is trained."""

import json
import math

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from helpers import tiny
from helpers.processes import forked, shard_on_the_cpu
from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.models.tokenization import encode_row
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import dataset as sampling
from sft_atlas.train import train, trainer

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [{"instruction": f"Count to {i}.", "response": " ".join(map(str, range(1, i + 1))), "source": None} for i in range(1, 9)]
HELD_OUT = [{"instruction": f"Say {i} times a.", "response": "a " * i + "a", "source": None} for i in (0, 9, 3)]


@pytest.fixture(scope="module")
def runs(tiny_base, run_script, tmp_path_factory):
    """The same run with and without held-out rows: dropout draws random numbers, and micro-batches are smaller than the batch."""
    folder = tmp_path_factory.mktemp("runs")
    pl.DataFrame(ROWS).write_parquet(folder / "train.parquet")
    (folder / "data/counts/8").mkdir(parents=True)
    held_out = folder / "data/counts/8/holdout.parquet"
    pl.DataFrame([*HELD_OUT, {"instruction": "long " * 100, "response": "x", "source": None}]).write_parquet(held_out)
    lora = {"rank": 2, "alpha": 4, "dropout": 0.2}
    recipe = Hyperparameters(
        method="lora", lora=lora, rows=8, epochs=2, learning_rate=1e-2, batch_size=4, micro_batch_size=2, max_length=128, save_epochs="all"
    )
    for name, more in (("with", {"holdout": held_out}), ("without", {})):
        files = {"base": tiny_base, "data": folder / "train.parquet", "state": folder / f"state-{name}", "output": folder / name}
        keys = {"model": "tiny", "dataset": "counts", "recipe": "lora"}
        run_script(train, **keys, **files, **more, settings=recipe.model_dump_json(), template=json.dumps(TEMPLATE))
    return folder


def test_the_loss_is_the_mean_over_all_supervised_tokens(runs, tiny_base):
    base = ModelFolder.read(tiny_base)
    tokenizer = load_tokenizer(base)
    history = pl.read_parquet(runs / "with/history.parquet")
    assert history["validation_loss"].is_null().to_list() == [True, False, True, False]  # at the end of each epoch
    for epoch, logged in ((1, history["validation_loss"][1]), (2, history["validation_loss"][3])):
        model = load_model(base, runs / f"with/epoch-{epoch}/weights")
        total, tokens = 0.0, 0
        for row in HELD_OUT:
            ids, [(first, stop)] = encode_row(tokenizer, TEMPLATE, row)
            with torch.no_grad():
                likelihoods = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            total -= sum(likelihoods[i - 1, ids[i]].item() for i in range(first, stop))
            tokens += stop - first
        assert logged == pytest.approx(total / tokens, rel=1e-4)
    record = json.loads((runs / "with/train.json").read_text())
    assert record["validation"] == {"samples": 3, "dropped_overlong": 1, "supervised_tokens": tokens}
    assert record["inputs"]["holdout.counts"]["path"].endswith("counts/8/holdout.parquet")


def test_validation_changes_no_weight_and_no_step(runs):
    one, other = (load_file(runs / f"{name}/epoch-2/weights/adapter_model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    first, second = (pl.read_parquet(runs / f"{name}/history.parquet") for name in ("with", "without"))
    assert first.drop("validation_loss").equals(second.drop("validation_loss"))
    assert second["validation_loss"].is_null().all()
    records = [json.loads((runs / f"{name}/train.json").read_text()) for name in ("with", "without")]
    assert records[0]["train_loss"] == records[1]["train_loss"] and math.isfinite(records[0]["train_loss"])
    assert "validation" not in records[1]


def test_rows_that_another_member_trains_are_not_validated_on(runs, run_script, tiny_base, tmp_path):
    held_out = tmp_path / "data/red/8/holdout.parquet"
    held_out.parent.mkdir(parents=True)
    pl.DataFrame([{"instruction": "COUNT  to 1.", "response": "one"}]).write_parquet(held_out)
    recipe = Hyperparameters(method="full", rows=8, epochs=1, learning_rate=1e-3, batch_size=8).model_dump_json()
    files = {
        "base": tiny_base,
        "data": runs / "train.parquet",
        "state": tmp_path / "state",
        "output": tmp_path / "output",
        "holdout": held_out,
    }
    with pytest.raises(AtlasError, match="tiny/both/full: none of 1 held-out rows is left to validate on"):
        run_script(train, model="tiny", dataset="both", recipe="full", **files, settings=recipe, template=json.dumps(TEMPLATE))


def test_two_processes_with_sharded_weights_measure_the_loss_of_one(tiny_tokenizer, tmp_path):
    case = tiny.make("llama", tmp_path / "llama", tiny_tokenizer)
    held_out = sampling.tokenize(HELD_OUT, case.tokenizer, TEMPLATE, 256).kept  # three: the second process gets a batch without samples

    def losses(name: str, **more) -> list[float]:
        (tmp_path / name).mkdir(exist_ok=True)
        facts = trainer.fine_tune(case.base, case.samples, case.tokenizer, case.settings(**more), tmp_path / name, name, held_out)
        return [entry["eval_loss"] for entry in facts["log"] if "eval_loss" in entry]

    def train_sharded(rank: int) -> None:
        shard_on_the_cpu()
        (tmp_path / f"{rank}.json").write_text(json.dumps(losses("two", gpus=2, micro_batch_size=2)))

    one = losses("one", micro_batch_size=2)
    forked(2, train_sharded)
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0] == both[1] == pytest.approx(one, rel=1e-4) and len(one) == 2
