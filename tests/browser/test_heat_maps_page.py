"""Heat maps: hover says n, interval and q; a click opens the checkpoint; the table below has the same numbers for the keyboard."""

import re

from helpers.atlas import HOSTILE, hovered, values


def test_hover_and_click_on_a_cell(visit):
    page = visit("heat_maps.html")
    first = page.locator("#maps .chart").first
    first.scroll_into_view_if_needed()
    plot = first.locator(".nsewdrag").first
    plot.wait_for()
    box = plot.bounding_box()
    text = hovered(page, box["x"] + 6, box["y"] + 6)
    assert re.search(r"gain [+−]?\d+\.\d points \[.* to .*\]", text) and re.search(r"q [=<] [01]\.\d+, n = 100", text)
    assert HOSTILE[0] in text.replace("\n", " ") or "alder-1b" in text
    page.mouse.click(box["x"] + 6, box["y"] + 6)
    page.wait_for_url(re.compile(r"checkpoint\.html#alder-1b/arith/full-256/3$"))


def test_the_choice_of_a_group_leaves_its_benchmarks(visit):
    page = visit("heat_maps.html?group=code")
    assert {text.split(" ")[0] for text in values(page, "Benchmark")} == {"order", "loops"}
    page.get_by_role("combobox", name="Recipe").select_option("lora-256")
    assert page.locator("#table tbody tr").count() > 5


def test_the_table_links_to_checkpoints(visit):
    page = visit("heat_maps.html")
    assert page.locator("#table tbody a").first.get_attribute("href") == "checkpoint.html#alder-1b/arith/full-256/3"
