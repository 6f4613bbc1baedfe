"""Cards and release are opt-in, and a release uploads nothing unless the study says so."""

import json


def test_cards_and_a_dry_release(copied):
    assert not copied.planned()  # neither is a part of the study
    planned = copied.planned("cards")
    kept = 8 + 2 + 1 + 2 + 2  # single; merged-lora, both epochs; merged-full, the last; leave-one-out; trajectories, the last
    assert planned == {"write_card": kept}
    printed = copied.run("release")
    record = json.loads(copied.result("release.json").read_text())
    assert not record["uploaded"] and record["private"] and not record["addresses"] and len(record["checkpoints"]) == planned["write_card"]
    names = {entry["repository"] for entry in record["checkpoints"]}
    assert "your-name/small-llama-strings-spelling-lora-epoch-2" in names
    assert "would be uploaded" in printed
    adapter = next(entry for entry in record["checkpoints"] if "spelling-lora" in entry["repository"])
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= set(adapter["files"])
    card = copied.result("runs/llama-strings/spelling/lora/epoch-2/card.md").read_text()
    assert "LoRA adapter (rank 8) of llama-strings" in card and card.count("| exact_match | 12 |") + card.count("| acc | 12 |") == 3
    assert not copied.planned()


def test_an_upload_needs_a_namespace(copied):
    copied.study["release"] = {"upload": True}
    copied.write(copied.study)
    assert "upload needs a namespace" in copied.run("-n", "release", ok=False)
