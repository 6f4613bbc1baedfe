"""Figures of published scores, of a table of one's own."""

from dataclasses import replace

import matplotlib.text
import polars as pl
import pytest

from sft_atlas.analyse import select
from sft_atlas.published import FIGURES, POLICIES, columns, figures
from sft_atlas.report.figures import style


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(own, name, policy):
    scores, _, repairs, data, tables = own
    figure = figures.draw(name, data[policy], tables[policy], scores, repairs, policy)
    figure.draw_without_rendering()
    texts = figure.findobj(matplotlib.text.Text)
    shown = "\n".join(text.get_text() for text in texts)
    assert "Nothing to show" not in shown and "n" in shown and figures.POLICY_LABELS[policy] in shown
    assert figure.get_figwidth() <= style.PAGE
    assert min(text.get_fontsize() for text in texts if text.get_text().strip()) >= style.SMALL


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_captions_count_the_gains_that_exist_and_name_the_models_that_are_left_out(own):
    scores, _, repairs, data, tables = own
    raw = data["raw"]
    first, *rest = raw.study["models"]
    gain = pl.when(pl.col("model") != first).then("gain").alias("gain")
    holes = pl.when(~((pl.col("model") == rest[0]) & (pl.col("benchmark") == "gsm8k-0"))).then(gain).alias("gain")
    poor = replace(raw, gains=raw.gains.with_columns(holes))
    shown = select.of_leading_method(select.single(poor.gains, raw.study))
    shown = shown.filter(pl.col("benchmark").is_in(columns.ZERO_SHOT)).drop_nulls("gain")
    text = words(figures.draw("gains", poor, tables["raw"], scores, repairs, "raw")).replace("\n", " ")
    assert f"of {shown.height} gains" in text
    assert "hatched: no value" in text
    assert f"not shown for want of results: {raw.study['models'][first]['label']}" in text
    assert "GSM8K 0-shot" in text


def test_all_benchmarks_is_the_same_in_figure_and_table(own):
    _, _, _, data, tables = own
    free = figures.base_free(data["raw"].gains, data["raw"].study, ["model", "benchmark"])
    pairs = select.method_pairs(free, data["raw"].study)
    table = tables["raw"]["lora_full"].filter(benchmark="all", data="single sets").row(0, named=True)
    assert 100 * select.overall_difference(pairs, 0).effect == pytest.approx(table["effect"])


def test_panels_of_epochs_show_the_same_series(own):
    _, _, _, data, tables = own
    table = tables["raw"]["trajectories"]
    model, small = table["model"][0], pl.col("rows") == table["rows"].min()
    poor = table.filter(~(small & (pl.col("model") == model) & (pl.col("benchmark") != "gsm8k-4") & (pl.col("kind") == "single")))
    titles = [axis.get_title("left") for axis in figures.epochs(poor, data["raw"].study).axes]
    single = [title.split(", ")[-1] for title in titles if "single sets" in title]
    assert len(single) > 1 and len(set(single)) == 1 and "no" not in single
