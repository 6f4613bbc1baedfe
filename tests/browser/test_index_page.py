"""Findings: the best set for each topic, matrices and scatter plots to hover over and click, and links to the rows behind a finding."""

import re

from helpers.atlas import hovered


def test_findings_link_to_rows_and_to_the_best_sets(visit):
    page = visit("index.html")
    page.get_by_role("link", name="code", exact=True).click()
    page.wait_for_url("**/best_sets.html?topic=group*")
    page.wait_for_selector("body[data-ready]")
    assert "is best for code" in page.locator("#answer").inner_text()
    page = visit("index.html")
    page.get_by_role("link", name="rows of perplexity").first.click()
    page.wait_for_selector("#table tbody tr")
    assert "tables/perplexity.parquet" in page.locator("#said").inner_text()
    page.get_by_role("combobox", name="Table").select_option("runs")
    page.locator("#table[aria-label='Table runs']").wait_for()


def test_a_scatter_plot_is_drawn_and_a_point_opens_its_checkpoint(visit):
    page = visit("index.html")
    plot = page.locator("[data-chart=perplexity_gain]").first
    plot.scroll_into_view_if_needed()
    plot.locator(".scatterlayer .point").first.wait_for()
    point = plot.locator(".scatterlayer .point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    text = hovered(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, "[data-chart=perplexity_gain]")
    assert re.search(r"perplexity .*mean gain .* ± .* points", text)
    point.click(force=True)
    page.wait_for_url("**/checkpoint.html#**")
