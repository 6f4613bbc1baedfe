"""Checkpoints that other tools made: which are taken, what is noted of them, and what is refused with which remedy."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import outsiders
from helpers.hub_server import COMMIT, SECRET, serving
from helpers.waiting import HANG
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import fetch_checkpoint
from sft_atlas.models.base_model import load_model, load_tokenizer, tokenizer_folder, verify_checkpoint


@pytest.fixture(scope="module")
def made(base, frozen_libraries, tmp_path_factory):
    """Folders by kind; those of TRL are trained by its own trainer."""
    root = tmp_path_factory.mktemp("outside")
    with torch.random.fork_rng():
        full = outsiders.trl_script(base.path, root / "trl-full", lora=False)
        adapter = outsiders.trl_script(base.path, root / "trl-adapter", lora=True)
    return argparse.Namespace(root=root, full=full, adapter=adapter)


@pytest.fixture
def taken(base, tmp_path):
    """A function that has the job take a folder: its record and weights."""

    def take(folder, method, **entry):
        output = tmp_path / "runs" / "tiny" / "unknown" / "theirs"
        shutil.rmtree(output, ignore_errors=True)
        entry = {"model": "tiny", "path": str(folder), "method": method, **entry}
        keys = {"model": "tiny", "dataset": "unknown", "recipe": "theirs", "base": base.manifest}
        fetch_checkpoint.main(
            argparse.Namespace(
                **keys, entry=json.dumps(entry), method=method, path=Path(folder), folder=tmp_path / "download", output=output
            )
        )
        return read_json(output / "train.json"), output / "epoch-1/weights"

    return take


def files(weights):
    return {path.name for path in weights.iterdir()}


def test_what_a_trl_script_saves_is_taken_as_it_is(made, taken, base):
    record, weights = taken(made.full, "full")
    assert files(weights) == {"model.safetensors", "config.json", "generation_config.json"}
    assert os.path.samefile(weights / "model.safetensors", made.full / "model.safetensors"), "a link, which costs no room"
    assert record["outside"]["kind"] == "full weights" and record["outside"]["vocabulary"]["tokenizer"] == "base model's"
    assert (
        record["template"] is None
        and record["train_loss"] is None
        and record["samples"] is None
        and record["settings"] == {"method": "full"}
    )
    verify_checkpoint(weights)
    assert load_model(base, weights).lm_head.weight.shape == (320, 32)

    record, weights = taken(made.adapter, "lora")
    assert files(weights) == {"adapter_config.json", "adapter_model.safetensors"}
    assert record["settings"]["lora"] | {"targets": 0} == {
        "rank": 4, "alpha": 8, "dropout": 0.0, "targets": 0, "rslora": False, "dora": False,
    }  # fmt: skip
    verify_checkpoint(weights)
    load_model(base, weights)


def test_llama_factorys_other_files_are_left_where_they_are(made, taken):
    folder = outsiders.llama_factory(made.adapter, made.root / "llama-factory")
    record, weights = taken(folder, "lora")
    assert files(weights) == {"adapter_config.json", "adapter_model.safetensors"}
    (remark,) = record["outside"]["remarks"]
    assert remark.startswith("adapter_config.json names '/root/models/renamed-base' as its base model; it was checked against tiny")


def test_shards_are_one_checkpoint_and_a_missing_one_is_named(made, taken, base):
    folder = outsiders.sharded(made.full, made.root / "sharded")
    record, weights = taken(folder, "full")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert sorted(record["weights_sha256"]["1"]) == shards and "model.safetensors.index.json" in record["configuration_sha256"]["1"]
    assert torch.equal(load_model(base, weights).lm_head.weight, load_model(base, made.full).lm_head.weight)
    (folder / shards[1]).unlink()
    with pytest.raises(AtlasError, match=f"checkpoints.theirs: .*lacks 1 of the {len(shards)} files .*{shards[1]}"):
        taken(folder, "full")


@pytest.mark.parametrize("adapter", [False, True])
def test_pickles_are_refused_with_the_reason_and_the_remedy(made, taken, adapter):
    folder = outsiders.pickled(made.adapter if adapter else made.full, made.root / f"pickled-{adapter}", adapter)
    name = "adapter_model.bin" if adapter else "pytorch_model.bin"
    with pytest.raises(
        AtlasError,
        match=rf"checkpoints.theirs: .* has its weights as {name} alone. That is a pickle, which can run any program.*save_pretrained",
    ):
        taken(folder, "lora" if adapter else "full")


def test_a_merged_adapter_is_full_weights_of_a_lora_training(made, taken, base):
    folder = outsiders.merged(base.path, made.adapter, made.root / "merged")
    with pytest.raises(
        AtlasError, match=r"checkpoints.theirs.method: is lora, but .* holds full weights; correct it to full, or add `merged: true`"
    ):
        taken(folder, "lora")
    record, weights = taken(folder, "lora", merged=True)
    assert record["settings"]["method"] == "lora" and "model.safetensors" in files(weights)
    with pytest.raises(AtlasError, match=r"method: asks for full weights, but .* holds an adapter"):
        taken(made.adapter, "full")


def test_tokens_at_the_end_are_used_with_the_checkpoints_own_tokenizer(made, taken, base):
    record, weights = taken(outsiders.with_tokens(made.full, made.root / "tokens"), "full")
    assert record["outside"]["vocabulary"] == {
        "base_rows": 320, "rows": 322, "tokenizer": "own", "added_tokens": ["<|im_start|>", "<|im_end|>"],
    }  # fmt: skip
    assert "used with its own tokenizer, which has 2 tokens of its own (<|im_start|>, <|im_end|>) and another end of a text" in " ".join(
        record["outside"]["remarks"]
    )
    assert "tokenizer.json" in record["weights_sha256"]["1"], "answers depend on it"
    assert tokenizer_folder(base, weights) == weights and load_tokenizer(base, weights).eos_token == "<|im_end|>"
    assert load_model(base, weights).get_input_embeddings().weight.shape[0] == 322
    from sft_atlas.measure.weight_change import layer_changes

    skipped = {row["component"]: row["skipped_rows"] for row in layer_changes(base.path, weights) if row["layer"] is None}
    assert skipped["embedding"] == skipped["head"] == 2


def test_another_vocabulary_and_ids_without_a_row_are_errors(made, taken):
    odd = outsiders.with_tokens(made.full, made.root / "odd")
    shutil.copy(made.full / "model.safetensors", odd / "model.safetensors")
    shutil.copy(made.full / "config.json", odd / "config.json")
    with pytest.raises(AtlasError, match=r"the tokenizer in .* has ids up to 321 .*but the embedding has 320 rows; save the model after"):
        taken(odd, "full")
    moved = outsiders.changed(made.full, made.root / "moved")
    text = json.loads((moved / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    one, other = sorted(vocabulary, key=vocabulary.get)[100:102]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (moved / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(AtlasError, match=r"the tokenizer in .* is another than that of tiny: 2 of 320 tokens have other ids"):
        taken(moved, "full")


def test_a_tied_head_is_what_the_configuration_says_or_an_error(made, taken):
    def tie(stored):
        return stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()}

    tied = outsiders.changed(made.full, made.root / "tied", {"tie_word_embeddings": True}, tie)
    record, _ = taken(tied, "full")
    assert record["outside"]["tied_head"] and any("the two are equal" in remark for remark in record["outside"]["remarks"])
    assert any("the head is tied to the embedding, unlike the base model's" in remark for remark in record["outside"]["remarks"])
    untied = outsiders.changed(made.full, made.root / "both", {"tie_word_embeddings": True})
    with pytest.raises(
        AtlasError, match=r"stores a lm_head.weight that differs from the embedding, but its config.json says that they are tied"
    ):
        taken(untied, "full")

    def cut(stored):
        return {name: tensor for name, tensor in stored.items() if name != "lm_head.weight"}

    with pytest.raises(AtlasError, match=r"stores no lm_head.weight, but its config.json says that the head is not tied"):
        taken(outsiders.changed(made.full, made.root / "headless", None, cut), "full")


def test_another_type_is_cast_and_noted(made, taken, base):
    halved = outsiders.changed(made.full, made.root / "half", {"dtype": "bfloat16"}, lambda s: {n: t.bfloat16() for n, t in s.items()})
    record, weights = taken(halved, "full")
    assert record["outside"]["stored_dtype"] == ["bfloat16"]
    assert "stored in bfloat16; scored in float32, the type of the base model" in record["outside"]["remarks"]
    assert load_model(base, weights).dtype == torch.float32


def nan(stored):
    stored["model.norm.weight"][0] = float("nan")
    return stored


REFUSED = {  # changes of full weights, and what is said of them
    "another architecture": ({"model_type": "mistral"}, None, "has model_type 'mistral', but tiny has 'llama'"),
    "other heads": ({"num_attention_heads": 8}, None, "has num_attention_heads 8, but tiny has 4"),
    "quantized": ({"quantization_config": {"bits": 4}}, None, "holds quantized weights"),
    "code": ({"auto_map": {"AutoModel": "x.Y"}}, None, "names code of its own"),
    "narrower": (
        {"intermediate_size": 40},
        lambda s: {n: t[:40] if "gate" in n or "up_proj" in n else t[:, :40] if "down" in n else t for n, t in s.items()},
        "has the shape .* in tiny; correct `model`",
    ),
    "a layer short": (None, lambda s: {n: t for n, t in s.items() if ".layers.1.self" not in n}, "the files lack"),
    "not finite": (None, nan, "model.norm.weight in .* has values that are not finite"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_checkpoint_of_the_base_model_is_refused(made, taken, kind):
    config, tensors, said = REFUSED[kind]
    folder = outsiders.changed(made.full, made.root / kind.replace(" ", "-"), config, tensors)
    with pytest.raises(AtlasError, match=f"checkpoints.theirs: .*{said}"):
        taken(folder, "full")


def adapter_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "tensors", "said"),
    [
        ({"peft_type": "IA3"}, None, "is no plain LoRA or DoRA adapter .peft_type=IA3.; merge it"),
        ({"init_lora_weights": "pissa"}, None, "init_lora_weights=pissa"),
        ({"task_type": "SEQ_CLS"}, None, "is an adapter for SEQ_CLS"),
        ({}, lambda s: {n.replace("layers.1", "layers.7"): t for n, t in s.items()}, "changes model.layers.7.* which tiny does not have"),
        ({}, lambda s: {n: t[:, :16] if "lora_A" in n and "q_proj" in n else t for n, t in s.items()}, "does not fit tiny: at .*q_proj"),
        (
            {},
            lambda s: s | {"base_model.model.model.embed_tokens.weight": torch.zeros(330, 32)},
            "resized for tokens of its own; merge the adapter into the resized base model",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_or_does_more_than_lora_is_refused(made, taken, tmp_path, changes, tensors, said):
    folder = outsiders.changed(made.adapter, tmp_path / "adapter", None, tensors)
    adapter_config(folder, **changes)
    with pytest.raises(AtlasError, match=f"checkpoints.theirs: .*{said}"):
        taken(folder, "lora")


# ---------------------------------------------------------------- from the hub


@pytest.fixture(scope="module")
def hub(made):
    """A hub with an adapter, a pickle and full weights, and a collection of the first and the last."""

    def content(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with serving() as running:
        pickle = outsiders.pickled(made.adapter, made.root / "hub-pickle", True)
        running.models = {
            "team/adapter": content(outsiders.llama_factory(made.adapter, made.root / "hub-adapter")),
            "team/pickle": content(pickle),
            "team/full": content(made.full),
        }
        running.bases = {"team/adapter": "team/base", "team/full": "team/base"}
        running.collections = {"team/some-0123": ["team/adapter", "team/full"]}
        yield running


def in_process(hub, folder, code, *words):
    """Python in a process that knows this hub; its exit status and what it printed."""
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": SECRET, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT / "workflow_scripts")}
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key} | own | {"HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG)
    return done.returncode, done.stdout + done.stderr


FETCH = f"import sys, runpy; sys.argv[0] = {str(ROOT / 'workflow_scripts/run.py')!r}; runpy.run_path(sys.argv[0], run_name='__main__')"


def fetched(hub, folder, base, repository, revision=COMMIT):
    entry = {"model": "tiny", "hub": repository, "revision": revision, "method": "lora"}
    words = [
        "fetch_checkpoint",
        "--base",
        base.manifest,
        "--model",
        "tiny",
        "--dataset",
        "unknown",
        "--recipe",
        "theirs",
        "--method",
        "lora",
    ]
    words += ["--entry", json.dumps(entry), "--folder", folder / "download", "--output", folder / "run", "--log", folder / "log"]
    status, printed = in_process(hub, folder, FETCH, *map(str, words))
    return status, printed + (folder / "log").read_text()


def test_a_checkpoint_comes_from_the_hub_at_its_commit_without_pickles_and_folders(hub, base, tmp_path):
    status, printed = fetched(hub, tmp_path, base, "team/adapter", "main")
    assert status == 0, printed
    record = read_json(tmp_path / "run/train.json")
    assert record["outside"]["source"] == {"hub": "team/adapter", "revision": "main", "commit": COMMIT}
    assert "revision 'main' is not a commit" in printed and SECRET not in printed
    downloaded = {path.name for path in (tmp_path / "download/files").iterdir()}
    assert "training_args.bin" not in downloaded and "checkpoint-375" not in downloaded
    assert os.path.samefile(
        tmp_path / "download/files/adapter_model.safetensors", tmp_path / "run/epoch-1/weights/adapter_model.safetensors"
    )


def test_a_repository_of_pickles_is_refused_before_anything_is_loaded(hub, base, tmp_path):
    status, printed = fetched(hub, tmp_path, base, "team/pickle")
    assert status == 1 and "has its weights as adapter_model.bin alone" in printed and "Traceback" not in printed
    assert not [path for method, path in hub.seen if method == "GET" and "team/pickle/resolve" in path]


EXPAND = """
import json, sys
from sft_atlas.core import hub
hub.request.__defaults__ = (0.01,)
from sft_atlas.core.errors import ConfigError
from sft_atlas.study.checkpoint_lists import expand
try:
    print(json.dumps(expand(json.loads(sys.argv[1]), "study.yaml")["checkpoints"]))
