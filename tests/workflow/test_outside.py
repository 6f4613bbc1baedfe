"""A study whose only entries are a base model and two checkpoints that were trained elsewhere, from the checkpoints to the pages."""

import copy
import json

import polars as pl
import pytest
import torch

from helpers import outsiders
from helpers.folders import fresh
from helpers.tokenizer import make_tokenizer
from sft_atlas.tables.results import load

STUDY = {
    "study": "outside",
    "models": {"tiny": {"path": "base", "dtype": "float32"}},
    "benchmarks": {
        "sums": {"task": "config/benchmarks/generate.yaml", "tasks": {"chain_sum": 1}, "size": 12, "max_new_tokens": 4},
        "words": {"task": "config/benchmarks/generate.yaml", "tasks": {"spell_backward": 1}, "size": 12, "max_new_tokens": 4},
    },
    "suites": {"tasks": {"benchmarks": ["sums", "words"], "batch_size": 12, "max_length": 256}},
    "checkpoints": {
        "full": {"model": "tiny", "path": "trl-full"},
        "theirs": {"model": "tiny", "path": "llama-factory", "method": "lora", "dataset": "ultrachat", "rows": 500},
    },
    "measure": {"representation": {"items_per_benchmark": 8, "max_length": 256}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, frozen_libraries):
    """The study, run to the end."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = fresh(tmp_path_factory.mktemp("outside"), copy.deepcopy(STUDY))
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=320, max_position_embeddings=256, initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape
        )
        LlamaForCausalLM(config).save_pretrained(folder.path / "base")
        make_tokenizer().save_pretrained(folder.path / "base")
        outsiders.trl_script(folder.path / "base", folder.path / "trl-full", lora=False)
        adapter = outsiders.trl_script(folder.path / "base", folder.path / "trl-adapter", lora=True)
    outsiders.llama_factory(adapter, folder.path / "llama-factory")
    folder.printed = folder.run("all", "cards", "release")
    return folder


def test_everything_is_made_and_nothing_is_left_to_do(finished):
    assert not finished.planned()
    assert "checkpoints.theirs.dataset: the study has no training set 'ultrachat'" in finished.printed
    results = load(finished.result(""))
    assert not results.missing
    keys = ("dataset", "recipe", "seed", "method", "rows", "epoch")
    found = {row[:2]: row[2:] for row in results.scores.select(keys).unique().iter_rows()}
    assert found == {
        ("base", "base"): (None, "base", None, 0),
        ("unknown", "full"): (None, "full", None, 1),
        ("ultrachat", "theirs"): (None, "lora", 500, 1),
    }
    assert results.gains.height == 4 and results.runs["train_loss"].null_count() == results.runs.height == 2
    assert results.history.is_empty()
    changes = results.layers.filter(pl.col("component") == "all").group_by("recipe").agg(pl.col("relative_change").min())
    assert set(changes["recipe"]) == {"full", "theirs"} and changes["relative_change"].min() > 0
    assert (
        results.likelihood.select("dataset", "recipe").unique().height == results.dimension.select("dataset", "recipe").unique().height == 3
    )


def test_the_findings_state_them_and_what_leaves_them_out(finished):
    text = " ".join(finished.result("findings.md").read_text().split())
    assert (
        "Checkpoints that were trained elsewhere" in text and "theirs (llama-factory; lora, from tiny): mean gain over benchmarks" in text
    )
    assert "so that all comparisons of training sets and methods leave them out: full." in text
    assert "so that perplexity, similarity, predictors and clean scores leave them out: theirs." in text
    assert "Rows unknown, so that effects of size leave them out: full." in text
    assert "Trained with one seed" not in text


def test_the_atlas_and_the_card_say_what_is_not_known(finished):
    assert finished.result("atlas/checkpoint.html").exists()
    card = finished.result("runs/tiny/ultrachat/theirs/epoch-1/card.md").read_text()
    assert "A checkpoint of tiny that was trained elsewhere (adapter), taken from llama-factory" in card
    assert "| rows | 500 |" in card and "| epochs | unknown |" in card and "names '/root/models/renamed-base' as its base model" in card
    record = json.loads(finished.result("release.json").read_text())
    assert record["checkpoints"] == [] and record["left_out"] == ["full", "theirs"]  # weights of others are not ours to upload
    assert (
        "left out, as others trained them: full, theirs; where their licences allow an upload, set release.outside: true"
        in finished.printed
    )


def test_a_fact_that_becomes_known_scores_nothing_again_and_other_weights_do(finished, tmp_path):
    copied = finished.copy(tmp_path / "copy")
    copied.study["checkpoints"]["full"] |= {"epochs": 3, "seed": 1}
    copied.write(copied.study)
    planned = copied.planned()
    assert not {"fetch_checkpoint", "evaluate", "measure_layers", "measure_representation"} & planned.keys() and planned["collect"]
    outsiders.changed(
        copied.path / "trl-full", copied.path / "other", None, lambda stored: {name: 1.01 * tensor for name, tensor in stored.items()}
    )
    copied.study["checkpoints"]["full"]["path"] = "other"
    copied.write(copied.study)
    planned = copied.planned()
    assert (planned["fetch_checkpoint"], planned["evaluate"], planned["measure_layers"], planned["measure_representation"]) == (1, 1, 1, 1)


def test_a_checkpoint_of_another_base_model_stops_alone_with_one_error(finished, tmp_path):
    copied = finished.copy(tmp_path / "copy")
    outsiders.changed(copied.path / "trl-full", copied.path / "odd", {"model_type": "mistral"})
    copied.study["checkpoints"]["odd"] = {"model": "tiny", "path": "odd"}
    copied.write(copied.study)
    printed = copied.run("--keep-going", ok=False)
    assert "checkpoints.odd: odd/config.json has model_type 'mistral', but tiny has 'llama'" in printed and "Traceback" not in printed


def test_the_plan_counts_scoring_and_measuring(finished, tmp_path):
    copied = finished.copy(tmp_path / "copy")
    copied.run("plan")
    page = copied.result("plan.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("| checkpoints trained elsewhere"))
    assert line.split("|")[4].strip() == "2" and "0 training runs, 2 checkpoints" in page


def test_scores_of_others_for_it_stand_beside_ours_and_are_compared_only_where_they_were_measured_alike(finished, tmp_path):
    copied = finished.copy(tmp_path / "copy")
    rows = [
        {"fullname": name, "eval_name": f"{name}_bfloat16", "Precision": "bfloat16", "IFEval Raw": score, "IFEval": 100 * score}
        for name, score in (("org/base", 0.25), ("org/adapter", 0.5))
    ]
    (copied.path / "board.json").write_text(json.dumps(rows))
    (copied.path / "paper.csv").write_text("name,sums:exact_match:0,words:exact_match:3\norg/adapter,25,50\n")
    named = {"org/base": "tiny", "org/adapter": "theirs"}
    sums, words = ({"benchmark": name, "metric": "exact_match", "shots": shots, "items": 12} for name, shots in (("sums", 0), ("words", 3)))
    copied.study["imported_scores"] = {
        "board": {"file": "board.json", "format": "leaderboard", "checkpoints": named},
        "paper": {
            "file": "paper.csv", "format": "csv", "template": "study", "checkpoints": {"org/adapter": "theirs"},
            "benchmarks": {"sums:exact_match:0": sums, "words:exact_match:3": words},
        },
    }  # fmt: skip
    copied.write(copied.study)
    planned = copied.planned()
    assert not {"fetch_checkpoint", "evaluate", "measure_layers", "measure_representation"} & planned.keys() and planned["import_scores"]
    copied.run("results/outside/tables/scores.parquet", "results/outside/tables/gains.parquet", "results/outside/findings.md")
    results = load(copied.result(""))
    keys = ("dataset", "recipe", "method", "rows", "epoch")
    scores = results.scores.filter(pl.col("source") != "ours", dataset="ultrachat")
    assert set(scores.select(keys).rows()) == {("ultrachat", "theirs", "lora", 500, 1)}
    assert scores.select("source", "benchmark", "score").rows() == [
        ("leaderboard", "ifeval", 0.5), ("csv", "sums", 0.25), ("csv", "words", 0.5),
    ]  # fmt: skip
    gains = results.gains.filter(pl.col("source") != "ours")
    assert gains.select(*keys, "benchmark", "gain", "source", "base_source").rows() == [
        ("ultrachat", "theirs", "lora", 500, 1, "ifeval", 0.25, "leaderboard", "leaderboard")
    ]
    text = " ".join(copied.result("findings.md").read_text().split())
    assert "2 scores of 2 checkpoints; 2 are compared with others." in text
    assert "Kept out: sums (1): we scored the same checkpoint. Kept out: words (1): 3 examples, ours 0." in text
