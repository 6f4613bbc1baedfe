"""Every figure draws on a full study and on poor ones, is the same twice, and shows what was planted."""

import itertools
import subprocess
import sys
from importlib import import_module

import matplotlib.text
import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import select
from sft_atlas.core.provenance import ROOT
from sft_atlas.report.figures import FIGURES, components, style
from sft_atlas.report.figures.gains import colour_limit

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
    return import_module(f"sft_atlas.report.figures.{name}").draw({table: frames[table] for table in FIGURES[name].tables}, study)


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


def test_hierarchical_order_puts_similar_sets_side_by_side():
    from sft_atlas.report.figures.similarity import hierarchical_order

    r = np.array([[1, 0, 0.9, 0], [0, 1, 0, 0.8], [0.9, 0, 1, 0], [0, 0.8, 0, 1]])
    order = hierarchical_order(r)
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1


@pytest.mark.parametrize(
    ("count", "most", "across"), [(1, 3, 1), (3, 3, 3), (4, 3, 2), (5, 3, 3), (6, 4, 3), (12, 4, 4), (12, 3, 3), (8, 4, 4)]
)
def test_panels_leave_few_places_empty(count, most, across):
    assert style.panels_across(count, most) == across


def test_every_figure_has_a_caption_for_the_report():
    assert FIGURES and all(entry.caption.endswith(".") for entry in FIGURES.values())


def test_the_registry_imports_nothing_heavy():
    code = "import sys, sft_atlas.report.figures, sft_atlas.study.paths; assert not {'matplotlib', 'polars', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "workflow_scripts")})


def test_effects_that_too_few_base_models_decide_are_counted_apart():
    from sft_atlas.report.figures import consistency

    table = pl.DataFrame({"n": [9, 8, 9, 4, 1, 0], "q": [0.01, 0.04, 0.4, float("nan"), float("nan"), float("nan")]})
    assert consistency.significant(table) == (
        "2 of 3 effects significant (q < 0.05), n = 8 to 9 base models; 3 cannot be decided with 0 to 4 base models"
    )
    assert consistency.significant(table.filter(pl.col("n") == 4)) == (
        "no effect can be decided with so few base models, n = 4 base models"
    )


KEYS = {"epoch", "rows", "n", "depth", "layer", "items", "item"}


def filled(frames, value):
    """The tables with one value in the place of every measured number."""
    measured = {name: [c for c, kind in frame.schema.items() if kind.is_float() and c not in KEYS] for name, frame in frames.items()}
    return {name: frame.with_columns(pl.lit(value, frame.schema[c]).alias(c) for c in measured[name]) for name, frame in frames.items()}


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("name", FIGURES)
def test_tables_without_a_value_say_what_they_need(name, value, studies):
    study, _, frames = studies["full"]
    assert "needs" in words(draw(name, study, filled(frames, value))).replace("\n", " ")


@pytest.mark.parametrize("name", FIGURES)
def test_values_that_do_not_vary_are_drawn(name, studies):
    study, _, frames = studies["full"]
    figure = draw(name, study, filled(frames, 0.5))
    figure.set_dpi(30)
    figure.draw_without_rendering()


def test_colours_reach_the_largest_significant_gain_and_ignore_one_outlier():
    gains = [0.0] * 200 + [0.30] * 20 + [0.81]
    cells = pl.DataFrame({"gain": gains, "q": [1.0] * 200 + [0.001] * 21})
    assert colour_limit(cells.filter(pl.col("gain") < 0.8)) == pytest.approx(30)
    assert colour_limit(cells) == pytest.approx(60)
    assert colour_limit(pl.DataFrame({"gain": [0.32, 0.5, 0.68, 0.81], "q": [0.01] * 4})) == pytest.approx(81)
    assert colour_limit(cells.with_columns(q=pl.lit(None, pl.Float64))) > 0


def test_a_colour_means_one_base_model_one_training_set_or_one_method(studies):
    models, sets, methods = set(style.MODEL_COLOURS), set(style.DATASET_COLOURS), set(style.METHOD_COLOURS.values())
    assert not models & sets and not methods & (models | sets) and len(models) == len(sets) == 12
    study, _, _ = studies["full"]
    some = list(study["datasets"])[2:4]
    assert style.dataset_colours(study, some)[0].items() <= style.dataset_colours(study, list(study["datasets"])[:5])[0].items()


def test_lines_from_names_to_points_do_not_cross():
    rng = np.random.default_rng(0)
    canvas = style.figure(style.PAGE, 3)
    axis = canvas.subplots(1, 3)[1]
    points = rng.normal(size=(14, 2))
    axis.scatter(*points.T)
    components.name_points(axis, points, [str(i) for i in range(14)], ["black"] * 14)
    ends = [(note.xy, axis.transData.inverted().transform(axis.transAxes.transform(note.xyann))) for note in axis.texts]

    def side(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    for (a, b), (c, d) in itertools.combinations(ends, 2):
        assert not (side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0)


def test_the_map_is_not_drawn_twice(studies):
    study, _, frames = studies["full"]
    own = words(draw("model_map", study, frames))
    others = words(draw("map_drawings", study, frames))
    assert ("t-SNE" in own) != ("t-SNE" in others) and "PCA" in own + others


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"model_map", "map_drawings"}))  # whose number of points is that of checkpoints
def test_a_hundred_training_sets_are_drawn_with_labels_that_do_not_overlap(name, studies):
    study, frames = synthetic.multiplied(studies["full"][0], studies["full"][2], 17)
    figure = draw(name, study, frames)
    figure.draw_without_rendering()
    assert max(figure.get_size_inches()) * style.DPI < 2**16
    for axis in figure.axes:
        places = sorted(label.get_window_extent().y0 for label in axis.get_yticklabels() if label.get_text() and axis.get_images())
        assert all(b - a > 0.8 * style.SMALL / 72 * figure.dpi for a, b in itertools.pairwise(places))
    if figure.legends:
        assert figure.legends[0].get_window_extent().height < 0.5 * figure.bbox.height


def test_a_figure_that_fails_says_so_and_the_job_goes_on(studies, run_script, tmp_path, monkeypatch, caplog):
    from sft_atlas.report import plot
    from sft_atlas.report.figures import gains

    _, root, frames = studies["full"]
    frames["gains"].write_parquet(tmp_path / "gains.parquet")
    monkeypatch.setattr(gains, "draw", lambda tables, study: 1 / 0)
    paths = {"output_pdf": tmp_path / "x.pdf", "output_png": tmp_path / "x.png"}
    run_script(plot, study=root / "study.json", tables=tmp_path, figure="gains", **paths)
    assert paths["output_png"].stat().st_size > 1000 and paths["output_pdf"].stat().st_size > 1000
    assert "the figure gains was not drawn, and says so: ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" in words(style.failed("gains", ZeroDivisionError("division by zero")))
