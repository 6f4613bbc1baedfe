"""Published: the authors' rows as published or repaired, marks with reasons on what the audit changed; and every page of that atlas."""

from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe

from helpers import published_csv
from helpers.atlas import values
from sft_atlas.atlas import write_atlas, write_published_atlas
from sft_atlas.atlas.pages import published
from sft_atlas.published import audit_published, tidy_published


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An atlas of a small CSV in which the MMLU means of one base model include other benchmarks' files."""
    scores = tidy_published.tidy(published_csv.encode(published_csv.frame(pooled="OLMo-7B-hf")))
    found = audit_published.audit(scores)
    audited = {"scores": scores, "repairs": audit_published.repairs(found), "audit": audit_published.table(found)}
    shown = replace(
        write_published_atlas.contents(scores, audited["repairs"]), audited=audited, remarks=published.remarks(audited), heading="CSV"
    )
    target = tmp_path_factory.mktemp("published") / "atlas"
    write_atlas.write(target, shown, "CSV", "about", write_published_atlas.PAGES)
    return target


@pytest.mark.parametrize("name", write_published_atlas.PAGES)
def test_every_page_opens(visit, folder, name):
    page = visit(f"{name}.html", folder)
    assert page.locator("h1").inner_text()
    if name == "published":
        part = {"exclude": [["tbody tr:nth-child(n+6)"], [".plot-container"]]}
        found = Axe().run(page, part, {"preload": False}).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


def test_the_switch_shows_a_score_as_published_and_repaired(visit, folder):
    page = visit("published.html", folder)
    page.get_by_role("combobox", name="Changed by").select_option("any")
    page.get_by_role("combobox", name="Benchmarks").select_option("examination")
    repaired = values(page, "MMLU 5-shot")[0]
    assert repaired == "– †"
    reason = page.locator("#table td", has_text=repaired).first.get_attribute("title")
    assert "as published, set to null" in reason
    page.get_by_role("combobox", name="Scores").select_option("raw")
    raw = values(page, "MMLU 5-shot")[0]
    assert raw != repaired and raw.split(" ")[0] in reason
    assert "One column, two quantities" in values(page, "Reason", "changes")[0]


def test_a_checkpoint_says_what_was_changed(visit, folder):
    page = visit("published.html", folder)
    page.get_by_role("combobox", name="Changed by").select_option("any")
    page.locator("#table tbody a").first.click()
    page.wait_for_selector("#remarks li")
    assert "as published, set to null (One column, two quantities" in page.locator("#remarks").inner_text()
