"""The map of the atlas: positions of the figure, PCA to scale beside a t-SNE, divergences of the table, and too few checkpoints."""

import numpy as np
import polars as pl
import pytest

from helpers import atlas as atlases
from helpers import synthetic
from sft_atlas.analyse import analyse_map
from sft_atlas.atlas import contents
from sft_atlas.atlas.pages import checkpoint, model_map


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = synthetic.study_json(models=2, datasets=3, lora=False, trajectories=False, leave_one_out=False, merged=False)
    synthetic.write(root := tmp_path_factory.mktemp("map") / "study", made)
    return made, synthetic.every_table(made, root)


def test_positions_are_those_of_the_figure_and_divergences_those_of_the_analysis(study):
    made, tables = study
    shown = contents.Contents(made, tables, tables, contents.expected(made))
    drawn = model_map.drawn(shown)
    vectors = analyse_map.vectors(tables["likelihood"])
    plane, words = analyse_map.embed(vectors.values, made["seed"])
    view, points = drawn["views"][0], drawn["checkpoints"]
    assert view["label"] == words and view["to_scale"] and len(drawn["views"]) == 1
    assert np.column_stack([view["x"], view["y"]]) == pytest.approx(plane, abs=1e-4)
    assert points["distance"] == pytest.approx(analyse_map.distances(vectors)["distance"].to_list(), rel=1e-6)
    assert [shown.checkpoints["address"][number] for number in points["number"]] == points["address"]
    near = checkpoint.nearest(shown)["alder-1b", "arith", "full-256", 3][0]
    place = points["address"].index("alder-1b/arith/full-256/3")
    assert [points["nearest"][place], points["nearest_distance"][place]] == [near[0], pytest.approx(near[1], abs=1e-6)]


def test_many_checkpoints_have_a_projection_not_to_scale_and_one_to_scale():
    rng = np.random.default_rng(0)
    keys = pl.DataFrame({"model": ["m"] * 40})
    found = model_map.views(analyse_map.Vectors(keys, rng.normal(size=(40, 12)), 4.0, 0), 0)
    assert [(view["key"], view["to_scale"]) for view in found] == [("tsne", False), ("pca", True)]


def test_a_base_model_without_likelihoods_leaves_its_distances_open(study):
    made, tables = study
    own = tables["likelihood"].filter(~synthetic.at("alder-1b", "base", "base", 0))
    points = model_map.drawn(contents.Contents(made, tables, tables | {"likelihood": own}, contents.expected(made)))["checkpoints"]
    by_model = {model: [d for m, d in zip(points["model"], points["distance"], strict=True) if m == model] for model in made["models"]}
    assert set(by_model["alder-1b"]) == {None} and None not in by_model["birch-1b"]


def test_without_likelihoods_there_is_no_map():
    made, tables = atlases.paper_grid(models=1, datasets=1, epochs=1)
    assert model_map.drawn(contents.Contents(made, tables, tables, contents.expected(made))) == {"checkpoints": None, "views": []}
