"""Cards and release are opt-in, and a release uploads nothing unless the study says so."""

import json
import zipfile


def test_cards_and_a_dry_release(copied):
    assert not copied.planned()  # neither is a part of the study
    planned = copied.planned("cards")
    kept = 8 + 2 + 1 + 2 + 2  # single; merged-lora, both epochs; merged-full, the last; leave-one-out; trajectories, the last
    assert planned == {"write_card": kept}
    printed = copied.run("release", "atlas_zip", "--config", "release={space: your-name/atlas}")
    record = json.loads(copied.result("release.json").read_text())
    assert not record["uploaded"] and record["private"] and not record["addresses"] and len(record["checkpoints"]) == planned["write_card"]
    names = {entry["repository"] for entry in record["checkpoints"]}
    assert "your-name/small-llama-strings-spelling-lora-epoch-2" in names
    assert "and the atlas as Space your-name/atlas would be uploaded" in printed
    assert {"index.html", "README.md", "data/study.js"} <= set(record["space"]["files"])
    with zipfile.ZipFile(copied.result("atlas.zip")) as packed:
        assert {"small-atlas/index.html", "small-atlas/data/study.js"} <= set(packed.namelist()) and packed.testzip() is None
    assert str(copied.path).encode() not in copied.result("atlas.zip").read_bytes()
    adapter = next(entry for entry in record["checkpoints"] if "spelling-lora" in entry["repository"])
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= set(adapter["files"])
    card = copied.result("runs/llama-strings/spelling/lora/epoch-2/card.md").read_text()
    assert "LoRA adapter (rank 8) of llama-strings" in card and card.count("| exact_match | 12 |") + card.count("| acc | 12 |") == 3
    assert not copied.planned()


def test_an_upload_needs_a_namespace(copied):
    copied.study["release"] = {"upload": True}
    copied.write(copied.study)
    assert "upload needs a namespace" in copied.run("-n", "release", ok=False)


def test_a_branch_is_named_in_a_dry_run_and_refused_in_a_release(copied):
    copied.study["models"]["llama-strings"] = {
        "hub": "team/model",
        "revision": "main",
        "family": "llama",
        "language": "en",
        "dtype": "float32",
    }
    copied.write(copied.study)
    branch = "models.llama-strings.revision: a branch or tag, whose content may change; `make pin STUDY=...` writes the commits"
    assert branch in copied.run("-n")
    printed = copied.run("-n", "release", ok=False)
    assert f"{branch}. A release must be possible to make again" in printed and "Traceback" not in printed and ".smk" not in printed
