"""Collectors: content is trusted, not paths; missing files are reported; gains are paired."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate.scores import standard_error
from sft_atlas.study import paths
from sft_atlas.tables import collect as tables


@pytest.fixture
def tree(written, tmp_path):
    """A copy of the tree that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "tree"))


def checkpoint(root: Path, file: str, model: str = "alder-1b", dataset: str = "arith", recipe: str = "full-256", epoch: int = 3) -> Path:
    tree = paths.Paths(root)
    return Path(tree.fill(tree.checkpoint, model=model, dataset=dataset, recipe=recipe, epoch=epoch)) / file


def rewrite(path: Path, *changes: pl.Expr) -> None:
    pl.read_parquet(path).with_columns(*changes).write_parquet(path)


@pytest.mark.parametrize("table", paths.TABLES)
def test_every_table_has_its_columns_and_no_duplicates(table, small, written):
    collected = tables.collect(small, table, written)
    assert set(tables.COLUMNS[table]) <= set(collected.frame.columns)
    assert collected.missing == []
    assert collected.files == len(paths.result_files(small, table, written))
    assert not collected.frame.is_duplicated().any()


def test_expected_checkpoints_are_bases_and_kept_epochs(small):
    result = paths.checkpoints(small)
    assert len(result) == 2 + 3 * len(small["runs"])
    assert sum(checkpoint.epoch == 0 for checkpoint in result) == 2


def test_representation_is_expected_of_represented_runs_and_their_bases(small, written):
    runs = [{**run, "measure_representation": run["dataset"] == "arith"} for run in small["runs"]]
    assert {source.keys["dataset"] for source in paths.result_files({**small, "runs": runs}, "dimension", written)} == {"base", "arith"}
    runs = [{**run, "measure_representation": False} for run in small["runs"]]
    assert {source.keys["dataset"] for source in paths.result_files({**small, "runs": runs}, "likelihood", written)} == {"base"}


def test_perplexity_is_measured_on_every_unmerged_set_under_every_base_model(small, written):
    pairs = {(source.keys["model"], source.keys["dataset"]) for source in paths.result_files({**small, "runs": []}, "perplexity", written)}
    assert pairs == {(model, dataset) for model in small["models"] for dataset in ("arith", "algebra")}


def test_attributes_come_from_the_study(small, written):
    frame = tables.collect(small, "scores", written).frame
    base = frame.filter(pl.col("epoch") == 0)
    assert set(base["method"]) == {"base"}
    assert base["rows"].null_count() == base.height
    tuned = frame.filter(pl.col("recipe") == "lora-256", pl.col("dataset") == "all")
    assert set(tuned["method"]) == {"lora"}
    assert tuned["blocks"].to_list()[0] == ["merged"]


@pytest.mark.parametrize(
    ("table", "file", "change", "message"),
    [
        ("scores", "scores/short.parquet", pl.lit("birch-1b").alias("model"), "model 'birch-1b' (not 'alder-1b')"),
        ("scores", "scores/long.parquet", pl.lit("short").alias("suite"), "suite 'short' (not 'long')"),
        ("gains", "samples/short.parquet", pl.lit(2).alias("epoch"), "epoch 2 (not 3)"),
        ("layers", "layers.parquet", pl.lit("lora-256").alias("recipe"), "recipe 'lora-256' (not 'full-256')"),
        ("likelihood", "likelihood.parquet", pl.lit(None, dtype=pl.String).alias("dataset"), "dataset None (not 'arith')"),
    ],
)
def test_a_file_with_other_keys_than_its_place_is_an_error(table, file, change, message, small, tree):
    path = checkpoint(tree, file)
    rewrite(path, change)
    with pytest.raises(AtlasError) as error:
        tables.collect(small, table, tree)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_a_file_moved_to_a_wrong_place_is_an_error(small, tree):
    shutil.copy(checkpoint(tree, "dimension.parquet", dataset="algebra"), checkpoint(tree, "dimension.parquet"))
    with pytest.raises(AtlasError, match="dataset 'algebra' \\(not 'arith'\\); it was moved or copied"):
        tables.collect(small, "dimension", tree)


def test_one_wrong_row_among_right_ones_is_an_error(small, tree):
    path = checkpoint(tree, "layers.parquet")
    rewrite(path, pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("birch-1b")).otherwise("model").alias("model"))
    with pytest.raises(AtlasError, match="birch-1b"):
        tables.collect(small, "layers", tree)


def test_a_run_of_other_settings_than_the_studys_is_an_error(small, tree):
    path = tree / "runs" / "alder-1b" / "arith" / "full-256" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": {"learning_rate": 1e-3, "epochs": 3}}))
    meant = {"learning_rate": 1e-4, "epochs": 3}
    study = {**small, "runs": [{**run, "settings": meant} for run in small["runs"]]}
    with pytest.raises(
        AtlasError, match=r"full-256/train.json was trained with other settings than the study has: learning_rate 0.001 \(not 0.0001\)"
    ):
        tables.collect(study, "runs", tree)


