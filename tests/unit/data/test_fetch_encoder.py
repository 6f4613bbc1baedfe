"""The sentence encoder from a small hub on this machine."""

from helpers.hub_server import COMMIT, fetch


def test_a_sentence_encoder_comes_the_same_way(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address, script="fetch_encoder")
    assert status == 0, log
    assert "model.safetensors" in manifest["sha256"] and manifest["provenance"]["settings"]["commit"] == COMMIT
