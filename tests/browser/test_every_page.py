"""What holds for every page: no error in the console, nothing from the network, hostile names as text, keyboard, contrast, width."""

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe

from helpers.atlas import HOSTILE
from sft_atlas.atlas.write_atlas import PAGES

BAD = ("serious", "critical")
LOOKS = [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}]


@pytest.mark.parametrize("page", LOOKS, ids=["light", "dark", "narrow"], indirect=True)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_and_has_no_serious_fault_of_access(visit, name):
    page = visit(f"{name}.html")
    assert page.locator("h1").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    if page.viewport_size["width"] < 500:
        return  # the rest does not depend on the width
    part = {
        "exclude": [["tbody tr:nth-child(n+6)"], [".plot-container"]]
    }  # further rows are like the first; charts have a table beside them
    found = [each for each in Axe().run(page, part, {"preload": False}).response["violations"] if each["impact"] in BAD]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found] == []


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names_are_shown_and_not_run(visit, name):
    page = visit(f"{name}.html")
    assert page.evaluate("window.pwned === undefined")
    assert page.locator("img[src=x], svg[onload], main b").count() == 0


def test_a_hostile_name_is_readable(visit):
    page = visit("explorer.html")
    assert HOSTILE[0] in page.locator("#table").inner_text()


def test_the_keyboard_reaches_the_content_and_the_pages(visit):
    page = visit("explorer.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_a_page_whose_data_are_gone_says_so(page, errors, atlas, tmp_path):
    shutil.copytree(atlas, tmp_path / "atlas")
    (tmp_path / "atlas/data/checkpoints.js").unlink()
    page.goto((tmp_path / "atlas/explorer.html").as_uri())
    page.wait_for_selector("#problems .problem")
    assert "checkpoints.js cannot be read; write the atlas again: snakemake atlas" in page.locator("#problems").inner_text()
    assert any("ERR_FILE_NOT_FOUND" in error for error in errors)
    errors.clear()
