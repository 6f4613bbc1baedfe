"""The page and the table that show a forecast."""

import io
import json
import re
from dataclasses import asdict

import polars as pl
import pytest

from helpers.plan_study import DEVICE, STUDY, sharded
from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.plan import plan
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.graph import AGAIN, TO_DO, Decision
from sft_atlas.plan.plan import page, plan_table, span
from sft_atlas.study import study as studies
from sft_atlas.study.site import device


def test_runs_that_do_not_fit_are_listed_on_the_page_and_counted_in_the_table(tmp_path):
    one, two = sharded(tmp_path, 1, "h100"), sharded(tmp_path, 2, "h100")  # 16 bytes a parameter: 104 GiB
    assert "**3 runs do not fit into GPU memory** (Test)" in page(one) and "ant/red/full, ant/blue/full" in page(one)
    assert dict(plan_table(one).group_by("kind").agg(pl.sum("too_large")).rows())["train full"] == 3
    assert plan_table(one)["too_large"].sum() == 3 and plan_table(two)["too_large"].sum() == 0 and "do not fit" not in page(two)
    assert "do not fit" not in page(sharded(tmp_path, 1, "cpu")), "a CPU job has the machine's memory"


def test_the_plan_tells_runs_and_seeds_of_each_block(tmp_path):
    config = json.loads(json.dumps(STUDY))
    config["blocks"]["single"]["seeds"] = [0, 1, 2]
    config["blocks"]["more"] = {"models": "*", "datasets": ["red"], "recipes": ["lora"], "seeds": [3]}
    text = page(Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert table[0][:4] == ["block", "runs", "seeds", "checkpoints"]
    assert [row[:4] for row in table[2:6]] == [
        ["single", "12", "3 to 4", "18"], ["merged", "1", "1", "2"], ["more", "1", "4", "1"], ["base models", "0", "-", "0"],
    ]  # fmt: skip


def test_what_cannot_be_forecast_is_a_question_mark_and_no_number(tmp_path):
    config = json.loads(json.dumps(STUDY))
    del config["plan"]["tokens"]["blue"]
    text = page(Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path))
    assert "`?`: the study states too little to forecast measure_perplexity, train full, train lora" in text
    del config["models"]["ant"]["parameters"]
    forecast = Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path)
    assert forecast.disk()["peak"] is None and "base models ?" in page(forecast)
    assert plan_table(forecast)["hours"].null_count() == plan_table(forecast).height


@pytest.mark.parametrize(
    ("hours", "text"), [((0.5, 1.234, 20), "1.2 (0.5 to 20)"), ((1, 1, 1), "1"), ((0, 12345, 123456), "12,000 (0 to 120,000)")]
)
def test_hours_have_two_digits(hours, text):
    assert span(hours) == text


def test_the_command_writes_page_and_table(tmp_path, run_script, monkeypatch):
    """The study comes on standard input: it may be longer than an argument can be."""
    config = json.dumps(
        STUDY | {"plan": STUDY["plan"] | {"device": "h100", "compare": [{"what": "train_gpu_hours", "value": 530, "source": "there"}]}}
    )
    logs = ("train/ant/red/full", "train/ant/blue/full", "merge_datasets/all/1000")
    causes = ("`all` now has 2 sets more (green, white)",)
    decisions = [Decision("train_full", f"{tmp_path}/results/logs/{log}.log", AGAIN, causes) for log in logs[:2]]
    decisions += [Decision("merge_datasets", f"{tmp_path}/results/logs/{logs[2]}.log", AGAIN, causes)]
    decisions += [Decision("fetch_dataset", f"{tmp_path}/results/logs/fetch_dataset/{name}.log", TO_DO) for name in ("green", "white")]
    (tmp_path / "graph.json").write_text(json.dumps([asdict(decision) for decision in decisions]))
    monkeypatch.setattr("sys.stdin", io.StringIO(config))
    run_script(plan, graph=tmp_path / "graph.json", study="-", devices=ROOT / "config/devices.yaml", results=tmp_path / "results")
    text = (tmp_path / "results/plan.md").read_text()
    assert "# Plan of study small" in text and re.search(r"\| training, device-hours \| +\S+ .* \| +530 \| there +\|", text)
    table = pl.read_parquet(tmp_path / "results/plan.parquet")
    assert table.select("kind", "jobs", "done", "to_do", "again").rows() == [
        ("train full", 2, 0, 0, 2),
        ("fetch_dataset", 2, 0, 2, 0),
        ("merge_datasets", 1, 0, 0, 1),
    ]
    assert (table["hours_low"] <= table["hours_high"]).all() and table["hours"].null_count() == 2
    assert re.search(r"2 train full, 1 merge_datasets again\*\*, .* h, because `all` now has 2 sets more \(green, white\)\.", text)
    assert re.search(r"\| all +\| +5 \| +0 \| +2 \| +3 \|", text)


def test_a_device_that_is_not_listed_is_an_error_with_those_that_are():
    with pytest.raises(ConfigError, match=r"plan.device: 'h900' is not in .*devices.yaml \(there are h200"):
        device(ROOT / "config/devices.yaml", "h900", "plan.device")
