"""Two engines on one checkpoint: agreement by item, differences of likelihoods, and ties."""

import json
from pathlib import Path

import polars as pl
import pytest

from helpers.completions_server import VERSION, serving
from helpers.plan_study import STUDY
from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import compare_backends
from sft_atlas.evaluate.inputs import EvaluateInputs
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.study import study as studies
from sft_atlas.study.paths import Paths
from sft_atlas.study.schema import Endpoint, Template

SETTINGS = {"template": Template().model_dump_json(), "max_length": 256, "max_new_tokens": 8}


def test_transformers_with_and_without_continuous_batching_agree_on_every_item(tiny_base, tmp_path, run_script, capsys):
    items = [{"instruction": f"Spell {word}.", "answer": word, "choices": [word, "b"], "label": 0} for word in ("lemon", "a fox", "12")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    files = [BenchmarkFiles(name, ROOT / f"config/benchmarks/{name}.yaml", tmp_path / "items.jsonl") for name in ("generate", "choice")]
    SuiteFile("tasks", files).write(tmp_path / "suite.json")
    keys = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": tmp_path / "suite.json", "base": tiny_base}
    run_script(compare_backends, backends=("hf", "hf-paged"), **keys, **SETTINGS, state=tmp_path / "state", output=tmp_path / "backends.md")
    text = (tmp_path / "backends.md").read_text()
    assert "tiny/base/base, epoch 0. 1: hf, transformers 5" in text and "2: hf-paged, transformers 5" in text
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| generate") or line.startswith("| choice")
    ]
    assert [row[:4] for row in cells] == [["generate", "3", "3", "3"], ["choice", "3", "3", "3"]]
    assert cells[0][6:] == ["-", "-"] and float(cells[1][6]) < 1e-4 and cells[1][7] == "-"
    assert "Items whose" not in text and text.strip() in capsys.readouterr().out + text


def test_an_item_that_differs_is_shown_with_what_decided_it():
    def frame(lemon, fox):
        rows = [
            ("pick", 0, json.dumps({" x": lemon, " y": -2.0}), " x" if lemon > -2 else " y", float(lemon > -2)),
            ("say", 0, fox, fox, 1.0),
        ]
        return pl.DataFrame(rows, ["benchmark", "item", "output", "extracted", "score"], orient="row")

    lines = compare_backends.page(frame(-1.875, "1\n2"), frame(-2.5, "1\n2"))
    row = next(line for line in lines if line.startswith("| pick"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["pick", "1", "0", "0", "1.0000", "0.0000", "0.62", "0.12"]
    assert any("| pick" in line and "x (1.0)" in line and "y (0.0)" in line for line in lines)
    assert not any(line.startswith("| say") and "1 2" in line for line in lines)


def asked(**settings):
    config = json.loads(json.dumps(STUDY)) | {"compare_backends": settings}
    return EvaluateInputs(studies.from_config(config, "small.yaml"), Paths("results/x"))


def test_the_checkpoint_is_by_default_the_first_base_model_and_by_name_any():
    assert vars(asked().compared) == {
        "model": "ant", "dataset": "base", "recipe": "base", "epoch": 0, "suite": "short", "backends": ["hf", "hf-paged"],
    }  # fmt: skip
    one = asked(dataset="red", recipe="full", epoch=5)
    assert one.compared.epoch == 5 and one.comparison_files(None)["weights"] == "results/x/runs/ant/red/full/epoch-5/weights"
    assert asked(dataset="red", recipe="full").compared.epoch == 10
    assert asked(backends=["hf", "vllm"]).comparison_environment(None) == "../envs/vllm.yaml"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "long"}, r"compare_backends.suite: 'long' is no suite without a judge \(short\)"),
        ({"dataset": "red"}, "ant/red/base is no checkpoint of the study"),
        ({"backends": ["hf", "endpoint"]}, "suite 'short' names no server; give it an `endpoint`"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        _ = asked(**settings).compared


STORIES = Path("/work/shared/weights/stories260K")


@pytest.mark.parametrize("trained", [False, pytest.param(True, marks=pytest.mark.skipif(not STORIES.is_dir(), reason=f"needs {STORIES}"))])
def test_a_server_in_a_process_of_its_own_is_compared_with_transformers(tiny_base, tmp_path, run_script, trained):
    if trained:
        tiny_base = tmp_path / "model.json"
        tiny_base.write_text(json.dumps({"name": "tiny", "path": str(STORIES), "dtype": "float32", "trust_remote_code": False}))
    base = ModelFolder.read(tiny_base)
    items = [{"instruction": f"Spell {word}.", "answer": word, "choices": [word, "b"], "label": 0} for word in ("lemon", "12")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    files = [BenchmarkFiles(name, ROOT / f"config/benchmarks/{name}.yaml", tmp_path / "items.jsonl") for name in ("generate", "choice")]
    SuiteFile("tasks", files).write(tmp_path / "suite.json")
    keys = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": tmp_path / "suite.json", "base": tiny_base}
    with serving({"tiny": load_model(base)}, load_tokenizer(base)) as url:
        server = Endpoint(url=url, model="{model}", dtype="float32", timeout=20).model_dump_json()
        run_script(
            compare_backends, backends=("hf", "endpoint"), endpoint=server, **keys, **SETTINGS, state=tmp_path / "state", output=tmp_path / "page.md"
        )  # fmt: skip
    text = (tmp_path / "page.md").read_text()
    assert f"2: endpoint, tiny-server {VERSION}, float32" in text and "Items whose" not in text
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(("| generate", "| choice"))
    ]
    assert [row[:4] for row in rows] == [["generate", "2", "2", "2"], ["choice", "2", "2", "2"]]
    assert float(rows[1][6]) < 1e-4
