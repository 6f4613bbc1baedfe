"""Layer curves: a planted mid-layer peak is found, a planted absence is reported as absence."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from helpers.rates import is_at_most, is_nominal
from sft_atlas.analyse.analyse_layers import Cube, agreement, cube, curves, gain_correlation, magnitude
from sft_atlas.report.sections.weights import change_and_gain


def planted(rng, peak=None, models=6, sets=8, depths=12):
    """Change of layers that shares its size over depth; with ``peak``, layers around it change the more the more a run gains."""
    at = np.linspace(0, 1, depths)
    gain = rng.normal(size=sets) + rng.normal(size=(models, sets)) + 3 * rng.normal(size=(models, 1))
    change = 0.5 * (rng.normal(size=sets) + rng.normal(size=(models, sets))) + rng.normal(size=(depths, models, sets))
    change = change + 2 * rng.normal(size=(1, models, 1))
    if peak is not None:
        bump = np.exp(-(((at - peak) / 0.15) ** 2) / 2)
        change = change + 1.5 * bump[:, None, None] * (gain - gain.mean(axis=1, keepdims=True))
    return Cube(at, change, gain, [f"m{i}" for i in range(models)])


def has_a_place(peak):
    """Whether the page of findings names a depth, as if this were its only test."""
    (statement,) = change_and_gain(pl.DataFrame([{"method": "full", **peak}])).statements
    text = statement.sentence(statement.estimate, peak["p"])
    assert ("no depth at which" in text) == (peak["p"] >= 0.05)
    return "correlates with gain, most at depth" in text


def test_a_planted_mid_layer_peak_is_found_in_its_place():
    rng = np.random.default_rng(0)
    result = [gain_correlation(planted(rng, peak=0.6), seed=i, draws=299)[1] for i in range(40)]
    assert np.mean([has_a_place(peak) and abs(peak["depth"] - 0.6) <= 0.1 for peak in result]) > 0.9
    assert np.mean([peak["near"] for peak in result]) > 0.8


def test_absence_is_reported_as_absence():
    rng = np.random.default_rng(1)
    result = [gain_correlation(planted(rng), seed=i, draws=299)[1] for i in range(300)]
    assert is_nominal([peak["p"] <= 0.05 for peak in result])
    assert np.mean([has_a_place(peak) for peak in result]) < 0.03


def test_a_relation_that_is_the_same_at_every_depth_has_no_place():
    rng = np.random.default_rng(2)
    places = []
    for i in range(30):
        data = planted(rng)
        same = data.change + 1.5 * (data.gain - data.gain.mean(axis=1, keepdims=True))
        peak = gain_correlation(Cube(data.depths, same, data.gain, data.models), seed=i, draws=299)[1]
        assert peak["p"] <= 0.05
        places.append(has_a_place(peak))
    assert np.mean(places) < 0.15


def test_the_band_is_wider_for_several_depths_than_for_one():
    data = planted(np.random.default_rng(3))
    curve, peak = gain_correlation(data, seed=0, draws=999)
    one = Cube(data.depths[:1], data.change[:1], data.gain, data.models)
    assert curve[0]["band"] > gain_correlation(one, seed=0, draws=999)[0][0]["band"]
    assert peak["p"] == min(row["p"] for row in curve)


def test_the_value_is_the_correlation_within_base_models():
    data = planted(np.random.default_rng(4), peak=0.5)
    curve, _ = gain_correlation(data, seed=0, draws=99)
    for k, row in enumerate(curve):
        a, b = (values - values.mean(axis=1, keepdims=True) for values in (data.change[k], data.gain))
        assert row["value"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        assert row["low"] <= row["high"]


def test_agreement_is_the_mean_correlation_of_pairs_of_base_models():
    rng = np.random.default_rng(5)
    data = planted(rng, models=3)
    curve, _ = agreement(data, seed=0, draws=99)
    for k, row in enumerate(curve):
        r = np.corrcoef(data.change[k])
        assert row["value"] == pytest.approx(r[np.triu_indices(3, 1)].mean())


@pytest.mark.slow
def test_agreement_has_its_level_and_finds_common_changes():
    rng = np.random.default_rng(6)

    def independent():
        data = planted(rng, models=4, sets=6, depths=4)
        return Cube(data.depths, rng.normal(size=data.change.shape), data.gain, data.models)

    assert is_at_most([agreement(independent(), seed=i, draws=199)[1]["p"] <= 0.05 for i in range(200)])
    common = [independent() for _ in range(15)]
    result = [agreement(Cube(d.depths, d.change + 2 * rng.normal(size=(4, 1, 6)), d.gain, d.models), 0, 199)[1]["p"] for d in common]
    assert np.mean(np.array(result) <= 0.05) > 0.9


def test_missing_runs_are_left_out_and_little_is_undefined():
    data = planted(np.random.default_rng(7), peak=0.6)
    data.change[:, 0, 0], data.gain[1, 1] = np.nan, np.nan
    curve, peak = gain_correlation(data, seed=0, draws=99)
    assert curve[0]["n"] == 46 and np.isfinite(peak["value"])
    assert agreement(data, seed=0, draws=99)[1]["sets"] == 7
    few = Cube(data.depths, data.change[:, :, :3], data.gain[:, :3], data.models)
    assert gain_correlation(few, seed=0) is None and agreement(few, seed=0) is None
    assert magnitude(data)[0]["value"] == pytest.approx(np.median(np.exp(data.change[0][np.isfinite(data.change[0])])))


def test_base_models_of_different_depth_are_brought_to_one_grid():
    study, _, frames = synthetic.collected()
    layers = frames["layers"].filter((pl.col("model") != "birch-1b") | (pl.col("layer") < 4))
    shallow = pl.when(pl.col("model") == "birch-1b").then(pl.col("layer") / 3).otherwise(pl.col("depth")).alias("depth")
    data = cube(frames | {"layers": layers.with_columns(shallow)}, study, "full")
    assert data.depths.tolist() == pytest.approx(np.linspace(0, 1, 6).tolist())
    assert np.isfinite(data.change).all()


def test_layers_that_were_not_trained_have_no_change_at_their_depth():
    """A recipe with `layers: [0.3, 0.7]`: the others did not move, and are not given the change of the nearest that did."""
    study, _, frames = synthetic.collected()
    trained = (pl.col("depth") > 0.3) & (pl.col("depth") < 0.7)
    layers = frames["layers"].with_columns(pl.when(trained).then("relative_change").otherwise(0.0))
    own = layers.filter(trained)["depth"].unique().sort().to_list()
    data = cube(frames | {"layers": layers}, study, "full")
    assert data.depths.tolist() == pytest.approx(own) and np.isfinite(data.change).all()
    # Another base model has its first trained layer higher up: what is below is known of two of three.
    higher = layers.filter((pl.col("model") != "birch-1b") | (pl.col("depth") > own[0] + 1e-9))
    data = cube(frames | {"layers": higher}, study, "full")
    assert data.depths.min() == pytest.approx(own[1]) and np.isfinite(data.change).all()
    apart = layers.filter(
        pl.when(pl.col("model") == "birch-1b").then(pl.col("depth") > own[0] + 1e-9).otherwise(pl.col("depth") < own[1] - 1e-9)
    )
    assert curves(frames | {"layers": apart}, study)[0].is_empty()


def test_the_tables_of_the_synthetic_study_show_its_peak():
    study, _, frames = synthetic.collected()
    _, peaks = curves(frames, study)
    row = peaks.filter(method="full", measure="gain").row(0, named=True)
    assert row["depth"] == pytest.approx(0.6) and row["value"] > 0.8 and row["p"] < 0.05
