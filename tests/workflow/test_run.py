"""The small study from end to end."""

import base64
import json
import re
import shutil

import polars as pl
import yaml

from helpers import atlas as atlases
from sft_atlas import load
from sft_atlas.core.provenance import ROOT
from sft_atlas.report.figures import FIGURES
from sft_atlas.tables import documented


def test_every_declared_result_exists(finished):
    for ending in ("pdf", "png"):
        assert len(list(finished.result("figures").glob(f"*.{ending}"))) == len(FIGURES)
    assert "# Findings of the study small" in finished.result("findings.md").read_text()
    assert "Findings of the study small" in finished.result("atlas/index.html").read_text()
    own = atlases.unpacked(finished.result("atlas"), "checkpoint/2")
    assert "<h2>Prompt</h2>" in own["card"] and ["method", "full"] in own["settings"] and own["scores"]["n"] == [12, 12, 12]
    assert any(loss for _, parts in own["preflight"]["samples"] for _, loss in parts)
    scores = pl.read_parquet(finished.result("tables/scores.parquet"))
    assert scores.select("model", "dataset", "recipe", "epoch").unique().height == 2 + 8 + 2 * 2 + 2 + 2 * 2
    assert scores["score"].is_between(0, 1).all() and (scores["n"] == 12).all()


def test_the_log_of_a_job_says_what_it_did(finished):
    log = finished.result("logs/train/llama-strings/spelling/full.log").read_text()
    assert "device cpu" in log and "6 steps" in log and "tokens/s" in log
    assert "\r" not in finished.printed


def test_nothing_is_to_be_done_afterwards_for_the_study_and_every_stage(finished):
    assert not finished.planned("all", "data", "train", "scores", "tables", "figures")


def test_provenance_stands_beside_the_weights(finished):
    record = json.loads(finished.result("runs/llama-strings/spelling/lora/train.json").read_text())
    assert record["settings"]["learning_rate"] == 5e-3 and record["settings"]["seed"] == 0
    assert record["steps"] == 3 * 2 and record["samples"] == 24 and record["dropped_overlong"] == 0
    assert record["versions"]["torch"] and set(record["code"]) == {"commit", "dirty"} and record["device"] == "cpu"
    assert len(record["inputs"]["data"]["sha256"]) == 64 and record["weights_sha256"]["2"]["adapter_model.safetensors"]


def test_adapters_stay_and_earlier_full_weights_go(finished):
    weights = finished.result("runs/qwen3-numbers/all")
    assert (weights / "merged-lora/epoch-1/weights/adapter_model.safetensors").exists()
    assert not (weights / "merged-lora/epoch-1/weights/model.safetensors").exists()
    assert not (weights / "merged-full/epoch-1/weights").exists()
    assert (weights / "merged-full/epoch-2/weights/model.safetensors").exists()
    assert not list(finished.result("state").rglob("*.safetensors"))


def test_the_preflight_shows_the_loss_mask(finished):
    page = finished.result("runs/llama-strings/spelling/full/preflight.txt").read_text()
    assert page.count("###Answer:[[ ") == 3 and page.count("<eos>]]") == 3
    assert "BOS per sample     1 " in page and "EOS per sample     1 " in page


def test_merged_sets_hold_the_samples_of_their_members(finished):
    rows = {
        name: pl.read_parquet(finished.result(f"data/{name}/24/train.parquet"))
        for name in ("arithmetic", "spelling", "all", "without-spelling")
    }
    assert rows["all"].equals(pl.concat([rows["arithmetic"], rows["spelling"]]))
    assert rows["without-spelling"].equals(rows["arithmetic"])
    larger = pl.read_parquet(finished.result("data/spelling/48/train.parquet"))
    assert larger.head(24).equals(rows["spelling"])


