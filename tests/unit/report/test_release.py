"""A release says what it would upload, and uploads exactly that."""

import json

import pytest

from helpers.damage import invert
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import hash_weights
from sft_atlas.report import release
from sft_atlas.study.schema import Release


@pytest.fixture
def checkpoint(tmp_path):
    """A finished checkpoint with its card; returns the card."""
    (tmp_path / "base").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "model.safetensors", "config.json"):
        (tmp_path / "base" / file).write_text(f"base {file}")
    (tmp_path / "model.json").write_text(json.dumps({"path": str(tmp_path / "base")}))
    inputs = {"base": {"path": str(tmp_path / "model.json")}}
    entry = {"model": "llama", "dataset": "math", "recipe": "full", "inputs": inputs}
    folder = tmp_path / "run/epoch-2"
    (folder / "weights").mkdir(parents=True)
    (folder.parent / "train.json").write_text(json.dumps(entry))
    for file in ("model.safetensors", "config.json", "README.md", "optimizer.pt"):
        (folder / "weights" / file).write_text(f"tuned {file}")
    (folder / "card.md").write_text("card")
    return folder / "card.md"


def test_what_is_uploaded_is_weights_tokenizer_and_card(checkpoint):
    planned = release.upload("me", "paper", checkpoint)
    assert planned.repository == "me/paper-llama-math-full-epoch-2"
    assert {file: path.read_text() for file, path in planned.files.items()} == {
        "tokenizer.json": "base tokenizer.json", "tokenizer_config.json": "base tokenizer_config.json", "model.safetensors": "tuned model.safetensors",
        "config.json": "tuned config.json", "README.md": "card",
    }  # fmt: skip
    assert planned.size == sum(len(path.read_text()) for path in planned.files.values())


def test_an_upload_is_one_commit_per_checkpoint(checkpoint):
    calls = []

    class Api:
        def create_repo(self, repository, private, exist_ok):
            calls.append((repository, private, exist_ok))

        def create_commit(self, repository, operations, commit_message):
            calls.append((repository, sorted(operation.path_in_repo for operation in operations)))
            return f"https://hub/{repository}"

    planned = release.upload("me", "paper", checkpoint)
    assert release.send([planned], Api(), private=True) == ["https://hub/me/paper-llama-math-full-epoch-2"]
    assert calls == [(planned.repository, True, True), (planned.repository, sorted(planned.files))]


def test_what_cannot_be_released_is_refused(checkpoint):
    with pytest.raises(AtlasError, match="cannot be called"):
        release.upload("me", "x" * 90, checkpoint)
    (checkpoint.parent / "weights/model.safetensors").unlink()
    with pytest.raises(AtlasError, match="holds no safetensors"):
        release.upload("me", "paper", checkpoint)


def test_damaged_weights_are_not_released(checkpoint):
    record, weights = checkpoint.parents[1] / "train.json", checkpoint.parent / "weights"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"weights_sha256": {"2": hash_weights(weights)}}))
    release.upload("me", "paper", checkpoint)
    invert(weights / "model.safetensors")
    with pytest.raises(AtlasError, match=r"model.safetensors is damaged: .* leave it out of the release"):
        release.upload("me", "paper", checkpoint)


def test_nothing_is_uploaded_unless_asked_and_named():
    assert not Release().upload and Release().private
    with pytest.raises(ValueError, match="upload needs a namespace"):
        Release(upload=True)
