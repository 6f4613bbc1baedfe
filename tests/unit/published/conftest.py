"""A table of one's own, audited and analysed."""

import polars as pl
import pytest

from helpers import published_csv
from sft_atlas.published import POLICIES, analyse_published, audit_published, frames, tidy_published


@pytest.fixture(scope="session")
def own():
    """A table of one's own: other models, other sets, two sizes, one merged set and two without one set each."""
    mine = {name: f"my-{i}" for i, name in enumerate(published_csv.MODELS)}
    table, other, third, fourth, fifth = (
        published_csv.frame(seed).with_columns(pl.col("model_name").replace(mine)) for seed in (3, 4, 5, 6, 7)
    )
    large = other.filter(pl.col("lr_strategy") == "constant").with_columns(pl.lit(20000.0).alias("data_size"), pl.col("") + 1000)
    lima = (pl.col("data_name") == "lima", (pl.col("lr_strategy") == "constant") | (pl.col("lora") == "true"))
    merged = third.filter(*lima).with_columns(pl.lit("all").alias("data_name"), pl.lit(6000.0).alias("data_size"), pl.col("") + 5000)
    without = [
        frame.filter(*lima).with_columns(pl.lit(name).alias("data_name"), pl.lit(5000.0).alias("data_size"), pl.col("") + number)
        for frame, name, number in ((fourth, "w/o-lima", 9000), (fifth, "w/o-math", 13000))
    ]
    scores = tidy_published.tidy(published_csv.encode(pl.concat([table, large, merged, *without])))
    findings = audit_published.audit(scores)
    repairs = audit_published.repairs(findings)
    data = {policy: frames.of_scores(frames.apply_policy(scores, repairs, policy)) for policy in POLICIES}
    return scores, findings, repairs, data, {policy: analyse_published.tables(part) for policy, part in data.items()}
