"""Findings: the page states what was planted and nothing else, and no finding is stronger than its numbers."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from helpers.checkpoints_map import grid
from helpers.rates import is_at_most
from helpers.synthetic import BENCHMARKS
from sft_atlas.analyse import select
from sft_atlas.core.provenance import ROOT
from sft_atlas.report import show_findings, write_findings
from sft_atlas.report.figures import FIGURES
from sft_atlas.report.findings import WIDTH
from sft_atlas.report.sections import representation, scores, weights
from sft_atlas.stats.estimates import ITEM_NOISE, Estimate


def make(root, **options):
    study = synthetic.study_json(**options)
    synthetic.write(root, study)
    return study, synthetic.every_table(study, root)


@pytest.fixture(scope="module")
def planted():
    study, root, frames = synthetic.collected()
    return study, frames, root


@pytest.fixture(scope="module")
def null():
    study, _, frames = synthetic.collected(effect=0.0, seed=3)
    return study, frames


def page(study, frames, **more) -> str:
    return re.sub(r"\s+", " ", write_findings.page(study, frames, Path("figures"), **more))


def test_the_page_says_what_was_planted(planted):
    study, frames, _ = planted
    text = page(study, frames)
    short = text.split("## In short")[1].split("## 1.")[0]
    assert short.count(" (section ") == 5 and "are significant after correction" in short and "no significant" not in short.lower()
    assert "60 runs, 180 checkpoints, 3 base models from 3 families; 8 benchmarks, 800 items" in text
    assert "Arith and Algebra: gains correlate positively" in text
    assert "Response only: lower perplexity, larger gain; within-model r = -0.9" in text
    # six training sets allow no p below 2 / 64, which the correction for a page of tests undoes; the words without it:
    assert "Full fine-tuning: no significant difference between lower and upper layers after correction" in text
    assert "Upper half of the layers: no significant change after correction" in text
    alone = [*weights.change_by_depth(frames["layers"], study).statements]
    alone += representation.dimension(frames["dimension"], study).statements
    sentences = [one.sentence(one.estimate, one.estimate.p) for one in alone]
    assert "Full fine-tuning: upper layers change more" in sentences[0]
    assert "Upper half of the layers: higher than in the base model" in sentences[-1]
    assert "Lower half of the layers: no significant change" in text
    assert "Checkpoints cluster by base model" in text
    assert "2,048 rows: no significant change of the mean gain" in text
    assert "Full fine-tuning: weight change correlates with gain, most at depth 0.60" in text
    assert "Last checkpoints, share of squared distance between base models: significant" in text
    assert "between training sets: not significant" in text
    assert "no predictor beats its baseline" in text  # three base models are too few to show it


@pytest.mark.slow
def test_the_page_of_a_study_without_effects_claims_none(null):
    study, frames = null
    text = page(study, frames)
    assert "0 are significant" in text
    assert "## In short No effect on this page is significant." in text
    claims = [
        "gains more",
        "gains less",
        "larger gain",
        "correlate positively",
        "correlate negatively",
        "layers change more",
        "higher than",
        "lower than",
        "Checkpoints cluster",
        "mean gain increases",
        "mean gain decreases",
        "higher mean score",
        "lower mean score",
        "beats the",
        "correlates with gain, ",
        "change a layer, most",
        "significantly more",
        ": significant;",
        ": larger",
        ": smaller",
        ": increases",
        ": decreases",
    ]
    assert [claim for claim in claims if claim in text] == []
    assert text.lower().count("no significant") + text.count("not significant") >= 12
    assert "*" not in text.split("## 2.")[1].split("- Full fine-tuning")[0]


def test_every_section_names_an_existing_figure_and_lines_fit_a_terminal(planted):
    study, frames, _ = planted
    text = write_findings.page(study, frames, Path("figures"))
    named = re.findall(r"^Figure: figures/(\w+)\.pdf$", text, re.M)
    assert set(named) == set(FIGURES)
    short, *sections = text.split("\n## ")[1:]
    assert short.startswith(write_findings.SHORT)
    assert all("\nFigure: " in section for section in sections)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_every_claim_with_a_p_has_q_and_n(planted):
    study, frames, _ = planted
    text = page(study, frames)
    assert len(re.findall(r"\bp [=<] [\d.]+, q [=<] [\d.]+, n = ", text)) == len(re.findall(r"\bp [=<] [\d.]+,", text)) > 10


def test_items_without_a_score_are_named(planted):
    study, frames, _ = planted
    assert "NO SCORE" not in page(study, frames)
    scores = frames["scores"].with_columns(n_missing=pl.when(pl.int_range(pl.len()) == 0).then(3).otherwise(0))
    first, n = scores["benchmark"][0], scores.filter(benchmark=scores["benchmark"][0])["n"].sum()
    opening = " ".join(page(study, frames | {"scores": scores}).split("## 1.")[0].split())
    assert f"could not be scored: {first} 3 of {n + 3:,};" in opening


def test_missing_results_are_said_first(planted):
    study, frames, _ = planted
    text = write_findings.page(study, frames, Path("figures"), missing={"gains": 3})
    assert "MISSING: 3 result files of table gains" in text.split("## 1.")[0]
    text = write_findings.page(study | {"left_out": ["ant/red/full"]}, frames, Path("figures"))
    assert "LEFT OUT by select: ant/red/full; no number" in text.split("## 1.")[0]


def test_runs_that_did_not_move_are_said_first(planted):
    study, frames, _ = planted
    assert "DID NOT MOVE" not in page(study, frames)
    runs = frames["runs"].with_columns(logit_change_mean=pl.when(pl.int_range(pl.len()) < 2).then(1e-9).otherwise("logit_change_mean"))
    names = ["/".join(row) for row in runs.select("model", "dataset", "recipe").head(2).rows()]
    text = " ".join(page(study, frames | {"runs": runs}).split("## 1.")[0].split())
    assert f"DID NOT MOVE: 2 runs ({', '.join(names)}), whose mean change of logits is below the rounding" in text


@pytest.mark.parametrize(
    "options",
    [
        {"models": 1, "datasets": 1, "lora": False, "merged": False},
        {"models": 1, "datasets": 2},
        {"models": 2, "datasets": 1, "lora": False},
    ],
)
def test_poor_studies_say_what_they_would_take(options, tmp_path):
    study, frames = make(tmp_path, trajectories=False, leave_one_out=False, **options)
    text = page(study, frames)
    assert "Not available in this study: needs" in text
    assert "nan" not in text
    empty = {name: frame.clear() for name, frame in frames.items()}
    assert page(study, empty).lower().count("not available in this study") >= 10


def test_the_page_is_the_same_twice(planted):
    study, frames, _ = planted
    shuffled = {
        name: frame.sample(fraction=1, shuffle=True, seed=1) if name in ("runs", "scores") else frame for name, frame in frames.items()
    }
    assert write_findings.page(study, frames, Path("f")) == write_findings.page(study, shuffled, Path("f"))


def test_the_command_writes_a_page_that_a_terminal_can_show(planted, tmp_path, capsys):
    _, frames, root = planted
    for name, frame in frames.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "gains.json").write_text('{"missing": ["a", "b"]}')
    script, output = ROOT / "workflow_scripts" / "run.py", tmp_path / "report" / "findings.md"
    call = [
        sys.executable,
        script,
        "write_findings",
        "--study",
        root / "study.json",
        "--tables",
        tmp_path,
        "--figures",
        tmp_path / "figures",
        "--output",
        output,
        "--page",
        output.with_suffix(".html"),
    ]
    subprocess.run(call, check=True, capture_output=True)
    assert "<h1>Findings of the study synthetic</h1>" in output.with_suffix(".html").read_text()
    assert "Figure: ../figures/gains.pdf" in output.read_text()
    assert "MISSING: 2 result files of table gains" in output.read_text()
    show_findings.show(output)
    shown = capsys.readouterr().out
    assert "#" not in shown
    assert "Findings of the study synthetic\n===============================" in shown


def test_extremes_are_highest_and_lowest(planted):
    study, frames, _ = planted
    cells = select.single(frames["gains"], study).filter(pl.col("method") == "full", pl.col("benchmark") == "sums")
    means = cells.group_by("dataset").agg(pl.col("gain").mean()).sort("gain")
    row = next(line for line in write_findings.page(study, frames, Path("f")).splitlines() if line.startswith("| Sums"))
    for name, gain in (means.row(0), means.row(-1)):
        assert f"{name.capitalize()} {100 * gain:+.1f}" in row


# ---------------------------------------------------------------- units: what is special to a base model is no effect of all


def answers(rng, models, sets, effect=0.0):
    """Runs of two methods; a number of each run: an effect, what is special to its base model, noise."""
    keys, study = grid(models, sets)
    own = dict(zip(study["models"], rng.normal(size=models), strict=True))
    number = effect + np.array([own[name] for name in keys["model"]]) + 0.5 * rng.normal(size=keys.height)
    return keys.with_columns(pl.Series("number", number)), study


def weight_change_p(rng, models, sets, effect=0.0):
    keys, study = answers(rng, models, sets, effect)
    change = pl.when(pl.col("depth") < 0.5).then(1.0).otherwise(pl.col("number").exp())
    layers = keys.join(pl.DataFrame({"layer": [0, 1], "depth": [0.0, 1.0]}), how="cross")
    result = weights.change_by_depth(layers.with_columns(change.alias("relative_change"), pl.lit("all").alias("component")), study)
    return result.statements[0].estimate.p


def methods_p(rng, models, sets, effect=0.0):
    keys, study = answers(rng, models, sets, effect)
    gain = pl.when(pl.col("method") == "lora").then("number").otherwise(0.0)
    gains = keys.with_columns(gain.alias("gain"), pl.lit("sums").alias("benchmark"), pl.lit(0.1).alias("stderr"))
    return scores.methods(gains, study | {"benchmarks": {"sums": {}}}).statements[0].estimate.p


@pytest.mark.parametrize("p_of", [weight_change_p, methods_p])
def test_runs_of_one_base_model_are_one_unit(p_of):
    rng = np.random.default_rng(0)
    assert is_at_most([p_of(rng, 8, 4) <= 0.05 for _ in range(80)])
    assert np.mean([p_of(rng, 8, 4, effect=1.6) <= 0.05 for _ in range(15)]) > 0.8


def dimension_p(rng, models, sets, effect=0.0):
    """Every estimate of an intrinsic dimension errs by 1, those of the base models too, which all of their runs are held against."""
    keys, study = grid(models, sets)
    base = (
        keys.select("model").unique(maintain_order=True).with_columns(pl.lit("base").alias("dataset"), pl.lit(0, pl.Int64).alias("epoch"))
    )
    every = pl.concat([base, keys], how="diagonal").join(pl.DataFrame({"layer": [0, 1], "depth": [0.0, 1.0]}), how="cross")
    value = 10 + effect * (every["epoch"] > 0).cast(pl.Float64) + pl.Series(rng.normal(size=every.height))
    constant = {"stderr": 1.0, "n": 200, "pooling": "last", "estimator": "gride"}
    every = every.with_columns(value.alias("dimension"), *(pl.lit(number).alias(name) for name, number in constant.items()))
    return representation.dimension(every, study).statements[1].estimate.p


@pytest.mark.slow
@pytest.mark.parametrize(("models", "sets"), [(3, 6), (4, 10), (6, 6)])
def test_the_error_of_a_baseline_is_no_rise_of_the_dimension(models, sets):
    rng = np.random.default_rng(0)
    assert is_at_most([dimension_p(rng, models, sets) <= 0.05 for _ in range(80)])
    assert np.mean([dimension_p(rng, models, sets, effect=4.0) <= 0.05 for _ in range(15)]) > 0.8


def test_a_baseline_of_unknown_error_decides_nothing(planted):
    study, frames, _ = planted
    unknown = frames["dimension"].with_columns(pl.when(pl.col("epoch") > 0).then("stderr").alias("stderr"))
    sentences = [one.sentence(one.estimate, one.estimate.p) for one in representation.dimension(unknown, study).statements]
    assert all("no significant change (too few data for an interval)" in text and "nan" not in text for text in sentences)


def luck(rng, models, effect=0.0):
    """Scores on four benchmarks of runs on the first set, without it and on all: an effect of the set, luck of each run, little item noise."""
    study, rows = synthetic.study_json(datasets=2, lora=False, trajectories=False), []
    for model in range(models):
        for dataset, gain in (("arith", effect), ("all", effect), ("without-arith", 0.0), ("without-algebra", effect)):
            own = gain + rng.normal(0, 0.05)
            recipe = "full-256"
            rows += [(f"m{model}", dataset, recipe, "full", 256, "cosine", 3, name, own, 0.01, 800) for name in list(BENCHMARKS)[:4]]
    columns = ["model", "dataset", "recipe", "method", "rows", "schedule", "epoch", "benchmark", "score", "stderr", "n"]
    return pl.DataFrame(rows, schema=columns, orient="row"), study


def extreme(rng, models, effect=0.0):
    table, study = luck(rng, models, effect)
    both = table.filter(pl.col("dataset").is_in(["arith", "without-algebra"])).with_columns(
        pl.col("dataset").replace("without-algebra", "algebra"), pl.col("score").alias("gain")
    )
    return scores.extremes(both, study).statements[0].estimate


def absence(rng, models, effect=0.0):
    return scores.leave_one_out(*luck(rng, models, effect)).statements[0].estimate


@pytest.mark.slow
@pytest.mark.parametrize("of", [extreme, absence])
def test_luck_of_single_runs_is_no_effect(of):
    rng = np.random.default_rng(1)
    null = [of(rng, 8) for _ in range(80)]
    assert {(one.n, one.unit) for one in null} == {(8, "base models")}
    assert is_at_most([one.p <= 0.05 for one in null])
    assert all(one.p <= 0.05 and one.excludes_zero for one in (of(rng, 8, effect=0.3) for _ in range(10)))
    few = [of(rng, 3) for _ in range(40)]
    assert np.mean([one.p <= 0.05 for one in few]) > 0.5  # why the page says that these reflect item noise only
    assert {one.interval_method for one in few} == {ITEM_NOISE}


def test_intervals_of_item_noise_say_so(planted):
    study, frames, _ = planted
    for finding in (scores.extremes(frames["gains"], study), scores.leave_one_out(frames["scores"], study)):
        assert any("reflect the sampling of items only" in note for note in finding.notes)
    assert "item noise only]" in page(study, frames)
    table, large = luck(np.random.default_rng(2), 6)
    assert scores.noise_note(scores.leave_one_out(table, large).statements) == []


def test_base_models_of_one_family_are_said_to_be_counted_singly(planted):
    study, frames, _ = planted
    assert "counted as separate units" not in page(study, frames)
    alike = {name: entry | {"family": "tree"} for name, entry in study["models"].items()}
    text = page(study | {"models": alike}, frames)
    assert "3 base models from 1 family;" in text and "Base models of one family (tree: 3) are counted as separate units" in text
    assert select.families([]) == ("from 0 families", "") and select.families(["unknown"]) == ("from unknown families", "")
    assert select.families(["a", "unknown", "unknown"])[0] == "from 1 family, 2 of unknown family"


def test_with_few_base_models_training_sets_are_the_units_and_a_note_says_so(planted):
    study, frames, _ = planted
    for finding in (weights.change_by_depth(frames["layers"], study), scores.methods(frames["gains"], study)):
        assert {statement.estimate.unit for statement in finding.statements} == {"training sets"}
        assert any("3 base models are too few to resample" in note for note in finding.notes)


def test_an_untested_share_says_why():
    row = {"test": "2 base models are too few for a sign-flip test"}
    sentence = representation._share(row)(Estimate("x", 0.3, np.nan, np.nan, np.nan, 9, "checkpoints"), np.nan)
    assert sentence == "x: 30.0 %, n = 9 checkpoints (not tested: 2 base models are too few for a sign-flip test)."
