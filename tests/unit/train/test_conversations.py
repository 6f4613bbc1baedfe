"""Conversations with a chat template, from training to scores."""

import json

import polars as pl
import pytest

from helpers.chat import chat_tokenizer
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.measure import measure_perplexity
from sft_atlas.models.prompt_template import assistant, user
from sft_atlas.study.schema import Hyperparameters, Template
from sft_atlas.train import train

CHAT = '"chat"'
CONVERSATION = [*user("Count to 3."), *assistant("1 2 3"), *user("Backward."), *assistant("3 2 1")]
KEYS = {"model": "tiny", "dataset": "chats", "recipe": "full"}


@pytest.fixture(scope="module")
def run(run_script, tmp_path_factory):
    """The folder of a run on one exchange and one conversation, beside its base model, whose generation configuration knows </s> only."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("chats")
    tokenizer = chat_tokenizer("gemma", adds_bos=True)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape, **special)).save_pretrained(
            folder / "tiny"
        )
    tokenizer.save_pretrained(folder / "tiny")
    manifest = {"name": "tiny", "path": str(folder / "tiny"), "dtype": "float32", "trust_remote_code": False}
    (folder / "model.json").write_text(json.dumps(manifest))
    single = {"instruction": "Name a colour.", "response": "red", "source": "a", "messages": None}
    several = {"instruction": "Count to 3.", "response": "1 2 3", "source": "b", "messages": json.dumps(CONVERSATION)}
    pl.DataFrame([several, single]).write_parquet(folder / "train.parquet")
    recipe = Hyperparameters(method="full", rows=2, epochs=30, learning_rate=1e-2, batch_size=2, save_epochs=[30]).model_dump_json()
    files = {"base": folder / "model.json", "data": folder / "train.parquet", "state": folder / "state", "output": folder / "output"}
    run_script(train, **KEYS, **files, settings=recipe, template=CHAT)
    return folder


def score(run, run_script, template):
    (run / "items.jsonl").write_text(json.dumps({"instruction": "Name a colour.", "answer": "red"}) + "\n")
    SuiteFile("s", [BenchmarkFiles("colour", ROOT / "config/benchmarks/generate.yaml", run / "items.jsonl")]).write(run / "suite.json")
    outputs = {"output_scores": run / "scores.parquet", "output_samples": run / "samples.parquet"}
    files = {"suite": run / "suite.json", "base": run / "model.json", "weights": run / "output/epoch-30/weights"}
    run_script(evaluate, **KEYS, epoch=30, **files, template=template, max_length=256, state=run / "scoring", **outputs)
    return pl.read_parquet(run / "samples.parquet").row(0, named=True), json.loads((run / "scores.json").read_text())


def test_a_model_is_scored_with_the_chat_template_of_its_training_and_stops_where_it_learned_to(run, run_script):
    sample, record = score(run, run_script, CHAT)
    assert sample["prompt"] == "<start_of_turn>user\nName a colour.<end_of_turn>\n<start_of_turn>model\n"
    # After 30 epochs on two samples it knows the answer, and ends it with the token that ended it in training.
    assert (sample["output"], sample["truncated"], sample["score"]) == ("red", False, 1.0)
    trained = json.loads((run / "output/train.json").read_text())
    assert record["settings"]["template"] == "chat" and "start_of_turn" in trained["template"]["chat"]
    with pytest.raises(AtlasError, match=r"was trained with the template of a tokenizer \(chat, [0-9a-f]{16}\), this study scores with"):
        score(run, run_script, Template().model_dump_json())


def test_the_record_and_the_preflight_count_the_replies_of_every_turn(run):
    record, page = json.loads((run / "output/train.json").read_text()), (run / "output/preflight.txt").read_text()
    tokenizer = chat_tokenizer("gemma", adds_bos=True)
    replies = [len(tokenizer(text + "<end_of_turn>", add_special_tokens=False)["input_ids"]) for text in ("1 2 3", "3 2 1", "red")]
    assert record["supervised_tokens"] == 30 * sum(replies)
    assert record["special_tokens"] == {"bos": 2, "eos": 6}  # every turn ends in the token
    assert "[[1 2 3<end_of_turn>]]\n<start_of_turn>user\nBackward.<end_of_turn>\n<start_of_turn>model\n[[3 2 1<end_of_turn>]]" in page
    assert page.count("scored prompt: the same tokens") == 2


def test_perplexity_is_that_of_every_reply(run, run_script):
    files = {"base": run / "model.json", "data": run / "train.parquet", "output": run / "perplexity.parquet"}
    run_script(measure_perplexity, model="tiny", dataset="chats", rows=2, **files, template=CHAT, batch_size=2, max_length=200)
    frame = pl.read_parquet(run / "perplexity.parquet")
    assert frame["tokens_response"].sum() * 30 == json.loads((run / "output/train.json").read_text())["supervised_tokens"]
    assert frame["bytes_response"].to_list() == [len("1 2 33 2 1"), len("red")]
