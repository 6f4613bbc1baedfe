"""Base models from a small hub on this machine: which files come, retries, and errors that say what to do."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.damage import invert as flip
from helpers.hub_server import COMMIT, FILES, MODEL, SECRET, fetch
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, write_json
from sft_atlas.data import fetch_model
from sft_atlas.models.base_model import ModelFolder


def test_a_model_comes_without_pickles_code_or_second_copies_and_with_its_commit(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address, load=True)
    assert status == 0, log
    assert set(manifest["sha256"]) == set(MODEL)
    assert manifest["sha256"]["model.safetensors"] == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert manifest["provenance"]["settings"]["commit"] == COMMIT
    assert "revision 'main' is not a commit" in log
    assert small_hub.tokens == {f"Bearer {SECRET}"} and SECRET not in log + json.dumps(manifest)


def test_code_comes_along_only_where_the_study_says_so(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address, revision=COMMIT, trust_remote_code=True)
    assert status == 0, log
    assert "modeling_own.py" in manifest["sha256"] and "is not a commit" not in log


def test_a_hub_that_fails_is_asked_again_and_what_is_there_is_kept(small_hub, tmp_path):
    small_hub.failures = 2
    status, _, log = fetch(tmp_path, small_hub.address)
    assert status == 0, log
    loads = {path: count for (method, path), count in small_hub.seen.items() if method == "GET" and path.endswith("model.safetensors")}
    fetch(tmp_path, small_hub.address)
    assert loads == {path: small_hub.seen["GET", path] for path in loads}, "loaded again although it was there"


@pytest.mark.parametrize(
    ("repository", "revision", "said"),
    [
        ("team/gated", "main", "the repository is gated; accept its licence at https://huggingface.co/team/gated, and set HF_TOKEN"),
        ("team/nothing", "main", "does not exist on the hub, or is private"),
        ("team/model", "v9", "does not exist on the hub, or is private"),
    ],
)
def test_what_waiting_does_not_help_is_said_at_once(small_hub, tmp_path, repository, revision, said):
    status, manifest, log = fetch(tmp_path, small_hub.address, repository, revision)
    assert status == 1 and manifest is None
    assert said in log and "Traceback" not in log and "try 2" not in log
    assert SECRET not in log


def test_a_hub_that_is_not_there_ends_with_advice(tmp_path):
    status, manifest, log = fetch(tmp_path, "http://127.0.0.1:9", revision=COMMIT, tries=1)
    assert status == 1 and manifest is None
    assert "could not be loaded from the hub after 1 tries" in log and "give `path:` a local copy" in log and "Traceback" not in log


# ---------------------------------------------------------------- folders that do not load


@pytest.fixture
def register(run_script, tiny_base, tmp_path):
    """A function that changes a copy of the tiny model's folder and has the job register it."""

    def change_and_fetch(change):
        folder = shutil.copytree(ModelFolder.read(tiny_base).path, tmp_path / "tiny")
        change(folder)
        entry = json.dumps({"family": "llama", "language": "en", "dtype": "float32", "path": str(folder)})
        run_script(fetch_model, name="tiny", entry=entry, path=folder, folder=tmp_path / "none", output=tmp_path / "model.json")
        return ModelFolder.read(tmp_path / "model.json")

    return change_and_fetch


def stored(change):
    """The weights again, after ``change`` from one dictionary of tensors to another."""

    def rewrite(folder: Path):
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})

    return rewrite


def settings(name, **changes):
    """Other values in a JSON file of the folder."""

    def rewrite(folder: Path):
        file = folder / name
        file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))

    return rewrite


def retokenized(change):
    """The tokenizer again, after ``change`` has altered it."""

    def rewrite(folder: Path):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        change(tokenizer)
        tokenizer.save_pretrained(folder)

    return rewrite


def with_value(tensors, name, value):
    changed = tensors[name].clone()
    changed.view(-1)[-1] = value
    return tensors | {name: changed}


