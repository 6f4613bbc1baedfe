"""The page *Heat maps*: gain by base model, training set and benchmark."""

import polars as pl

from sft_atlas.analyse import select
from sft_atlas.atlas.contents import Contents, address, by_column, in_order, robust_limit
from sft_atlas.atlas.site import Site

TITLE = "Heat maps"


def cells(contents: Contents) -> pl.DataFrame:
    """Gains of the last checkpoints, averaged over seeds, in points: keys, benchmark, gain, low, high, q, n, seeds, address.

    ``q`` is corrected over the cells of the figure ``gains`` (``family`` 0: single sets with the main recipe of each method), or over the
    last checkpoints of all other runs (``family`` 1).
    """
    gains, study, keys = select.final(contents.tables["gains"]), contents.study, [*select.RUN, "epoch"]
    first = select.single(contents.tables["gains"], study).select(keys).unique()
    parts = [gains.join(first, on=keys, how=how, maintain_order="left") for how in ("semi", "anti")]
    frame = pl.concat([select.with_intervals(select.tested(part)).with_columns(family=pl.lit(number)) for number, part in enumerate(parts)])
    seeds = pl.col("seeds") if "seeds" in frame.columns else pl.lit(1).alias("seeds")
    frame = frame.select(*keys, "benchmark", "gain", "low", "high", "q", "n", "family", seeds)
    frame = frame.with_columns(pl.col(name) * 100 for name in ("gain", "low", "high")).filter(pl.col("gain").is_finite())
    return in_order(frame.rename({"recipe": "folder"}), study)


def add(site: Site, contents: Contents) -> None:
    """Write the page and ``data/heat_maps.js``."""
    frame = cells(contents)
    folders = {}
    for run in contents.study["runs"]:  # the first seed stands for all
        folders.setdefault((run["model"], run["dataset"], run["recipe"]), run.get("folder", run["recipe"]))
    addresses = [address(m, d, folders[m, d, r], e) for m, d, r, e in frame.select("model", "dataset", "folder", "epoch").iter_rows()]
    main = list(select.main_recipes(contents.study).values())
    sizes = [frame.filter(pl.col("family") == family).height for family in (0, 1)]
    site.data(
        "heat_maps",
        {
            **by_column(frame.rename({"folder": "recipe"})),
            "address": addresses,
            "main": main,
            "sizes": sizes,
            "limit": robust_limit(frame["gain"].to_list(), frame["q"].to_list()),
        },
    )
    site.page("heat_maps", ("datatables", "plotly"), heading="Gain by base model, training set and benchmark", reading=contents.reading)
