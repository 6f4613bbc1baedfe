"""The page *Best sets*: which training set is best for what, on which base model, and how sure that is."""

from sft_atlas.atlas.contents import Contents
from sft_atlas.atlas.site import Site

TITLE = "Best sets"


def add(site: Site, contents: Contents) -> None:
    """Write the page and ``data/best_sets.js``."""
    site.data("best_sets", contents.rankings)
    site.page("best_sets", ("datatables",), heading="Which training set is best?", reading=contents.reading)