def test_train_json_of_another_run_is_an_error(small, tree):
    path = tree / "runs" / "alder-1b" / "arith" / "full-256" / "train.json"
    shutil.copy(tree / "runs" / "birch-1b" / "arith" / "full-256" / "train.json", path)
    with pytest.raises(AtlasError, match="model 'birch-1b'"):
        tables.collect(small, "runs", tree)


def test_missing_files_are_listed_up_to_ten(small, tree):
    for source in paths.result_files(small, "scores", tree)[:12]:
        source.path.unlink()
    with pytest.raises(AtlasError) as error:
        tables.collect(small, "scores", tree)
    assert "12 of " in str(error.value)
    assert str(error.value).count(".parquet") == 10


def test_allowed_missing_files_are_left_out_and_reported(small, tree):
    checkpoint(tree, "scores/short.parquet").unlink()
    full = tables.collect(small, "scores", tree, allow_missing=True)
    assert full.missing == [checkpoint(tree, "scores/short.parquet")]
    gone = full.frame.filter(
        pl.col("dataset") == "arith", pl.col("model") == "alder-1b", pl.col("recipe") == "full-256", pl.col("epoch") == 3
    )
    assert set(gone["suite"]) == {"long"}
    assert full.frame["score"].null_count() == 0


def test_gains_without_a_base_file_are_missing_not_zero(small, tree):
    checkpoint(tree, "samples/short.parquet", dataset="base", recipe="base", epoch=0).unlink()
    frame = tables.collect(small, "gains", tree, allow_missing=True).frame
    assert set(frame.filter(pl.col("model") == "alder-1b")["suite"]) == {"long"}
    assert set(frame.filter(pl.col("model") == "birch-1b")["suite"]) == {"long", "short"}


def test_gain_and_stderr_are_paired(small, written):
    row = (
        tables.collect(small, "gains", written)
        .frame.filter(model="alder-1b", dataset="arith", recipe="full-256", epoch=3, benchmark="order")
        .row(0, named=True)
    )
    base = pl.read_parquet(checkpoint(written, "samples/short.parquet", dataset="base", recipe="base", epoch=0)).filter(benchmark="order")
    tuned = pl.read_parquet(checkpoint(written, "samples/short.parquet")).filter(benchmark="order")
    difference = tuned.sort("item")["score"].to_numpy() - base.sort("item")["score"].to_numpy()
    assert row["gain"] == pytest.approx(difference.mean())
    assert row["stderr"] == pytest.approx(difference.std(ddof=1) / np.sqrt(100))
    assert row["z"] == pytest.approx(row["gain"] / row["stderr"])
    assert (row["n"], row["unscored"], row["metric"]) == (100, 0, "exact_match")
    assert row["score"] - row["base_score"] == pytest.approx(row["gain"])


