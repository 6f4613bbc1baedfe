"""Markdown tables: columns that line up, and cells that cannot break the table."""

from sft_atlas.core.markdown import page, table


def test_columns_line_up_and_numbers_are_right_aligned():
    assert table(["block", "runs"], [["single", 12], ["a", 3]], align="lr") == [
        "| block  | runs |",
        "|--------|-----:|",
        "| single |   12 |",
        "| a      |    3 |",
    ]


def test_without_padding_a_row_is_as_long_as_its_text():
    assert table(["key", "meaning"], [["rows", "how many"]], pad=False) == ["| key | meaning |", "|---|---|", "| rows | how many |"]


def test_pipes_line_breaks_and_missing_values_do_not_break_a_table():
    assert table(["a|b", "c"], [["one\ntwo", None], ["x \\| y", 0]], pad=False)[2:] == ["| one two |  |", "| x \\| y | 0 |"]
    assert table(["a|b"], [], pad=False)[0] == "| a\\|b |"


def test_a_page_as_html_needs_no_file_and_shows_markup_in_names_as_text():
    made = page("# Findings of <b>x</b>\n\n- <script>alert(1)</script> [x](javascript:y)\n\n| a | b |\n|---|---|\n| 1 | {} |\n")
    assert "<title>Findings of &lt;b&gt;x&lt;/b&gt;</title>" in made and "<td>{}</td>" in made
    assert "<script" not in made and "<b>" not in made and "href" not in made and "src=" not in made and "default-src 'none'" in made
