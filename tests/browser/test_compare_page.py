"""Compare: two checkpoints with tested differences in both directions, the answers behind a count, recipes, and pairs that are not there."""

from helpers.atlas import values

OPENED = "compare.html?first=alder-1b/arith/full-256/3&second=alder-1b/logic/full-256/3"


def differences(page):
    """The differences as numbers, by the row's text."""
    return [float(text.split()[0].replace("−", "-").replace("+", "").rstrip(",")) for text in values(page, "Difference", "scores")]


def test_a_pair_and_its_reverse(visit):
    page = visit(OPENED)
    straight = differences(page)
    assert len(straight) == 8 and any(straight)
    assert set(values(page, "n", "scores")) == {"100"} and all(text.startswith("q ") for text in values(page, "q", "scores"))
    assert page.locator("#differences svg.main-svg, #layers svg.main-svg").count() >= 2
    better, worse = (values(page, f"Items {side}", "scores") for side in ("better", "worse"))
    first, second = (page.locator(f"#{side}").input_value() for side in ("first", "second"))
    page.locator("#first").select_option(second)
    page.locator("#second").select_option(first)
    page.locator("#facts tbody td:nth-child(2) a", has_text="logic").wait_for()
    assert differences(page) == [-value if value else 0.0 for value in straight]
    assert (values(page, "Items worse", "scores"), values(page, "Items better", "scores")) == (better, worse)


def test_a_count_leads_to_the_answers_that_differ(visit):
    page = visit(OPENED)
    count = values(page, "Items better", "scores")[0]
    page.locator("#scores tbody tr").first.locator("a").first.click()
    page.wait_for_selector("body[data-ready] .item")
    assert page.locator("#count").inner_text() == f"{count} of 100 items."
    assert page.locator("#filter").input_value() == "first-second"


def test_the_base_model_is_the_base_of_the_answers(visit):
    page = visit("compare.html?first=alder-1b/base/base/0&second=alder-1b/arith/full-256/3")
    count = values(page, "Items worse", "scores")[0]
    page.locator("#scores tbody tr").first.locator("a").last.click()
    page.wait_for_selector("body[data-ready] .item")
    assert page.locator("#count").inner_text() == f"{count} of 100 items." and page.locator("#filter").input_value() == "second-base"


def test_pairs_that_are_not_tested_are_said(visit):
    page = visit("compare.html?first=alder-1b/arith/full-256/1&second=alder-1b/logic/full-256/3")
    assert "not among those that were tested" in page.locator("#none").inner_text() and page.locator("#shown").is_hidden()
    assert "of an earlier checkpoint with one of another run are not tested" in page.locator("#bounds").inner_text()
    page.locator("#second").select_option("alder-1b/arith/full-256/1")
    page.locator("#none", has_text="Choose two different checkpoints.").wait_for()
    page.locator("#second").select_option("alder-1b/arith/full-256/3")
    page.wait_for_selector("#scores tbody tr:nth-child(8)")


def test_two_recipes(visit):
    page = visit("compare.html")
    page.get_by_role("combobox", name="Compare").select_option(label="two recipes")
    page.locator("#scores tbody tr:nth-child(9)").wait_for()
    assert values(page, "Benchmark", "scores")[0] == "mean of all"
    assert "Independent units: 4 training sets. That is too few for intervals." in page.locator("#how").inner_text()
    assert set(values(page, "p", "scores")) == {"–"}
    assert page.locator("#layers svg.main-svg").count() >= 1
