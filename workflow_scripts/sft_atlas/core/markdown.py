"""Markdown tables, lists and paragraphs of all pages, and pages as HTML."""

import html as escaping
import re
import textwrap
from collections.abc import Iterable


def table(head: Iterable[object], rows: Iterable[Iterable[object]], align: str = "l", pad: bool = True) -> list[str]:
    """Lines of a Markdown table.

    ``align`` has a letter for each column, "l" or "r"; its last letter stands for all further columns ("lr": only the first is left-aligned).
    ``pad`` makes the columns line up in a terminal; without it, a table with long texts stays narrow. Pipes are escaped, line breaks become
    spaces, None is an empty cell, and integers get separators (``1,070``).
    """
    cells = [[escape(cell) for cell in line] for line in (head, *rows)]
    columns = list(zip(*cells, strict=True))
    align = align.ljust(len(columns), align[-1])
    widths = [max(map(len, column)) if pad else 0 for column in columns]
    lines = [
        row(text.rjust(width) if side == "r" else text.ljust(width) for text, width, side in zip(line, widths, align, strict=True))
        for line in cells
    ]
    dashes = ["-" * max(width + 2, 3) for width in widths]
    rule = "|".join(f"{dash[:-1]}:" if side == "r" else dash for dash, side in zip(dashes, align, strict=True))
    return [lines[0], f"|{rule}|", *lines[1:]]


def row(cells: Iterable[str]) -> str:
    """One line of a table from cells that are escaped already, for scripts that print a table row by row."""
    return f"| {' | '.join(cells)} |"


def escape(cell: object) -> str:
    """The text of a cell."""
    cell = f"{cell:,}" if type(cell) is int else cell
    return "" if cell is None else " ".join(str(cell).splitlines()).replace("\\|", "|").replace("|", "\\|")


def wrap(text: str, width: int = 140) -> list[str]:
    """A paragraph in lines of at most ``width`` characters."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def bullets(texts: Iterable[str], width: int = 140) -> list[str]:
    """A Markdown list item per text, in lines of at most ``width`` characters; ``p = 0.03`` and the like stay on one line."""
    lines = []
    for text in texts:
        glued = re.sub(r"\b([pqnr]) ([=<]) ", "\\1\u00a0\\2\u00a0", text)
        first, *rest = wrap(glued, width - 2)
        lines += [f"- {first}", *(f"  {line}" for line in rest)]
    return [line.replace("\u00a0", " ") for line in lines]


# Labels of models and training sets are in the text: they cannot bring markup, pictures or links with them.
WITHOUT = ("html_inline", "html_block", "image", "link", "autolink", "emphasis", "strikethrough", "entity")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem; color: #1d2329; background: #fff; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
.scroll {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: 0.85rem; }}
th, td {{ border-bottom: 1px solid #d5dade; padding: 0.2rem 0.6rem; text-align: left; }}
</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def html(text: str) -> str:
    """Markdown as HTML. What looks like HTML, a picture or a link in it is shown as it is written."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark").enable("table").disable(WITHOUT, ignoreInvalid=True)
    # a wide table scrolls in a box of its own, which the keyboard can reach
    reader.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return reader.render(text)


def page(text: str) -> str:
    """A page of Markdown as an HTML document that needs no other file; its title is the first line's."""
    return PAGE.format(title=escaping.escape(text.split("\n", 1)[0].lstrip("# ")), body=html(text))
