"""The page of a run: it opens from a disk, refreshes itself unless its reader stops that, and shows logs as text."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from helpers import atlas as atlases
from helpers.recording import HOSTILE, Recording
from sft_atlas.core.provenance import ROOT
from sft_atlas.plan import watch

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (make env)")
LOOKS = [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}]


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    made = Recording(tmp_path / "small")
    for number in (1, 2, 3):
        made.start(number, log=f"x INFO ant/red/full: step {number}0/40, loss 2.5\n")
    made.finish(1)
    made.start(5, log=HOSTILE)
    made.fail(5)
    yield made
    made.close()


def write(recording, seconds=15):
    look = watch.Look.now(recording.root, ROOT / "config/devices.yaml")
    (recording.root / "watch.html").write_text(watch.page(look, seconds))


@pytest.mark.parametrize("page", LOOKS, ids=["light", "dark", "narrow"], indirect=True)
def test_the_page_opens_without_a_fault_of_access(page, recording):
    write(recording)
    page.goto(atlases.address(recording.root, "watch.html"))
    assert page.locator("tbody").first.locator("tr").count() == 6
    assert "<script>alert(1)</script>" in page.locator("pre").inner_text() and page.locator("script").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert [(found["id"], found["help"]) for found in Axe().run(page).response["violations"]] == []


def test_the_page_refreshes_itself_until_its_reader_stops_it(page, recording):
    write(recording, seconds=1)
    page.goto(atlases.address(recording.root, "watch.html"))
    recording.finish(2)
    write(recording, seconds=1)
    sync_api.expect(page).to_have_title(re.compile("^3 of"))
    page.get_by_label("Do not refresh").check()
    recording.finish(3)
    write(recording, seconds=1)
    page.wait_for_timeout(1500)
    assert page.title().startswith("3 of")
    page.reload()
    assert page.title().startswith("4 of") and page.get_by_label("Do not refresh").is_checked()