def test_advice_measures_a_new_base_model_and_a_new_set_and_says_when_it_cannot_rank(finished, tmp_path):
    folder = finished.copy(tmp_path / "asked")
    (folder.path / "mine.jsonl").write_text("".join(json.dumps({"instruction": f"add {i}", "response": str(i)}) + "\n" for i in range(30)))
    model = folder.result("models/qwen3-numbers/weights").rename(folder.path / "new-model")
    shutil.copytree(model, folder.result("models/qwen3-numbers/weights"))
    printed = folder.run("advise", "--config", "advise={model: new-model, datasets: [spelling, mine.jsonl]}")
    assert "No ranking: this needs gains of at least 3 base models" in printed
    assert folder.result("advice/new-model/advice.md").exists() and folder.result("perplexity/new-model/mine.parquet").exists()
    assert set(pl.read_parquet(folder.result("advice/new-model/similarity.parquet"))["dataset"]) == {"arithmetic", "spelling", "mine"}
    assert not folder.planned()  # the study is as it was


def test_a_design_is_proposed_and_its_block_fits_into_the_study(empty):
    printed = empty.run("design", "--config", "design={question: seeds, effect: 0.5, budget: 20, seed_sd: 1.5}")
    assert "Recommended: " in printed and "stated: seed_sd" in printed
    block = empty.result("design/seeds/block.yaml")
    seeds = yaml.safe_load(block.read_text())["blocks"]["design-seeds"]["seeds"]
    planned = empty.planned("design-seeds", "--configfile", "study.yaml", str(block))
    assert len(seeds) > 1 and all(planned[f"train_full-seed-{seed}"] for seed in seeds[1:])
    asked = empty.run("-n", "design", ok=False)
    assert "name a question, a difference in points and a budget" in asked and "Traceback" not in asked


def test_the_report_has_every_figure_with_its_caption(finished, tmp_path):
    page = tmp_path / "report.html"
    finished.run("--report", str(page))
    text = page.read_text()
    assert all(f"{name}.png" in text for name in FIGURES) and 'findings.md": {' not in text
    assert FIGURES["layer_gain"].caption in text and all(f'"{figure.category}"' in text for figure in FIGURES.values())
    # What the report's viewer opens in the page, where it would download Markdown.
    shown = [base64.b64decode(part) for part in re.findall(r"data:text/html;[^,\"]*base64,([\w+/=]+)", text)]
    assert any(b"<h1>Findings of the study small</h1>" in part and b"<li>" in part for part in shown)


def test_the_finished_run_can_be_looked_at_without_a_lock(finished):
    lock = finished.path / ".snakemake/locks/0.output.lock"  # of another call
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/small/findings.md\n")
    printed = finished.run("watch")
    assert "small: finished" in printed and "nothing is left" in printed and "lora: " in printed
    assert lock.exists()
    lock.unlink()
    assert "Study small" in finished.result("watch.html").read_text()


def test_the_report_shows_the_page_on_training_where_there_is_one(copied, tmp_path):
    page = copied.result("correctness.md")
    page.write_text("# Training invariants\n")
    copied.run("correctness", "--touch")
    copied.run("all", "correctness", "--report", str(tmp_path / "report.html"))
    assert "correctness.md" in (tmp_path / "report.html").read_text()


def test_no_training_instruction_is_a_benchmark_item(finished):
    overlap = pl.read_parquet(finished.result("tables/overlap.parquet"))
    assert len(overlap) == 3 * 3 and (overlap["shared"] == 0).all() and (overlap["benchmark_items"] == 12).all()


def test_equal_weights_without_the_warm_start(finished, tmp_path):
    cold = finished.copy(tmp_path / "cold")
    target = "results/small/runs/llama-strings/spelling/full/train.json"
    cold.run(target, "--force", SFT_ATLAS_WARM="0")
    one, other = (json.loads((folder.path / target).read_text()) for folder in (finished, cold))
    assert one["weights_sha256"] == other["weights_sha256"]


def test_results_are_read_in_python_by_the_notebook_and_as_csv(copied, monkeypatch):
    copied.run("export")
    atlas = load(copied.path / "results" / "small")
    for name in atlas.tables:  # each with its documented columns and types
        assert pl.read_csv(copied.result(f"csv/{name}.csv"), infer_schema=False).height == atlas.table(name).height
    assert set(documented.TABLES) == set(atlas.tables) and not atlas.missing
    monkeypatch.chdir(copied.path)
    monkeypatch.setenv("STUDY", "small")
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = [cell for cell in json.loads((ROOT / "docs" / "explore.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["points"].height and names["both"].height and names["means"]["base_models"].max() == 2
