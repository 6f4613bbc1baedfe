"""Verdicts follow from the statistics, the pages show them, and a CSV of one's own is analysed to the end."""

from dataclasses import replace

import matplotlib.text
import numpy as np
import polars as pl
import pytest

from helpers import published_csv
from sft_atlas.published import (
    FIGURES,
    POLICIES,
    TABLES,
    analyse_published,
    audit_published,
    changes,
    claims,
    figures,
    frames,
    test_claims,
    tidy_published,
)
from sft_atlas.published.claims import Claim, Statistic
from sft_atlas.report.figures import style

STATISTIC = Statistic("x", "repaired", "base-free", 1.0, 0.5, 1.5, 0.001, 10)


def decided(*statistics: Statistic, **options) -> str:
    claim = Claim("k", "text", "statistic", list(statistics), **options)
    return test_claims.verdict(claim, test_claims.correct([claim]))


def test_a_significant_effect_decides_by_its_direction():
    assert decided(STATISTIC) == "supported"
    assert decided(STATISTIC, direction=-1) == "contradicted"
    assert decided(replace(STATISTIC, low=-0.2)) == "mixed"
    assert decided(replace(STATISTIC, p=0.2)) == "mixed"


def test_gains_that_point_the_other_way_make_it_mixed():
    gain = replace(STATISTIC, reading="gain", effect=-1.0, low=-1.5, high=-0.5)
    assert decided(STATISTIC, gain) == "mixed"
    assert decided(STATISTIC, replace(gain, high=0.5)) == "supported"
    assert decided(STATISTIC, replace(gain, decides=False)) == "supported"


def test_no_difference_needs_an_interval_inside_the_margin():
    small = replace(STATISTIC, effect=0.1, low=-0.3, high=0.4, p=0.6)
    assert decided(small, direction=0, margin=0.5) == "supported"
    assert decided(small, direction=0, margin=0.2) == "mixed"
    assert decided(replace(small, low=0.9, high=1.3, effect=1.1, p=0.001), direction=0, margin=0.5) == "contradicted"


def test_what_was_not_measured_is_not_testable():
    assert decided(replace(STATISTIC, effect=np.nan)) == "not testable here"
    assert decided(replace(STATISTIC, policy="raw")) == "not testable here"
    assert decided(fixed="not testable here") == "not testable here"


@pytest.fixture(scope="module")
def own():
    """A table of one's own: other models, other sets, two sizes, one merged set and one without."""
    mine = {name: f"my-{i}" for i, name in enumerate(published_csv.MODELS)}
    table, other, third, fourth = (published_csv.frame(seed).with_columns(pl.col("model_name").replace(mine)) for seed in (3, 4, 5, 6))
    large = other.filter(pl.col("lr_strategy") == "constant").with_columns(pl.lit(20000.0).alias("data_size"), pl.col("") + 1000)
    lima = (pl.col("data_name") == "lima", (pl.col("lr_strategy") == "constant") | (pl.col("lora") == "true"))
    merged = third.filter(*lima).with_columns(pl.lit("all").alias("data_name"), pl.lit(6000.0).alias("data_size"), pl.col("") + 5000)
    without = fourth.filter(*lima).with_columns(pl.lit("w/o-lima").alias("data_name"), pl.lit(5000.0).alias("data_size"), pl.col("") + 9000)
    scores = tidy_published.tidy(published_csv.encode(pl.concat([table, large, merged, without])))
    findings = audit_published.audit(scores)
    repairs = audit_published.repairs(findings)
    data = {policy: frames.of_scores(frames.apply_policy(scores, repairs, policy)) for policy in POLICIES}
    return scores, findings, repairs, data, {policy: analyse_published.tables(part) for policy, part in data.items()}


@pytest.mark.slow
def test_a_table_of_ones_own_is_analysed(own):
    scores, findings, repairs, _, tables = own
    assert set(tables["raw"]) == set(TABLES)
    assert set(tables["raw"]["size"].select("n", "unit").rows()) == {(6, "training sets")}  # of two base models
    # merged rows are counted per source set, so the run without a set is compared with the run on all
    assert set(tables["raw"]["left_out"]["removed"]) == {"lima"}
    assert tables["raw"]["left_out"].filter(pl.col("benchmark") == "math-0").height == 2 + len(published_csv.MODELS)
    page = audit_published.page(findings, scores, "mine", repairs)
    assert page.startswith("# Audit") and "Shares verified" in page


@pytest.mark.slow
def test_the_claims_page_is_written(own):
    scores, _, _, _, tables = own
    tested = claims.all_claims(tables, scores)
    assert "1,059" not in "".join(claim.text for claim in tested)  # a statement about the authors' table
    page = test_claims.page(tested, changes.describe(tables), test_claims.families(scores))
    assert "The 4 base models are of unknown family." in " ".join(page.split())
    for claim in tested:
        assert claim.text in page
    assert "nan" not in page
    table = test_claims.table(tested)
    assert set(table["verdict"]) <= {"supported", "mixed", "contradicted", "not testable here"}
    assert table.filter(pl.col("verdict") == "not testable here", pl.col("policy").is_null()).height >= 5


def test_families_of_the_published_models_are_counted():
    text = test_claims.families(pl.DataFrame({"model": ["llama3-8b", "llama3-swallow-8b", "olmo-7b", "olmo-7b"]}))
    assert text.startswith("The 3 base models are of 2 families. Base models of one family (llama3: 2) are counted as separate units")


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(own, name, policy):
    scores, _, repairs, data, tables = own
    figure = figures.draw(name, data[policy], tables[policy], scores, repairs, policy)
    figure.draw_without_rendering()
    texts = figure.findobj(matplotlib.text.Text)
    shown = "\n".join(text.get_text() for text in texts)
    assert "Nothing to show" not in shown and "n" in shown and figures.POLICY_LABELS[policy] in shown
    assert figure.get_figwidth() <= style.PAGE
    assert min(text.get_fontsize() for text in texts if text.get_text().strip()) >= style.SMALL


def test_the_key_is_no_part_of_the_resolved_study():
    import yaml

    from sft_atlas.core.errors import ConfigError
    from sft_atlas.core.provenance import ROOT
    from sft_atlas.study.study import from_config

    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    plain, named = from_config(config, "demo"), from_config(config | {"published_csv": "some.csv"}, "demo")
    assert named.file.published_csv == "some.csv"
    assert plain.resolved() == named.resolved() and plain.file.model_dump_json() == named.file.model_dump_json()
    with pytest.raises(ConfigError, match="results/published"):
        from_config(config | {"study": "published"}, "demo")
