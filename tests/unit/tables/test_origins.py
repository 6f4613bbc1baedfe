"""Scores of several sources: one table, and comparisons only of what was measured in the same way."""

import argparse
import json
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from helpers import atlas as atlases
from helpers import imported, synthetic
from sft_atlas.atlas import write_atlas
from sft_atlas.core.files import write_table
from sft_atlas.evaluate.scores import standard_error
from sft_atlas.report import plot, write_findings
from sft_atlas.study import paths
from sft_atlas.tables import documented, origins, stored
from sft_atlas.tables.collect import collect

CHECKPOINT = {"model": "alder-1b", "dataset": "theirs", "recipe": "outside", "method": "lora", "epoch": 2, "rows": 500, "seed": None}
OURS = {"model": "alder-1b", "dataset": "arith", "recipe": "full-256", "epoch": 3}


@pytest.fixture(scope="module")
def own(small, written):
    """Table of our scores without imports, and items of a base model by benchmark: prompt and score."""
    where = paths.Paths(written)
    items = pl.concat(pl.read_parquet(where.fill(where.of_base(where.samples), model="alder-1b", suite=suite)) for suite in small["suites"])
    return collect(small, "scores", written).frame, items


def lm_eval_files(folder: Path, task: str, items: pl.DataFrame, metric="exact_match", shots=0, name="org/theirs", **around) -> list[Path]:
    """lm-eval's files of one task, with a sample for each row of ``items`` (prompt, score)."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "model_name": name, "results": {task: {f"{metric},none": items["score"].mean(), f"{metric}_stderr,none": 0.05}},
        "n-shot": {task: shots}, "n-samples": {task: {"effective": items.height}}, "lm_eval_version": "0.4.9", "config": {"model": "vllm"}, **around,
    }  # fmt: skip
    (folder / "results_1.json").write_text(json.dumps(results))
    lines = [
        {"doc_id": number, "arguments": {"gen_args_0": {"arg_0": row["prompt"], "arg_1": {}}}, "target": "x", metric: row["score"]}
        for number, row in enumerate(items.iter_rows(named=True))
    ]
    (folder / f"samples_{task}_1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return sorted(folder.iterdir())


def theirs(own, benchmark="sums", flipped=10) -> pl.DataFrame:
    """Our items of a benchmark in another order, with the scores of the first ones turned around."""
    items = own[1].filter(benchmark=benchmark).select("prompt", "score").with_row_index()
    return items.with_columns(score=pl.when(pl.col("index") < flipped).then(1 - pl.col("score")).otherwise("score")).reverse()


def compared(small, written, folders):
    scores = collect(small, "scores", written, imported=folders).frame
    kept, out = origins.comparable(scores)
    return scores, kept.filter(pl.col("source") != "ours"), {(entry.benchmark, entry.reason): entry.scores for entry in out}


def test_without_imports_every_score_and_gain_is_ours(small, written, own):
    gains = collect(small, "gains", written).frame
    assert set(own[0]["source"]) == {"ours"} == set(gains["source"]) == set(gains["base_source"])
    assert own[0].schema == documented.schema("scores") and gains.schema == documented.schema("gains")
    kept, out = origins.comparable(own[0])
    assert kept.equals(own[0]) and out == []
    study, tables = origins.analysed(small, {"scores": own[0]})
    assert study is small and tables["scores"].equals(own[0])


def test_an_imported_checkpoint_with_our_prompts_gains_item_by_item(small, written, own, run_script, tmp_path):
    items = theirs(own)
    files = lm_eval_files(tmp_path / "files", "sums", items)
    folder, *_ = imported.run(run_script, tmp_path, files, checkpoints={"org/theirs": CHECKPOINT})
    scores, kept, out = compared(small, written, [folder])
    assert out == {} and kept["benchmark"].to_list() == ["sums"]
    assert scores.schema == documented.schema("scores")
    assert scores.filter(pl.col("source") == "ours").drop("items").equals(own[0].drop("items"))
    gains = collect(small, "gains", written, imported=[folder]).frame
    assert gains.schema == documented.schema("gains")
    row = gains.row(by_predicate=pl.col("source") == "lm-eval", named=True)
    base = own[1].filter(benchmark="sums").select("prompt", base="score")
    difference = items.join(base, on="prompt").select(pl.col("score") - pl.col("base")).to_series()
    assert row["gain"] == pytest.approx(difference.mean()) and row["n"] == 100
    assert row["stderr"] == pytest.approx(difference.std() / 10) and row["z"] == pytest.approx(row["gain"] / row["stderr"])
    assert (row["dataset"], row["method"], row["rows"], row["epoch"], row["base_source"]) == ("theirs", "lora", 500, 2, "ours")
    assert_frame_equal(gains.filter(pl.col("source") == "ours"), collect(small, "gains", written).frame)


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (lambda items: items.with_columns(prompt=pl.lit("Q: ") + pl.col("prompt")), {}, "other prompts than ours"),
        (lambda items: items, {"shots": 5}, "5 examples, ours 0"),
        (lambda items: items, {"metric": "f1"}, "metric f1, ours exact_match"),
        (lambda items: items.head(50), {}, "50 items, ours 100; other prompts than ours"),
        (lambda items: items.with_columns(prompt=pl.col("prompt").first()), {}, "other prompts than ours"),
    ],
)
def test_scores_that_were_measured_in_another_way_are_kept_out(change, options, reason, small, written, own, run_script, tmp_path):
    files = lm_eval_files(tmp_path / "files", "sums", change(theirs(own)), **options)
    folder, *_ = imported.run(run_script, tmp_path, files, checkpoints={"org/theirs": CHECKPOINT})
    scores, kept, out = compared(small, written, [folder])
    assert kept.is_empty() and out == {("sums", reason): 1}
    assert scores.filter(source="lm-eval").height == 1  # the table has it all the same
    assert set(collect(small, "gains", written, imported=[folder]).frame["source"]) == {"ours"}


def csv(run_script, tmp_path, rows, **settings):
    (tmp_path / "theirs.csv").write_text("name,sums,err\n" + "".join(f"{name},{score},0.03\n" for name, score in rows))
    stated = {"benchmark": "sums", "metric": "exact_match", "shots": 0, "items": 100, "stderr": "err"} | settings.pop("entry", {})
    return imported.run(run_script, tmp_path, [tmp_path / "theirs.csv"], "csv", benchmarks={"sums": stated}, **settings)[0]


def test_a_table_is_compared_with_ours_only_where_the_study_vouches_for_the_template(small, written, run_script, tmp_path):
    (tmp_path / "a").mkdir()
    vouched = csv(run_script, tmp_path / "a", [("x", 0.5)], template="study", checkpoints={"x": CHECKPOINT})
    scores, kept, out = compared(small, written, [vouched])
    assert kept.height == 1 and not out
    row = collect(small, "gains", written, imported=[vouched]).frame.row(by_predicate=pl.col("source") == "csv", named=True)
    base = scores.row(
        by_predicate=(pl.col("model") == "alder-1b") & (pl.col("dataset") == "base") & (pl.col("benchmark") == "sums"), named=True
    )
    assert row["gain"] == pytest.approx(0.5 - base["score"])
    assert row["stderr"] == pytest.approx((0.03**2 + base["stderr"] ** 2) ** 0.5)  # as if the items were others: an upper bound
    (tmp_path / "b").mkdir()
    _, kept, out = compared(small, written, [csv(run_script, tmp_path / "b", [("x", 0.5)], checkpoints={"x": CHECKPOINT})])
    assert kept.is_empty() and out == {("sums", "its prompts are not known to be ours"): 1}
    (tmp_path / "c").mkdir()
    unknown = csv(
        run_script, tmp_path / "c", [("x", 0.5)], template="study", entry={"items": None, "shots": None}, checkpoints={"x": CHECKPOINT}
    )
    assert compared(small, written, [unknown])[2] == {("sums", "number of examples unknown, ours 0; number of items unknown, ours 100"): 1}


def test_a_checkpoint_that_we_scored_keeps_our_score(small, written, run_script, tmp_path):
    folder = csv(run_script, tmp_path, [("x", 0.5)], template="study", checkpoints={"x": OURS})
    scores, kept, out = compared(small, written, [folder])
    assert kept.is_empty() and out == {("sums", "we scored the same checkpoint"): 1}
    row = scores.row(by_predicate=pl.col("source") == "csv", named=True)
    assert (row["method"], row["rows"], row["recipe"], row["seed"]) == ("full", 256, "full-256", 0)  # those of the run that it is


def test_without_own_scores_the_largest_group_that_agrees_is_compared(small, written, run_script, tmp_path):
    rows = "".join(f"{name},{base},{data},{score},{other}\n" for name, base, data, score, other in (
        ("a", "alder-1b", "", 0.25, 0.5), ("b", "alder-1b", "set", 0.75, 0.5), ("c", "new-1b", "", 0.5, 0.5), ("d", "new-1b", "set", 0.375, 0.5),
    ))  # fmt: skip
    (tmp_path / "theirs.csv").write_text("name,base,data,quiz:acc:5,quiz:acc:0\n" + rows)
    folder, *_ = imported.run(
        run_script, tmp_path, [tmp_path / "theirs.csv"], "csv", facts={"model": "base", "dataset": "data"}, template="theirs",
        benchmarks={"quiz:acc:5": {"benchmark": "quiz", "metric": "acc", "shots": 5}},
    )  # fmt: skip
    _, kept, out = compared(small, written, [folder])
    assert kept.height == 4 and not out
    gains = collect(small, "gains", written, imported=[folder]).frame.filter(source="csv")
    assert dict(gains.select("model", "gain").rows()) == {"alder-1b": 0.5, "new-1b": -0.125}
    assert gains["stderr"].to_list() == [None, None]  # the file states no error: unknown, not 0
    (tmp_path / "more").mkdir()
    (tmp_path / "more/other.csv").write_text("name,quiz:acc:0\nz,0.5\n")
    other, *_ = imported.run(
        run_script, tmp_path / "more", [tmp_path / "more/other.csv"], "csv", checkpoints={"z": CHECKPOINT | {"model": "new-1b"}}
    )
    _, kept, out = compared(small, written, [folder, other])
    assert kept.height == 4 and out == {("quiz", "differs in examples, prompts from the 4 scores that are compared"): 1}


def test_a_benchmark_that_only_imports_have_is_said_to_be_in_no_mean_where_we_have_gains(small, written, run_script, tmp_path):
    (tmp_path / "theirs.csv").write_text("name,base,data,quiz:acc:5\na,alder-1b,,0.25\nb,alder-1b,set,0.75\n")
    folder, *_ = imported.run(
        run_script, tmp_path, [tmp_path / "theirs.csv"], "csv", facts={"model": "base", "dataset": "data"}, template="theirs"
    )
    scores = collect(small, "scores", written, imported=[folder]).frame
    for frame, said in ((scores, True), (scores.filter((pl.col("source") != "ours") | (pl.col("dataset") == "base")), False)):
        kept, out = origins.comparable(frame)
        lines = origins.words(frame, kept, out)
        assert ("In no mean over benchmarks, as this study has not scored them itself: quiz." in lines) is said


def test_tasks_of_a_group_are_compared_only_where_the_study_names_them(small, written, own, run_script, tmp_path):
    group = {"group_subtasks": {"pick": ["pick_a"]}}
    files = lm_eval_files(tmp_path / "files", "pick_a", theirs(own), **group)
    content = json.loads(files[0].read_text())
    content["results"]["pick"] = {"exact_match,none": 0.5}
    files[0].write_text(json.dumps(content))
    folder, *_ = imported.run(run_script, tmp_path / "all", files, checkpoints={"org/theirs": CHECKPOINT})
    _, kept, out = compared(small, written, [folder])
    assert kept["benchmark"].to_list() == ["pick"] and [name for name, _ in out] == ["pick_a"]
    folder, *_ = imported.run(
        run_script, tmp_path / "one", files, checkpoints={"org/theirs": CHECKPOINT}, benchmarks={"pick_a": {"benchmark": "pick_a"}}
    )
    assert compared(small, written, [folder])[1]["benchmark"].to_list() == ["pick_a"]


@pytest.mark.parametrize("by_size", [True, False])
def test_a_group_is_compared_item_by_item_with_ours_where_it_is_a_mean_over_items(by_size, small, written, own, run_script, tmp_path):
    items = theirs(own)
    parts = {"sums_a": items.head(30), "sums_b": items.tail(70)}
    means = [part["score"].mean() for part in parts.values()]
    files = [file for task, part in parts.items() for file in lm_eval_files(tmp_path / task, task, part)]
    contents = [json.loads(file.read_text()) for file in files if file.name == "results_1.json"]
    whole = contents[0] | {"group_subtasks": {"sums": list(parts)}}
    for name in ("results", "n-shot", "n-samples"):
        whole[name] = {task: value for content in contents for task, value in content[name].items()}
    whole["results"]["sums"] = {"exact_match,none": items["score"].mean() if by_size else sum(means) / 2, "exact_match_stderr,none": 0.05}
    (tmp_path / "all").mkdir()
    (tmp_path / "all/results_1.json").write_text(json.dumps(whole))
    for file in files:
        if file.suffix == ".jsonl":
            file.rename(tmp_path / "all" / file.name)
    folder, *_ = imported.run(run_script, tmp_path, sorted((tmp_path / "all").iterdir()), checkpoints={"org/theirs": CHECKPOINT})
    scores, kept, out = compared(small, written, [folder])
    assert kept.select("benchmark", "subtask", "n").rows() == [("sums", None, 100)]
    assert scores.filter(source="lm-eval")["subtask"].to_list() == ["sums_a", "sums_b", None]
    assert [name for name, _ in out] == ["sums_a", "sums_b"]
    row = collect(small, "gains", written, imported=[folder]).frame.row(by_predicate=pl.col("source") == "lm-eval", named=True)
    base = own[1].filter(benchmark="sums").select("prompt", base="score")
    difference = items.join(base, on="prompt").select(pl.col("score") - pl.col("base")).to_series()
    assert (row["gain"] == pytest.approx(difference.mean())) == by_size
    assert (row["stderr"] == pytest.approx(difference.std() / 10)) == by_size and row["stderr"] > 0


@pytest.fixture(scope="module")
def page_of(small, written, own, run_script, tmp_path_factory):
    """Study and tables as findings and figures read them, with three imports: compared, kept out, and of names alone."""
    folder = tmp_path_factory.mktemp("imports")
    folders = []
    for name, options, settings in (
        ("same", {}, {"checkpoints": {"org/theirs": CHECKPOINT}}),
        ("shots", {"shots": 5}, {"checkpoints": {"org/theirs": CHECKPOINT | {"dataset": "others"}}}),
        ("names", {"name": "org/plain"}, {}),
    ):
        files = lm_eval_files(folder / f"{name}-files", "sums", theirs(own), **options)
        made, *_ = imported.run(run_script, folder / name, files, **settings)
        folders.append(made.rename(made.with_name(name)))
        frame = pl.read_parquet(folders[-1] / "scores.parquet").with_columns(source_name=pl.lit(name), suite=pl.lit(name))
        frame.write_parquet(folders[-1] / "scores.parquet")
    tables = folder / "tables"
    for name, frame in synthetic.every_table(small, written).items():
        write_table(tables / f"{name}.parquet", frame)
    for name in ("scores", "gains"):
        write_table(tables / f"{name}.parquet", collect(small, name, written, imported=folders).frame)
    args = argparse.Namespace(study=Path(paths.Paths(written).study), tables=tables)
    return stored.load(args, paths.REPORTED, each_seed=True), args


def test_findings_say_what_was_imported_and_what_was_kept_out(page_of):
    (study, tables), _ = page_of
    text = " ".join(write_findings.page(study, tables, Path("figures")).split())
    assert "IMPORTED from same (lm-eval, lm_eval 0.4.9 sha256" in text
    assert "1 scores of 1 checkpoints; 1 are compared with others." in text
    assert "Kept out: sums (1): 5 examples, ours 0." in text


def test_no_comparison_sees_what_was_kept_out(page_of):
    (study, tables), args = page_of
    assert set(tables["scores"].filter(source="lm-eval")["dataset"]) == {"theirs", "unknown"}
    assert "others" not in study["datasets"] and "theirs" in study["datasets"]
    assert set(tables["gains"].filter(source="lm-eval")["dataset"]) == {"theirs"}
    averaged = stored.load(args, ["scores"])[1]["scores"]
    mine = averaged.filter(pl.col("source") == "ours")
    assert_frame_equal(
        mine.select("score", "stderr"),
        stored.load(args, ["scores"], each_seed=True)[1]["scores"].filter(source="ours").select("score", "stderr"),
    )


@pytest.mark.parametrize("figure", ["gains", "consistency", "components", "variance", "lora_full", "leave_one_out"])
def test_figures_are_drawn_with_imported_checkpoints(figure, page_of, run_script, tmp_path):
    _, args = page_of
    run_script(plot, **vars(args), figure=figure, output_pdf=tmp_path / "a.pdf", output_png=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_atlas_shows_sources_and_lists_what_was_kept_out(page_of, written, tmp_path):
    (study, tables), args = page_of
    others = {name: synthetic.collected()[2][name].clear() for name in ("history", "properties", "similarity")}
    shown = write_atlas.of_study(study, tables | others, written, tmp_path)
    of = dict(zip(shown.checkpoints["address"], shown.checkpoints["source"], strict=True))
    assert of["alder-1b/theirs/outside/2"] == "lm-eval" and of["alder-1b/base/base/0"] == "ours"
    for name, frame in others.items():
        write_table(args.tables / f"{name}.parquet", frame)
    figures = atlases.figures(tmp_path / "figures")
    write_atlas.main(argparse.Namespace(**vars(args), figures=figures, output=tmp_path / "atlas/index.html"))
    assert "IMPORTED from" in (tmp_path / "atlas/index.html").read_text()
    listed = {entry["key"]: entry["rows"] for entry in atlases.unpacked(tmp_path / "atlas", "tables")}
    assert listed["scores"] == pl.read_parquet(args.tables / "scores.parquet").height > tables["scores"].height


def test_the_error_of_a_paired_gain_is_clustered_as_our_items_are():
    base = pl.DataFrame(
        {"prompt": list("abcdefgh"), "score": [0.0, 1, 0, 1, 0, 0, 1, 1], "cluster": ["x", "x", "y", "y", "z", "z", "w", None]}
    )
    tuned = base.with_columns(score=pl.Series([1.0, 1, 1, 1, 0, 0, 0, 1]), cluster=pl.lit(None, pl.String)).reverse()
    found = origins._paired(tuned, base)
    expected = standard_error([1, 0, 1, 0, 0, 0, -1, 0], base["cluster"])[0]
    assert found["gain"] == pytest.approx(1 / 8) and found["stderr"] == pytest.approx(expected)
    alone = origins._paired(tuned, base.with_columns(cluster=pl.lit(None, pl.String)))
    assert alone["stderr"] == pytest.approx(standard_error([1, 0, 1, 0, 0, 0, -1, 0], [None] * 8)[0])
    assert origins._paired(tuned, base.head(7)) is None and origins._paired(tuned, base.with_columns(prompt=pl.lit("a"))) is None
