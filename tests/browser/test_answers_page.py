"""Answers side by side: from a heat map to the answers, filters, hostile answers as text, and what is not there."""

import re

import pytest

from helpers.atlas import HOSTILE, HOSTILE_ANSWERS

OPENED = "answers.html?model=alder-1b&benchmark=sums&first=alder-1b/arith/full-256/3"


def verdicts(page, side):
    """The first badge of each item that is shown, of one side."""
    return page.locator(f".item .answers section:nth-child({side}) .badge:first-child").all_inner_texts()


def items(page):
    return int(page.locator("#count").inner_text().split()[0])


def test_hostile_answers_are_shown_and_not_run(visit):
    page = visit(OPENED)
    own = page.locator(".item .answers section:nth-child(2)")
    texts = [own.nth(i).locator("pre").last.text_content() for i in range(5)]
    assert texts == [*HOSTILE_ANSWERS[:4], "x" * 10_000]
    assert "and 20,000 more characters" in own.nth(4).inner_text()
    assert "Raw answer: white space only" in own.nth(5).inner_text() and "Raw answer: empty" in own.nth(6).inner_text()
    assert HOSTILE[1] in page.locator(".item pre").first.inner_text()
    assert page.evaluate("window.pwned === undefined") and page.locator("main script, main img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_filters_show_what_they_say(visit):
    page = visit(OPENED)
    everything = items(page)
    assert everything == 100 and page.locator(".item").count() == 20
    page.get_by_role("button", name="Show more items").click()
    assert page.locator(".item").count() == 40
    choice = page.get_by_role("combobox", name="Show")
    choice.select_option(label="base wrong, first right")
    up = items(page)
    assert 0 < up < everything and set(verdicts(page, 1)) == {"wrong"} and set(verdicts(page, 2)) == {"right"}
    choice.select_option(label="first wrong, base right")
    assert set(verdicts(page, 1)) == {"right"} and set(verdicts(page, 2)) == {"wrong"}
    for kind, item in (("truncated", "Item 2"), ("unparsed", "Item 3")):
        choice.select_option(label=kind)
        assert items(page) == 1 and page.locator(".item h2").all_inner_texts() == [item]
    choice.select_option("all")
    page.get_by_label("Containing").fill("question 17:")
    assert page.locator(".item h2").all_inner_texts() == ["Item 17"]
    assert "words=question+17" in page.url and "filter" not in page.url


def test_a_second_checkpoint_and_another_model(visit):
    page = visit(OPENED + "&second=alder-1b/arith/lora-256/3&filter=first-second")
    assert page.locator(".item").first.locator("h3").count() == 3
    assert set(verdicts(page, 2)) == {"wrong"} and set(verdicts(page, 3)) == {"right"}
    page.get_by_role("combobox", name="Base model").select_option("birch-1b")
    page.locator(".item h3 a[href*='birch-1b']").first.wait_for()
    assert page.locator(".item").first.locator("h3").count() == 2
    assert "All 100 items are here." in page.locator("#bounds").inner_text()


def test_from_a_heat_map_to_the_answers(visit):
    page = visit("heat_maps.html")
    page.locator("#table tbody a").first.click()
    page.wait_for_selector("#shown:not([hidden])")
    page.get_by_role("link", name="Read its answers").click()
    page.wait_for_selector("body[data-ready] .item")
    assert page.locator("#first").input_value() == "alder-1b/arith/full-256/3"


def test_a_checkpoint_that_is_not_there_is_said(visit):
    page = visit("answers.html?first=alder-1b/no/such/3")
    assert page.locator("#none").inner_text() == "This atlas has no answers of alder-1b/no/such/3; others are shown."


def test_the_keyboard_chooses_and_scrolls(visit):
    page = visit(OPENED)
    page.locator("#filter").focus()
    page.keyboard.press("t")  # the option "truncated"
    page.locator("#count", has_text=re.compile("^1 ")).wait_for()
    page.keyboard.press("Home")
    page.locator("#count", has_text=re.compile("^100 ")).wait_for()
    long = page.locator(".item:nth-child(5) .answers section:nth-child(2) pre").last
    assert long.get_attribute("tabindex") == "0", "what scrolls can have the focus"
    assert page.locator(".item:nth-child(1) pre").first.get_attribute("tabindex") is None


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], ids=["narrow"], indirect=True)
def test_answers_stand_below_each_other_on_a_telephone(visit):
    page = visit(OPENED)
    boxes = [page.locator(".item:first-child .answers section").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[1]["y"] > boxes[0]["y"]
