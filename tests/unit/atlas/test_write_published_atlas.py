"""The atlas of published scores: those of the CSV, repaired, in points of each benchmark's range."""

import polars as pl
import pytest

from helpers import published_csv
from sft_atlas.atlas import contents as shared
from sft_atlas.atlas import write_published_atlas
from sft_atlas.atlas.pages import published as pages
from sft_atlas.published import audit_published, frames, tidy_published


@pytest.fixture(scope="module")
def published():
    scores = tidy_published.tidy(published_csv.encode(published_csv.frame()))
    return scores, audit_published.repairs(audit_published.audit(scores))


def test_checkpoints_are_the_rows_of_the_csv(published):
    scores, repairs = published
    shown = write_published_atlas.contents(scores, repairs)
    table = shared.checkpoints(shown)
    assert len(table["address"]) == scores["row"].n_unique() == len(set(table["address"]))
    assert table["method"][:4] == ["base"] * 4
    repaired = frames.apply_policy(scores, repairs, "repaired").filter(pl.col("task") == "gsm8k-0", pl.col("epoch") == 0)
    assert sorted(table["scores"]["gsm8k-0"]["score"][:4]) == pytest.approx(sorted(repaired["score"].to_list()))
    assert table["missing"] == []


def test_changes_are_those_of_the_audit_beside_the_scores_of_the_csv():
    scores = tidy_published.tidy(published_csv.encode(published_csv.frame(pooled="OLMo-7B-hf")))
    found = audit_published.audit(scores)
    audited = {"scores": scores, "repairs": audit_published.repairs(found), "audit": audit_published.table(found)}
    data, said = pages.as_published(audited), pages.remarks(audited)
    assert len(data["changes"]) == audited["repairs"].height > 0
    place, task, value, finding = next(change for change in data["changes"] if change[1] == "mmlu-5")
    row = data["rows"]["row"][place]
    own = scores.filter(pl.col("row") == row, pl.col("task") == task).row(0, named=True)
    assert data["raw"][task][place] == pytest.approx(own["score"]) and value is None
    assert finding in {entry["finding"] for entry in data["findings"]}
    name = data["rows"]["address"][place]
    assert name.startswith(f"{own['model']}/{own['dataset']}/") and name.endswith(f"/{own['epoch']}")
    assert said[name][0] == f"Row {row} of the CSV." and any("as published, set to null (One column" in text for text in said[name])
