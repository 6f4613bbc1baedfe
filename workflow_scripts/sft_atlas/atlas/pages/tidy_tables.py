"""The page *Tables*: the rows behind findings, figures and pages, one tidy table at a time."""

import polars as pl

from sft_atlas.atlas.contents import Contents, by_column
from sft_atlas.atlas.site import Site

TITLE = "Tables"
MOST = 500_000  # cells of a table that a browser shows at ease


def add(site: Site, contents: Contents) -> None:
    """Write the page and ``data/table/{name}.js`` of every table that is not too large."""
    listed = []
    for name, frame in {**contents.each_seed, **contents.listed}.items():
        shown = frame.width * frame.height <= MOST
        if shown:
            lists = [column for column, kind in frame.schema.items() if isinstance(kind, pl.List)]
            site.data(
                f"table/{name}", by_column(frame.with_columns(pl.col(column).cast(pl.List(pl.String)).list.join(", ") for column in lists))
            )
        listed.append({"key": name, "rows": frame.height, "columns": frame.width, "shown": shown})
    site.data("tables", listed)
    site.page("tables", ("datatables",), heading="Tables")
