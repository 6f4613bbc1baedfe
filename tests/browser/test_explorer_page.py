"""The Explorer sorts, filters, searches, chooses columns, saves what is shown, and is fast with as many checkpoints as the paper has."""

import csv

import pytest

from helpers import atlas as atlases
from helpers.atlas import values
from sft_atlas.atlas import contents, write_atlas
from sft_atlas.atlas.pages import explorer


def shown(page):
    return page.locator("#table tbody tr").count()


def test_a_click_sorts_by_gain(visit):
    page = visit("explorer.html")
    page.get_by_role("columnheader", name="Mean gain").click()
    gains = [float(text.split("±")[0].replace("−", "-")) for text in values(page, "Mean gain") if text != "–"]
    assert len(gains) > 30 and gains == sorted(gains, reverse=True)
    page.get_by_role("link", name="Last").click()
    assert values(page, "Mean gain")[-1] == "–", "missing gains are last"


def test_filters_search_and_missing_scores(visit):
    page = visit("explorer.html")
    everything = shown(page)
    page.get_by_role("combobox", name="Base model").select_option("alder-1b")
    page.get_by_label("last epochs only").check()
    names = set(values(page, "Base model"))
    assert len(names) == 1 and "alder-1b" in names.pop()
    assert 0 < shown(page) < everything / 2
    page.get_by_role("searchbox").or_(page.get_by_label("Search:")).fill("lora")
    assert set(values(page, "Method")) == {"LoRA"}
    assert "1 of 62 checkpoints have no score: alder-1b/logic/lora-256/3" in page.locator("#missing").inner_text()


def test_columns_are_chosen_and_the_csv_has_what_is_shown(visit, tmp_path):
    page = visit("explorer.html?model=birch-1b&show=gain&group=mathematics")
    assert any("sums" in text and "gain" in text for text in page.locator("#table thead th").all_inner_texts())
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("button", name="Seed", exact=True).click()
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    download.value.save_as(tmp_path / "shown.csv")
    rows = list(csv.DictReader((tmp_path / "shown.csv").open(encoding="utf-8-sig")))
    assert len(rows) == shown(page) == 31
    assert {"Seed", "Mean gain", "Mean gain stderr"} <= set(rows[0])
    gain = next(name for name in rows[0] if name.startswith("sums") and name.endswith(", gain"))
    assert float(rows[-1][f"{gain} low"]) < float(rows[-1][gain]) < float(rows[-1][f"{gain} high"])
    assert rows[-1][f"{gain} n"] == "100"
    assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    study, tables = atlases.paper_grid()
    folder = tmp_path_factory.mktemp("grid") / "atlas"
    write_atlas.write(folder, contents.Contents(study, tables, tables, contents.expected(study)), "grid", "", {"explorer": explorer})
    return folder


def test_a_thousand_checkpoints_are_there_within_two_seconds(visit, grid):
    """The shortest of three visits, because other tests run at the same time."""
    seconds = []
    for _ in range(3):
        page = visit("explorer.html", grid)
        assert "of 1,060 entries" in page.locator(".dt-info").inner_text()
        seconds.append(page.evaluate("performance.now()") / 1000)
    assert min(seconds) < 2
