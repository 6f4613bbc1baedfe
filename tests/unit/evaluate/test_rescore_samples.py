"""Stored answers scored again: new scores, and what only the model's run could know stays."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import rescore_samples
from sft_atlas.evaluate.lm_eval_runner import run
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile, task_config

KEYS = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": "quizzes"}
OUTPUTS = [" 4", " four", " 9"]  # to 2 + 2, 2 + 2 and 3 * 3


@pytest.fixture
def stored(tmp_path):
    """Scores and samples as an earlier version wrote them: it took "four" for 4, and item 2 was truncated."""
    items = [{"instruction": text, "answer": answer} for text, answer in (("2 + 2", "4"), ("2 + 2", "4"), ("3 * 3", "9"))]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    file = BenchmarkFiles("quiz", ROOT / "config/benchmarks/generate.yaml", tmp_path / "quiz.jsonl")
    SuiteFile("quizzes", [file]).write(tmp_path / "suite.json")
    answers = pl.DataFrame({"benchmark": "quiz", "item": [0, 1, 2], "output": OUTPUTS})
    scores, samples = run(
        rescore_samples.stored_answers(answers), [task_config(file, None)], 0, allow_code=False, scored_by={"backend": "hf"}
    )
    samples = samples.with_columns(score=pl.lit(1.0), prompt=pl.lit("asked"), truncated=pl.Series([False, False, True]))
    scores = scores.with_columns(score=pl.lit(1.0), n_truncated=pl.lit(1, pl.Int64))
    for name, frame in (("scores", scores), ("samples", samples)):
        frame.select(*(pl.lit(value).alias(key) for key, value in KEYS.items()), pl.all()).write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "scores.json").write_text(json.dumps({"backend": "hf", "template_sha256": "f00", "weights": "w", "settings": {"seed": 0}}))
    return tmp_path


@pytest.fixture
def rescored(stored, run_script):
    """The table of changes, with scores and samples replaced."""
    files = {name: stored / f"{name}.parquet" for name in ("scores", "samples")}
    run_script(rescore_samples, **KEYS | {"suite": stored / "suite.json"}, **files, output=stored / "changes.parquet")
    return pl.read_parquet(stored / "changes.parquet")


def test_scores_and_samples_are_replaced_and_the_change_is_recorded(rescored, stored):
    assert rescored.select("benchmark", "score_before", "score", "items_changed").rows() == [("quiz", 1.0, pytest.approx(2 / 3), 1)]
    scores, samples = (pl.read_parquet(stored / f"{name}.parquet") for name in ("scores", "samples"))
    assert samples["score"].to_list() == [1.0, 0.0, 1.0] and samples["output"].to_list() == OUTPUTS
    assert scores["score"].item() == pytest.approx(2 / 3)
    assert all(frame.select(*KEYS).unique().to_dicts() == [KEYS] for frame in (rescored, scores, samples))


def test_what_only_the_generation_knows_is_kept(rescored, stored):
    samples = pl.read_parquet(stored / "samples.parquet")
    assert samples["prompt"].unique().to_list() == ["asked"] and samples["truncated"].to_list() == [False, False, True]
    assert pl.read_parquet(stored / "scores.parquet")["n_truncated"].item() == 1
    record = json.loads((stored / "scores.json").read_text())
    assert (record["template_sha256"], record["generated"]["weights"], record["generated"]["settings"]) == ("f00", "w", {"seed": 0})


def test_other_items_than_those_of_the_samples_are_an_error(stored):
    suite = SuiteFile.read(stored / "suite.json")
    with (stored / "quiz.jsonl").open("a") as file:
        file.write('{"instruction": "1 + 1", "answer": "2"}\n')
    with pytest.raises(AtlasError, match=r"quiz\.jsonl is missing, damaged, or was changed after .*suite\.json was made; restore it"):
        SuiteFile.read(stored / "suite.json")
    scores, samples = (pl.read_parquet(stored / f"{name}.parquet").drop(*KEYS) for name in ("scores", "samples"))
    with pytest.raises(AtlasError, match=r"quiz\.jsonl has 4 items, its samples 3: the items changed"):
        rescore_samples.rescore(samples, scores, suite.benchmarks, 0, allow_code=False)
