"""The map: colours, hover, click, scale, the table of divergences, and a study without likelihoods."""

import re

import pytest

from helpers import atlas as atlases
from helpers.atlas import HOSTILE, hovered, values
from sft_atlas.atlas import contents, write_atlas
from sft_atlas.atlas.pages import model_map


def test_every_colour_draws_and_hover_says_what_a_point_is(visit):
    page = visit("model_map.html")
    count = page.locator("#map .point").count()
    assert count == page.evaluate("document.querySelectorAll('#map .point').length") > 30
    for kind in page.locator("#colour option").evaluate_all("list => list.map(each => each.value)"):
        page.locator("#colour").select_option(kind)
        assert page.locator("#map .point").count() == count
    page.locator("#colour").select_option("mean")
    point = page.locator("#map .point").last.bounding_box()
    text = hovered(page, point["x"] + point["width"] / 2, point["y"] + point["height"] / 2, "#map")
    assert re.search(r"divergence from the base model [\d.]+ bits per byte", text) and "mean gain: " in text
    assert HOSTILE[0] in text or "birch-1b" in text


def test_a_click_opens_the_checkpoint(visit):
    page = visit("model_map.html?dataset=arith&model=alder-1b")
    point = page.locator("#map .point").last.bounding_box()
    hovered(page, x := point["x"] + point["width"] / 2, y := point["y"] + point["height"] / 2, "#map")
    page.mouse.click(x, y)
    page.wait_for_url(re.compile(r"checkpoint\.html#alder-1b/"))


def test_a_t_sne_says_that_it_is_not_to_scale(visit):
    page = visit("model_map.html")
    assert "not to scale" in page.locator("#scale-note").inner_text() and "t-SNE" in page.locator("#scale-note").inner_text()
    page.get_by_role("combobox", name="Projection").select_option("pca")
    assert "not to scale" not in page.locator("#scale-note").inner_text()


def test_choices_hold_for_the_table_too(visit):
    page = visit("model_map.html")
    everything = page.locator("#table tbody tr").count()
    page.get_by_role("combobox", name="Method").select_option("lora")
    page.get_by_role("combobox", name="Base model").select_option("alder-1b")
    assert 0 < page.locator("#table tbody tr").count() < everything
    assert all("lora" in text.lower() or text == "base model" for text in values(page, "Recipe"))
    assert page.locator("#table tbody td a").first.get_attribute("href") == "checkpoint.html#alder-1b/base/base/0"


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    study, tables = atlases.paper_grid(models=1, datasets=2, epochs=1, benchmarks=2)
    folder = tmp_path_factory.mktemp("without") / "atlas"
    write_atlas.write(folder, contents.Contents(study, tables, tables, contents.expected(study)), "grid", "", {"model_map": model_map})
    return folder


def test_a_study_without_likelihoods_says_what_it_needs(visit, without):
    page = visit("model_map.html", without)
    assert "measure_representation: true" in page.locator("#none").inner_text() and page.locator("#shown").is_hidden()