def sharded(folder: Path):
    """Two files and an index, of which the second is lost."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in names if names[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "model-00002-of-00002.safetensors").unlink()


def renamed(new):
    return lambda folder: (folder / "model.safetensors").rename(folder / new)


def cut(folder: Path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 146136\n"
FAULTS = {
    "LFS pointer": (lambda f: (f / "model.safetensors").write_text(POINTER), "model.safetensors is a Git LFS pointer, not the file itself"),
    "LFS pointer as tokenizer": (lambda f: (f / "tokenizer.json").write_text(POINTER), "tokenizer.json is a Git LFS pointer"),
    "missing shard": (sharded, "lacks 1 of the 2 files in model.safetensors.index.json, the first is model-00002-of-00002.safetensors"),
    "consolidated only": (renamed("consolidated.safetensors"), "it has consolidated.safetensors"),
    "pickle only": (renamed("pytorch_model.bin"), "it has pytorch_model.bin. Pickles are not loaded"),
    "cut off": (cut, "is not a complete safetensors file"),
    "adapter": (settings("adapter_config.json", base_model_name_or_path="someone/base"), "is an adapter of someone/base"),
    "prefix": (
        stored(lambda s: {f"_orig_mod.{k}": v for k, v in s.items()}),
        "with the prefix '_orig_mod.' of a wrapped or compiled model",
    ),
    "missing layer": (stored(lambda s: {k: v for k, v in s.items() if ".layers.1." not in k}), "the files lack 9 tensors: model.layers.1."),
    "layer too many": (settings("config.json", num_hidden_layers=1), "the architecture does not have 9 tensors: model.layers.1."),
    "other shape": (
        settings("config.json", intermediate_size=64),
        "differ in the shape of 6 tensors, the first is model.layers.0.mlp.down_proj",
    ),
    "unknown architecture": (settings("config.json", model_type="nosuch"), "transformers cannot load .*tiny: ValueError: .*`nosuch`"),
    "no JSON": (lambda f: (f / "config.json").write_text('{"a": '), "config.json is not JSON"),
    "NaN": (stored(lambda s: with_value(s, "model.norm.weight", float("nan"))), "model.norm.weight in .* has values that are not finite"),
    "infinity": (stored(lambda s: with_value(s, "lm_head.weight", float("-inf"))), "lm_head.weight in .* has values that are not finite"),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        "cannot load the tokenizer in .*; it needs tokenizer.json or tokenizer.model",
    ),
    "token outside": (
        retokenized(lambda t: t.add_tokens(["<extra>", " pears"])),
        "has ids up to 321 (' pears'), but the embedding has 320 rows",
    ),
    "padding outside": (retokenized(lambda t: t.add_special_tokens({"pad_token": "[PAD]"})), "has ids up to 320 ('[PAD]')"),
    "padding outside in the config": (settings("config.json", pad_token_id=320), "config.json: pad_token_id is 320, but vocab_size is 320"),
    "EOS outside": (settings("generation_config.json", eos_token_id=[2, 999]), "generation_config.json: eos_token_id is 999"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_would_not_load_as_it_is_is_refused_in_one_line(register, tmp_path, fault):
    change, said = FAULTS[fault]
    with pytest.raises(AtlasError, match=rf"models\.tiny: .*{re.escape(said).replace(re.escape('.*'), '.*')}") as caught:
        register(change)
    assert "\n" not in str(caught.value) and not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        stored(lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()}),
        stored(lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()}),
        lambda folder: (settings("config.json", tie_word_embeddings=True)(folder), stored(lambda t: without(t, "lm_head.weight"))(folder)),
    ],
    ids=["plain", "other type", "names without model.", "tied"],
)
def test_a_folder_that_loads_is_taken(register, change):
    assert register(change).name == "tiny"


def without(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


# ---------------------------------------------------------------- fetched again


def test_a_file_that_is_not_the_hubs_is_an_error_and_comes_anew_after_the_remedy(small_hub, tmp_path):
    assert fetch(tmp_path, small_hub.address, revision=COMMIT)[0] == 0
    flip(tmp_path / "weights/model.safetensors")
    (tmp_path / "model.json").unlink()
    status, manifest, log = fetch(tmp_path, small_hub.address, revision=COMMIT)
    assert status == 1 and manifest is None and "Traceback" not in log
    assert re.search(
        r"model\.safetensors is not the file of team/model at 0123\w+: its git-sha1 is \w+, the hub's \w+; delete \S+weights and run", log
    )
    shutil.rmtree(tmp_path / "weights")
    assert fetch(tmp_path, small_hub.address, revision=COMMIT)[0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"commit": "f" * 40}, f"main of team/model was commit {'f' * 40} when it was fetched before, and is {COMMIT} now"),
        ({"sha256": {"config.json": "0" * 64}}, f"config.json of team/model at {COMMIT} is not what was fetched before"),
    ],
)
def test_a_branch_that_moved_and_a_commit_with_other_content_are_errors(small_hub, tmp_path, change, said):
    assert fetch(tmp_path, small_hub.address)[0] == 0
    record = tmp_path / "fetched.json"
    write_json(record, read_json(record) | change)
    status, _, log = fetch(tmp_path, small_hub.address)
    assert status == 1 and said in log and f"delete {record}" in log and "Traceback" not in log
    record.unlink()
    assert fetch(tmp_path, small_hub.address)[0] == 0