def test_items_of_one_passage_are_one_unit_of_a_gains_error(small, tree):
    for dataset, recipe, epoch in (("base", "base", 0), ("arith", "full-256", 3)):
        passage = pl.when(pl.col("item") < 60).then(pl.format("passage {}", pl.col("item") // 20)).alias("cluster")
        rewrite(checkpoint(tree, "samples/short.parquet", dataset=dataset, recipe=recipe, epoch=epoch), passage)
    keys = {"model": "alder-1b", "dataset": "arith", "recipe": "full-256", "epoch": 3, "benchmark": "order"}
    row = tables.collect(small, "gains", tree).frame.row(
        by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in keys.items()), named=True
    )
    base, tuned = (
        pl.read_parquet(checkpoint(tree, "samples/short.parquet", **more)).filter(benchmark="order").sort("item")
        for more in ({"dataset": "base", "recipe": "base", "epoch": 0}, {})
    )
    expected, clusters = standard_error((tuned["score"] - base["score"]).to_list(), tuned["cluster"].to_list())
    assert clusters == 3 + 40 and row["n"] == 100 and row["stderr"] == pytest.approx(expected)
    assert row["z"] == pytest.approx(row["gain"] / expected)


def test_gain_does_not_depend_on_the_order_of_items(small, tree, written):
    path = checkpoint(tree, "samples/long.parquet")
    pl.read_parquet(path).sample(fraction=1, shuffle=True, seed=1).write_parquet(path)
    assert tables.collect(small, "gains", tree).frame.equals(tables.collect(small, "gains", written).frame)


@pytest.mark.parametrize(("table", "file"), [("scores", "scores/short.parquet"), ("gains", "samples/short.parquet")])
def test_scores_by_several_engines_are_not_compared_unless_told(small, tree, table, file):
    rewrite(checkpoint(tree, file), pl.lit("vllm").alias("backend"))
    for path in tree.rglob(file):
        if path != checkpoint(tree, file):
            rewrite(path, pl.lit("hf").alias("backend"))
    with pytest.raises(AtlasError, match=r"suite 'short' has scores of several inference engines.*`suites.short.backend`"):
        tables.collect(small, table, tree)
    assert tables.collect(small | {"mix_backends": True}, table, tree).frame.height


def test_z_without_variance_is_zero_or_infinite(small, tree):
    for epoch, dataset, recipe, score in ((0, "base", "base", 0.0), (3, "arith", "full-256", 1.0), (2, "arith", "full-256", 0.0)):
        rewrite(checkpoint(tree, "samples/short.parquet", dataset=dataset, recipe=recipe, epoch=epoch), pl.lit(score).alias("score"))
    frame = tables.collect(small, "gains", tree).frame.filter(model="alder-1b", dataset="arith", recipe="full-256", suite="short")
    assert set(frame.filter(epoch=3)["z"]) == {np.inf}
    assert set(frame.filter(epoch=2)["z"]) == {0.0}


def test_unscored_items_are_counted_and_left_out(small, tree):
    path = checkpoint(tree, "samples/short.parquet")
    rewrite(path, pl.when(pl.col("item") < 10).then(None).otherwise("score").alias("score"))
    frame = tables.collect(small, "gains", tree).frame.filter(model="alder-1b", dataset="arith", recipe="full-256", epoch=3, suite="short")
    assert set(frame["n"]) == {90}
    assert set(frame["unscored"]) == {10}


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: frame.filter(pl.col("item") > 0),
        lambda frame: pl.concat([frame, frame.head(1)]),
        lambda frame: frame.with_columns(pl.col("item") + 1),
    ],
)
def test_other_items_than_the_base_model_are_an_error(damage, small, tree):
    path = checkpoint(tree, "samples/short.parquet")
    damage(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(AtlasError, match="evaluate both again on the same items"):
        tables.collect(small, "gains", tree)


def test_a_benchmark_missing_inside_a_file_is_an_error(small, tree):
    for file, table in (("scores/short.parquet", "scores"), ("samples/short.parquet", "gains")):
        path = checkpoint(tree, file)
        pl.read_parquet(path).filter(pl.col("benchmark") != "loops").write_parquet(path)
        with pytest.raises(AtlasError, match="holds the benchmarks"):
            tables.collect(small, table, tree)


def test_unreadable_and_empty_files_are_named(small, tree):
    path = checkpoint(tree, "layers.parquet")
    frame = pl.read_parquet(path)
    for content, message in ((frame.drop("cosine"), "cannot be read"), (frame.clear(), "has no rows"), (None, "is cut short")):
        path.write_bytes(b"PAR1") if content is None else content.write_parquet(path)
        with pytest.raises(AtlasError, match=message) as error:
            tables.collect(small, "layers", tree)
        assert str(path) in str(error.value)


def test_perplexity_is_weighted_by_tokens(small, written):
    frame = tables.collect(small, "perplexity", written).frame
    row = frame.filter(model="alder-1b", dataset="arith", scope="response").row(0, named=True)
    raw = pl.read_parquet(written / "perplexity" / "alder-1b" / "arith.parquet")
    nll, tokens, size = (raw[f"{name}_response"].to_numpy() for name in ("nll", "tokens", "bytes"))
    assert row["perplexity"] == pytest.approx(np.exp(nll.sum() / tokens.sum()))
    assert row["perplexity_sample_mean"] == pytest.approx(np.exp(np.mean(nll / tokens)))
    assert row["bits_per_byte"] == pytest.approx(nll.sum() / np.log(2) / size.sum())
    assert (row["n"], row["tokens"], row["rows"]) == (40, tokens.sum(), 256)
    assert set(frame["scope"]) == {"response", "full"}


def test_a_merged_set_has_the_perplexity_of_its_members_samples(small, written):
    frame = tables.collect(small, "perplexity", written).frame
    row = frame.filter(model="alder-1b", dataset="all", scope="full").row(0, named=True)
    raw = [pl.read_parquet(written / "perplexity" / "alder-1b" / f"{member}.parquet") for member in ("arith", "algebra")]
    nll, tokens = (sum(frame[f"{name}_full"].sum() for frame in raw) for name in ("nll", "tokens"))
    assert row["perplexity"] == pytest.approx(np.exp(nll / tokens))
    assert (row["n"], row["rows"]) == (80, 256)


def test_a_table_without_files_is_empty_with_its_columns(small, written):
    frame = tables.collect({**small, "runs": []}, "history", written).frame
    assert frame.is_empty()
    assert set(tables.COLUMNS["history"]) < set(frame.columns)


def test_the_command_writes_table_and_provenance(written, tmp_path):
    script, output = ROOT / "workflow_scripts" / "run.py", tmp_path / "tables" / "gains.parquet"
    call = [sys.executable, script, "collect", "--study", written / "study.json", "--table", "gains", "--output", output]
    subprocess.run(call, check=True, capture_output=True)
    record = json.loads(output.with_suffix(".json").read_text())
    assert record["rows"] == pl.read_parquet(output).height
    assert record["missing"] == []
    assert record["table"] == "gains" and record["settings"] == json.loads((written / "study.json").read_text())
