"""Base models from a small hub on this machine: which files come, retries, and errors that say what to do."""

import hashlib
import json

import pytest

from helpers.hub_server import COMMIT, FILES, SECRET, fetch


def test_a_model_comes_without_pickles_code_or_second_copies_and_with_its_commit(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address)
    assert status == 0, log
    assert set(manifest["sha256"]) == {"config.json", "tokenizer.json", "model.safetensors"}
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
