"""A release says what it would upload, and uploads exactly that."""

import json

import pytest

from helpers import hub_server
from helpers.damage import invert
from sft_atlas.core import job
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


# ---------------------------------------------------------------- the atlas as a Space


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_server.serving(hub_server.Spaces) as running:
        yield running


def api(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.address, token=hub_server.SECRET)


@pytest.fixture
def atlas(tmp_path):
    for name, text in {"index.html": "<p>one</p>", "data/study.js": "atlas"}.items():
        (tmp_path / "atlas" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "atlas" / name).write_text(text)
    return tmp_path / "atlas/index.html"


def test_a_space_is_static_and_holds_the_atlas_and_no_older_file(atlas, hub):
    hub.stored |= {"old.html": b"x", ".gitattributes": b"y"}
    shown = release.pages(atlas, "small")
    assert release.send_pages("team/atlas", shown, api(hub), private=True) == f"{hub.address}/spaces/team/atlas"
    (made,) = hub.created
    assert made == {"name": "atlas", "organization": "team", "type": "space", "sdk": "static"} | {
        key: made[key] for key in ("private", "visibility") if key in made
    }
    assert made.get("private") is True or made.get("visibility") == "private"
    assert hub.stored == {**shown, ".gitattributes": b"y"} and hub.stored["index.html"] == b"<p>one</p>"
    assert hub.stored["README.md"] == b'---\ntitle: "small (sft-atlas)"\nsdk: "static"\napp_file: "index.html"\n---\n'
    assert hub.tokens == {f"Bearer {hub_server.SECRET}"}


def test_a_space_that_the_hub_refuses_is_an_error_with_a_remedy(atlas, hub):
    with pytest.raises(AtlasError, match=r"the hub did not take someone/atlas: (?s:.*)hf auth login") as raised:
        release.send_pages("someone/atlas", release.pages(atlas, "small"), api(hub), private=True)
    assert hub_server.SECRET not in str(raised.value) and not hub.stored


@pytest.mark.parametrize("upload", [False, True])
def test_nothing_is_sent_unless_the_study_says_upload(atlas, hub, upload, monkeypatch, tmp_path):
    import huggingface_hub

    made = api(hub)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    words = [
        "--study",
        "small",
        "--namespace",
        "you",
        "--space",
        "team/atlas",
        "--atlas",
        str(atlas),
        "--output",
        str(tmp_path / "release.json"),
    ]
    release.main(job.parser(release).parse_args([*words, *(["--upload"] if upload else [])]))
    record = json.loads((tmp_path / "release.json").read_text())
    assert record["uploaded"] is upload and bool(hub.stored) is upload and bool(record["addresses"]) is upload
    assert record["space"]["files"] == ["README.md", "data/study.js", "index.html"] and record["checkpoints"] == []


def test_checkpoints_of_others_are_left_out_with_a_sentence(tmp_path, caplog):
    names = [f"theirs-{number}" for number in range(12)]
    words = ["--study", "small", "--namespace", "you", "--not-ours", *names, "--output", str(tmp_path / "release.json")]
    release.main(job.parser(release).parse_args(words))
    record = json.loads((tmp_path / "release.json").read_text())
    assert record["left_out"] == names and record["checkpoints"] == []
    assert "left out, as others trained them: theirs-0, " in caplog.text and "and 2 more; where their licences allow" in caplog.text


def test_the_space_is_off_by_default_and_stands_without_checkpoints():
    assert Release().space is None and not Release(space="me/atlas").upload
    assert Release(space="me/atlas", upload=True, checkpoints=False)
    with pytest.raises(ValueError, match="needs a namespace"):
        Release(space="me/atlas", upload=True)
    with pytest.raises(ValueError, match="without checkpoints needs a space"):
        Release(checkpoints=False)
    with pytest.raises(ValueError, match="pattern"):
        Release(space="atlas")
