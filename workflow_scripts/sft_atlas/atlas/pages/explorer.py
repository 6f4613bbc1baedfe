"""The page *Explorer*: every checkpoint a row."""

from sft_atlas.atlas.contents import Contents
from sft_atlas.atlas.site import Site

TITLE = "Explorer"


def add(site: Site, contents: Contents) -> None:
    """Write the page; it reads ``data/study.js`` and ``data/checkpoints.js``."""
    site.page("explorer", ("datatables",), heading="Checkpoints", reading=contents.reading)
