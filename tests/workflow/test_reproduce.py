"""`snakemake reproduce` on a study with results and on one with nothing done; it starts no job of the study."""

import re
import shutil
from pathlib import Path

import polars as pl

from helpers import paper_part, published_csv
from helpers.folders import fresh

ITS_OWN = {"fetch_published", "tidy_published", "audit_published", "analyse_published", "reproduce"}


def test_a_study_with_results_and_one_with_nothing_done(tmp_path):
    folder = fresh(tmp_path, paper_part.config(models=2))
    paper_part.write(Path(folder.result(".")), paper_part.study(models=2))
    (folder.path / "own.csv").write_bytes(published_csv.encode(published_csv.frame(0)))
    call = ("reproduce", "--config", "published_csv=own.csv")

    printed = folder.run(*call)
    assert set(re.findall(r"^(?:local)?rule (\w+):", printed, re.MULTILINE)) == ITS_OWN
    page, claims = folder.result("reproduce/index.html"), folder.result("reproduce/claims.parquet")
    assert "Claims of arXiv 2506.14681 on the study part" in printed and f"Page: {page.relative_to(folder.path)}" in printed
    verdicts = dict(pl.read_parquet(claims).select("claim", "verdict").iter_rows())
    assert verdicts["weights-upwards"] == "agrees" and verdicts["size"] == "not in this study"
    assert pl.read_parquet(claims)["missing"].sum() == 0
    assert "2 of 12 base models of the paper." in page.read_text(encoding="utf-8")
    drawn = {path.name for path in folder.result("reproduce/figures").iterdir()}
    assert {"own-gains.png", "published-gains.png", "own-layer_change.pdf"} <= drawn
    assert "Nothing to be done" in folder.run(*call)

    shutil.rmtree(folder.result("runs"))
    printed = folder.run(*call)
    assert set(re.findall(r"^(?:local)?rule (\w+):", printed, re.MULTILINE)) == {"reproduce"}
    table = pl.read_parquet(claims).filter(claim="weights-upwards").row(0, named=True)
    assert (table["verdict"], table["missing"], table["results"]) == ("missing", 24, 24) and table["hours"] > 0
    assert pl.read_parquet(folder.result("reproduce/missing.parquet")).filter(claim="weights-upwards").height == 24
    assert "Missing for all claims together" in printed
