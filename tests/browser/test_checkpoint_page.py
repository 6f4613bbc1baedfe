"""The page of one checkpoint: what it shows, what it says of results that are not there, and that texts of training data are text."""

import re

from helpers.atlas import HOSTILE, values


def test_a_checkpoint_shows_scores_curves_depths_and_neighbours(visit):
    page = visit("checkpoint.html#alder-1b/arith/full-256/3")
    assert "alder-1b" in page.locator("h1").inner_text() and "epoch 3" in page.locator("h1").inner_text()
    assert len(values(page, "Benchmark", "scores")) == 8
    assert all("[" in text and "to" in text for text in values(page, "Gain", "scores"))
    assert set(values(page, "n", "scores")) == {"100"} and set(values(page, "Backend", "scores")) == {"hf"}
    assert page.locator("#gains svg.main-svg, #history svg.main-svg, #layers svg.main-svg").count() >= 3
    assert "float32, cpu" in page.locator("#facts").inner_text()
    near = page.locator("#nearest a")
    assert near.count() == 8
    near.first.click()
    page.wait_for_url(re.compile(r"checkpoint\.html#(?!alder-1b/arith/full-256/3$)"))
    page.locator("#command", has_text="snakemake results/synthetic/").wait_for()


def test_the_loss_mask_is_marked_and_hostile_samples_are_text(visit):
    page = visit("checkpoint.html#alder-1b/arith/full-256/3")
    assert page.locator("#samples mark").inner_text() == f" {HOSTILE[1]}<eos>"
    assert HOSTILE[0] in page.locator("#samples pre").inner_text()
    assert page.evaluate("window.pwned === undefined")


def test_missing_results_are_said(visit):
    page = visit("checkpoint.html#alder-1b/logic/lora-256/3")
    assert page.locator("#unscored").inner_text() == "This checkpoint has no scores."
    assert not page.locator("#samples-part").is_visible()
    page = visit("checkpoint.html#no/such/checkpoint/1")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#none").inner_text() == "There is no checkpoint no/such/checkpoint/1 in this atlas; choose one above."


def test_choosing_another_epoch_opens_it(visit):
    page = visit("checkpoint.html#birch-1b/logic/full-256/3")
    page.get_by_role("combobox", name="Epoch").select_option("1")
    page.locator("h1", has_text="epoch 1").wait_for()
    page.get_by_role("combobox", name="Training set").select_option("base")
    page.locator("h1", has_text="base model").wait_for()
    assert page.locator("#gains").is_hidden()
