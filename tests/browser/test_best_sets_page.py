"""Best sets: the best training set for a topic, its gain, and which sets are not told apart from it, in three clicks from the landing page."""

from helpers.atlas import values


def test_best_for_a_group_in_three_clicks(visit):
    page = visit("index.html")
    page.get_by_role("navigation").get_by_role("link", name="Best sets").click()
    page.wait_for_selector("body[data-ready]")
    page.get_by_role("combobox", name="Best for").select_option(label="code")
    answer = page.locator("#answer").inner_text()
    assert "is best for code, gain" in answer and (
        "not told apart from it" in answer or "every other set is significantly behind" in answer
    )
    assert values(page, "Rank", "sets") == ["1", "2", "3", "4"]
    assert values(page, "Behind the best", "sets")[0] == "is the best"
    assert len(values(page, "Best training set", "models")) == 2
    page.locator("#models tbody a").first.click()
    page.wait_for_url("**/checkpoint.html#**")