except ConfigError as error:
    print(error)
"""


def test_a_collection_stands_for_its_models_at_their_commits_and_is_asked_once(hub, tmp_path):
    models = {"ant": {"hub": "team/base", "revision": COMMIT}, "bee": {"path": "bee"}}
    config = {"study": "mine", "models": models, "checkpoints": {"some": {"from": {"hub_collection": "team/some-0123"}, "dataset": "chat"}}}
    status, printed = in_process(hub, tmp_path, EXPAND, json.dumps(config))
    assert status == 0, printed
    found = json.loads(printed)
    both = {"model": "ant", "revision": COMMIT, "dataset": "chat"}
    assert found == {
        "adapter": both | {"hub": "team/adapter", "method": "lora"},
        "full": both | {"hub": "team/full", "method": "full"},
    }
    asked = sum(count for (_, path), count in hub.seen.items() if "/api/collections/" in path)
    assert in_process(hub, tmp_path, EXPAND, json.dumps(config))[1] == printed
    assert sum(count for (_, path), count in hub.seen.items() if "/api/collections/" in path) == asked
    del config["models"]["ant"]
    said = in_process(hub, tmp_path, EXPAND, json.dumps(config))[1]
    assert "checkpoints.some: the card of team/adapter names as its base team/base, which is no `hub` of a model of the study" in said


@pytest.mark.parametrize(
    ("slug", "said"),
    [
        (
            "team/gated-1",
            "collection team/gated-1: the collection is gated; accept its licence at https://huggingface.co/collections/team/gated-1",
        ),
        ("team/locked-1", "collection team/locked-1: the hub refused access (401); set HF_TOKEN to a token that may read"),
        ("team/none-1", "collection team/none-1: does not exist on the hub, or is private"),
        (
            "team/holds-gated-1",
            "model team/gated at its newest commit: the repository is gated; accept its licence at https://huggingface.co/team/gated",
        ),
    ],
)
def test_a_collection_that_may_not_be_read_is_explained_at_once(hub, tmp_path, slug, said):
    hub.collections |= {"team/holds-gated-1": ["team/gated"]}
    config = {
        "study": "mine",
        "models": {"bee": {"path": "bee"}},
        "checkpoints": {"some": {"from": {"hub_collection": slug}, "model": "bee"}},
    }
    before = sum(hub.seen.values())
    _, printed = in_process(hub, tmp_path, EXPAND, json.dumps(config))
    assert f"checkpoints.some.from: {said}" in printed and "Traceback" not in printed and SECRET not in printed
    assert sum(hub.seen.values()) - before <= 2  # not tried again


def test_a_collection_is_asked_again_when_the_hub_fails(hub, tmp_path):
    config = {"study": "mine", "models": {"bee": {"path": "bee"}}}
    config["checkpoints"] = {"some": {"from": {"hub_collection": "team/some-0123"}, "model": "bee"}}
    hub.failures = 2
    status, printed = in_process(hub, tmp_path, EXPAND, json.dumps(config))
    assert status == 0 and {"adapter", "full"} <= json.loads(printed.splitlines()[0]).keys()
    hub.failures = 50
    (tmp_path / "results/mine/state/collections/team--some-0123.json").unlink()
    _, printed = in_process(hub, tmp_path, EXPAND, json.dumps(config))
    hub.failures = 0
    assert (
        "collection team/some-0123 could not be loaded from the hub after 5 tries" in printed
        and "list its checkpoints in a table" in printed
    )
