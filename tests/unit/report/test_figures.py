"""Every figure draws on a full study and on poor ones, is the same twice, and shows what was planted."""

import subprocess
import sys
from importlib import import_module

import matplotlib.text
import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import analyse_map, select
from sft_atlas.core.provenance import ROOT
from sft_atlas.report.figures import CAPTIONS, FIGURES, style

POOR = {
    "one model": {"models": 1, "trajectories": False, "leave_one_out": False},
    "one set, no LoRA": {"models": 2, "datasets": 1, "lora": False, "trajectories": False, "leave_one_out": False, "merged": False},
    "one run": {"models": 1, "datasets": 1, "lora": False, "trajectories": False, "leave_one_out": False, "merged": False},
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Per name the study, its folder and its tables."""
    made = {"full": synthetic.collected()}
    for name, options in POOR.items():
        study, root = synthetic.study_json(**options), tmp_path_factory.mktemp("study")
        synthetic.write(root, study)
        made[name] = study, root, synthetic.every_table(study, root)
    return made


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def draw(name, study, frames):
    return import_module(f"sft_atlas.report.figures.{name}").draw({table: frames[table] for table in FIGURES[name]}, study)


@pytest.mark.parametrize("name", FIGURES)
def test_a_full_study_fills_every_figure(name, studies):
    study, _, frames = studies["full"]
    figure = draw(name, study, frames)
    figure.draw_without_rendering()
    assert "Nothing to show" not in words(figure)
    assert "n = " in words(figure).replace("\u00a0", " ")
    assert figure.get_figwidth() <= style.PAGE
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    assert min(sizes) >= style.SMALL


@pytest.mark.slow
@pytest.mark.parametrize("kind", POOR)
@pytest.mark.parametrize("name", FIGURES)
def test_poor_studies_draw_or_say_what_they_need(name, kind, studies):
    study, _, frames = studies[kind]
    draw(name, study, frames).draw_without_rendering()


def test_left_out_finds_the_whole_set_under_another_recipe(studies):
    study, _, frames = studies["full"]
    renamed = pl.when(pl.col("dataset") == "all").then(pl.col("recipe") + "-merged").otherwise("recipe").alias("recipe")
    assert select.left_out(frames["scores"].with_columns(renamed), study).equals(select.left_out(frames["scores"], study))


@pytest.mark.parametrize("name", FIGURES)
def test_empty_tables_say_what_they_need(name, studies):
    study, _, frames = studies["full"]
    assert "needs" in words(draw(name, study, {table: frame.clear() for table, frame in frames.items()})).replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "kind", "needed"),
    [("lora_full", "one run", "both methods"), ("leave_one_out", "one model", "leave_one_out"), ("epochs", "one run", "merged-set")],
)
def test_what_is_needed_is_named(name, kind, needed, studies):
    study, _, frames = studies[kind]
    assert needed in words(draw(name, study, frames))


def test_gains_marks_what_is_not_significant(studies):
    study, _, frames = studies["full"]
    cells = select.tested(select.single(frames["gains"], study))
    assert cells.height == 3 * 6 * 8 * 2
    text = words(draw("gains", study, frames)).replace("\n", " ")
    assert f"Coloured: significant, {(cells['q'] < 0.05).sum()} of {cells.height} gains" in text


def test_missing_cells_stay_missing(studies):
    study, _, frames = studies["full"]
    gains = frames["gains"].filter(~((pl.col("model") == "alder-1b") & (pl.col("dataset") == "arith") & (pl.col("benchmark") == "sums")))
    figure = draw("gains", study, {"gains": gains})
    hatched = [patch for axis in figure.axes for patch in axis.patches if patch.get_hatch()]
    assert len(hatched) == 2


def test_selection_is_by_run_properties_not_by_block_names(studies):
    study, _, frames = studies["full"]
    cells = select.single(frames["gains"], study)
    assert set(cells["recipe"]) == {"full-256", "lora-256"}
    assert set(cells["epoch"]) == {3}
    assert set(cells["dataset"]) == set(synthetic.DATASETS)
    track = select.trajectories(frames["gains"], study)
    assert set(track["schedule"]) == {"constant"}
    assert set(track["rows"]) == {256, 2048}


def test_size_pairs_hold_everything_else_equal(studies):
    study, _, frames = studies["full"]
    pairs = select.size_pairs(frames["gains"], study)
    assert pairs.height == 6
    assert set(pairs["schedule"]) == {"constant"}
    means = select.mean_gains(frames["gains"]).filter(dataset="arith", model="alder-1b", epoch=3)
    large, small = (means.filter(recipe=f"full-{rows}-constant")["gain"].item() for rows in (2048, 256))
    assert pairs.filter(dataset="arith")["difference"].item() == pytest.approx(large - small)


def test_left_out_is_against_the_whole_merged_set(studies):
    study, _, frames = studies["full"]
    row = select.left_out(frames["scores"], study).filter(removed="logic", benchmark="sums").row(0, named=True)
    scores = frames["scores"].filter(model="alder-1b", recipe="full-256", epoch=3, benchmark="sums")
    expected_difference = scores.filter(dataset="without-logic")["score"].item() - scores.filter(dataset="all")["score"].item()
    assert row["difference"] == pytest.approx(expected_difference)


def test_hierarchical_order_puts_similar_sets_side_by_side():
    from sft_atlas.report.figures.similarity import hierarchical_order

    r = np.array([[1, 0, 0.9, 0], [0, 1, 0, 0.8], [0.9, 0, 1, 0], [0, 0.8, 0, 1]])
    order = hierarchical_order(r)
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1


def test_likelihood_vectors_are_double_centred_and_distances_are_bits_per_byte():
    rng = np.random.default_rng(0)
    values = rng.normal(-20, 3, (3, 50))
    rows = [
        {"model": f"m{i}", "dataset": "base", "recipe": "base", "epoch": 0, "method": "base", "rows": None, "schedule": None}
        | {"benchmark": "b", "item": j, "log_likelihood": values[i, j], "tokens": 5, "bytes": 4000 if j == 7 else 40}
        for i in range(3)
        for j in range(50)
    ]
    frame = pl.DataFrame(rows).filter(~((pl.col("model") == "m1") & (pl.col("item") == 7)))
    found = analyse_map.vectors(frame.sample(fraction=1, shuffle=True, seed=1))
    assert found.values.shape == (3, 49)
    assert found.dropped == 1
    assert np.abs(found.values.mean(axis=0)).max() < 1e-12
    clipped = np.delete(values, 7, axis=1)
    clipped = np.maximum(clipped, np.quantile(clipped, 0.02))
    clipped -= clipped.mean(axis=1, keepdims=True)
    first, second = (int(found.keys["model"].to_list().index(name)) for name in ("m0", "m2"))
    by_hand = np.mean((clipped[0] - clipped[2]) ** 2) / 2 / np.log(2) / 40
    assert found.squared_distances()[first, second] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("rows", "draw", "how"),
    [
        (12, analyse_map.embed, "PCA"),
        (40, analyse_map.embed, "t-SNE"),
        pytest.param(40, lambda values, seed: analyse_map.project(values, "umap", seed), "UMAP", marks=pytest.mark.slow),  # it compiles
    ],
)
def test_the_map_is_the_same_twice_and_keeps_clusters_apart(rows, draw, how):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 20)) + 20 * (np.arange(rows) % 2)[:, None]
    place, method = draw(values, seed=3)
    again, _ = draw(values, seed=3)
    assert np.array_equal(place, again)
    assert method.startswith(how)
    centres = place[::2].mean(axis=0), place[1::2].mean(axis=0)
    assert np.linalg.norm(centres[0] - centres[1]) > place[::2].std()


def test_base_share_is_high_where_it_was_planted_and_divergence_grows(studies):
    study, _, frames = studies["full"]
    found = analyse_map.vectors(frames["likelihood"])
    assert analyse_map.base_share(found, study)[0].low > 0.4
    moved = analyse_map.distances(found)
    assert moved.filter(pl.col("epoch") == 0)["distance"].max() == 0
    means = moved.group_by("epoch").agg(pl.col("distance").mean()).sort("epoch")["distance"].to_list()
    assert means == sorted(means)


@pytest.mark.parametrize(
    ("count", "most", "across"), [(1, 3, 1), (3, 3, 3), (4, 3, 2), (5, 3, 3), (6, 4, 3), (12, 4, 4), (12, 3, 3), (8, 4, 4)]
)
def test_panels_leave_few_places_empty(count, most, across):
    assert style.panels_across(count, most) == across


@pytest.mark.slow
def test_the_command_writes_the_same_files_twice(studies, tmp_path):
    _, root, frames = studies["one model"]
    for name in FIGURES["perplexity_gain"]:
        (root / "tables").mkdir(exist_ok=True)
        frames[name].write_parquet(root / "tables" / f"{name}.parquet")
    script = ROOT / "workflow_scripts" / "run.py"
    made = []
    for i in range(2):
        pdf, png = tmp_path / f"{i}.pdf", tmp_path / f"{i}.png"
        call = [sys.executable, script, "plot", "--study", root / "study.json", "--figure", "perplexity_gain", "--tables", root / "tables"]
        subprocess.run([*call, "--output-pdf", pdf, "--output-png", png], check=True, capture_output=True)
        made.append((pdf.read_bytes(), png.read_bytes()))
    assert made[0] == made[1]


def test_every_figure_has_a_caption_for_the_report():
    assert list(CAPTIONS) != [] and set(CAPTIONS) == set(FIGURES)
    assert all(caption.text.endswith(".") for caption in CAPTIONS.values())


def test_the_registry_imports_nothing_heavy():
    code = "import sys, sft_atlas.report.figures, sft_atlas.study.paths; assert not {'matplotlib', 'polars', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "workflow_scripts")})
