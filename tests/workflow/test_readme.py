"""What the README tells users to write works as it stands there."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import yaml

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def additions():
    """The study file of the README, to be laid over another one."""
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    return yaml.safe_load(block)


def test_the_additions_of_the_readme_run(copied):
    """On the part of the finished study that they touch; which other runs they would change is counted in dry runs (test_changes)."""
    for section, entries in additions().items():
        copied.study[section] |= entries
    copied.study["recipes"]["lora-32"]["rows"] = 24  # the small study's sets have no 256 rows
    copied.write(copied.study)
    my = copied.path / "my"
    my.mkdir()
    capitals = [{"question": f"What is the capital of country {i}?", "answer": f"City {i}"} for i in range(20)]
    (my / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in capitals))
    trivia = [{"question": f"Which is larger than {i}?", "a": str(i - 1), "b": str(i + 1), "c": str(i), "answer": "B"} for i in range(12)]
    (my / "trivia.jsonl").write_text("".join(json.dumps(row) + "\n" for row in trivia))
    shutil.copytree(copied.result("models/llama-strings/weights"), my / "model")

    merged = "results/small/data/all/24/train.parquet"
    part = ("tables", "results/small/figures/gains.pdf", "results/small/findings.md")
    part += ("--config", "select={models: [llama-strings, my-model], datasets: [capitals, spelling], recipes: [full, lora, lora-32]}")
    copied.run(merged)
    copied.run(*part)

    scores = pl.read_parquet(copied.result("tables/scores.parquet"))
    trained = set(scores.select("model", "dataset", "recipe").unique().iter_rows())
    assert ("llama-strings", "capitals", "lora") in trained
    assert ("my-model", "spelling", "full") in trained and ("my-model", "base", "base") in trained
    assert ("llama-strings", "spelling", "lora-32") in trained
    assert json.loads(copied.result("runs/llama-strings/spelling/lora-32/train.json").read_text())["settings"]["lora"]["rank"] == 32
    of_trivia = scores.filter(pl.col("benchmark") == "trivia")
    assert of_trivia.height == scores.select("model", "dataset", "recipe", "epoch").unique().height and (of_trivia["n"] == 12).all()
    joined = pl.read_parquet(copied.path / merged)["instruction"]
    assert joined.str.starts_with("What is the capital").sum() == 20 < len(joined) == 24 + 24 + 20
    assert not copied.planned(*part)
    # A folder of one's own is used as it is: equal weights, equal scores.
    pair = scores.filter(pl.col("dataset") == "base").sort("benchmark", "model")
    assert pair.filter(pl.col("model") == "my-model")["score"].equals(pair.filter(pl.col("model") == "llama-strings")["score"])
