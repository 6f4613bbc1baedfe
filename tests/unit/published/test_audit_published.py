"""The detectors report planted faults, nothing in clean data, and the known faults of the authors' CSV."""

import numpy as np
import polars as pl
import pytest

from helpers import published_csv
from sft_atlas.core.provenance import ROOT
from sft_atlas.published import audit_published, frames, tidy_published
from sft_atlas.published.audit import copies, implausible, mixed_units, outliers
from sft_atlas.published.audit.wide import widen

REAL = ROOT / "../shared/published/evaluation_result.csv"
CLEAN = published_csv.frame()
ZERO = [*published_csv.ZERO, "mmlu-0shot"]


def audited(table: pl.DataFrame):
    return {finding.key: finding for finding in audit_published.audit(tidy_published.tidy(published_csv.encode(table)))}


def wide_of(table: pl.DataFrame):
    return widen(tidy_published.tidy(published_csv.encode(table)))


def copy_cells(table: pl.DataFrame, source: int, target: int, columns: list[str]) -> pl.DataFrame:
    values = table.row(source, named=True)
    return table.with_columns(pl.when(pl.col("") == target).then(pl.lit(values[c])).otherwise(pl.col(c)).alias(c) for c in columns)


def test_clean_data_has_no_serious_finding():
    findings = audited(CLEAN)
    assert [key for key, finding in findings.items() if finding.severity in ("high", "medium") and finding.cells] == []
    assert not any(key.startswith(("copy", "pool", "isolated", "fractions", "share-mbpp")) for key in findings)
    assert "math-0 (n = 5,000)" in findings["share-verified"].evidence


# ---------------------------------------------------------------- copies


def test_two_equal_base_models_are_found_and_nulled():
    one, two = published_csv.rows_of(CLEAN, data_name="pretrain")[:2]
    scores = [c for c in CLEAN.columns if c not in ("", *tidy_published.META)]
    findings = copies.detect(wide_of(copy_cells(CLEAN, one, two, scores)))
    assert [f.title for f in findings] == ["Two base models with the same scores"]
    assert set(findings[0].rows) == {one, two}
    assert len(findings[0].cells) == 2 * len(scores)


def planted_epochs(epoch: int, models: tuple[str, ...] = ("Qwen2.5-7B",)) -> tuple[pl.DataFrame, list[int], list[int]]:
    """Zero-shot scores of the cosine runs of some models written over those of an epoch of their constant runs."""
    table, sources, targets = CLEAN, [], []
    for model in models:
        for name in published_csv.SETS:
            keys = {"model_name": model, "data_name": name, "lora": "false"}
            (source,) = published_csv.rows_of(CLEAN, lr_strategy="cosine", **keys)
            (target,) = published_csv.rows_of(CLEAN, lr_strategy="constant", epoch=epoch, **keys)
            table = copy_cells(table, source, target, ZERO)
            sources.append(source)
            targets.append(target)
    return table, sources, targets


def test_a_copied_block_of_columns_is_found_as_such():
    table, sources, targets = planted_epochs(1)
    (group,) = copies.shared_blocks(wide_of(table))
    tasks = {wide_of(table).tasks[j] for j in group.tasks}
    assert tasks == {"mbpp-0", "gsm8k-0", "nq-0", "nq-5", "boolq-0", "hellaswag-0", "mmlu-0"}
    assert {*group.first, *group.second} == {*sources, *targets}


def test_the_owner_of_a_copied_block_is_recognised():
    """Copies of one making in two base models are judged together."""
    table, sources, targets = planted_epochs(1, ("OLMo-7B-hf", "Qwen2.5-7B"))
    wide = wide_of(table)
    groups = copies.shared_blocks(wide)
    assert len(groups) == 2
    for group, (owner, p, ratio) in zip(groups, copies.owners(wide, groups), strict=True):
        assert len(ratio) == 12 and p < copies.SIGNIFICANT
        assert set(getattr(group, owner)) <= set(sources)
    assert {row for finding in copies.detect(wide) for row, _ in finding.cells} == set(targets)


def test_where_the_owner_is_unknown_both_sides_are_nulled():
    table, sources, targets = planted_epochs(5)  # where a cosine run ends, so that both fit
    (finding,) = copies.detect(wide_of(table))
    assert {row for row, _ in finding.cells} == {*sources, *targets}


def test_a_shared_floor_is_no_copy():
    """Equal values that many rows have are no evidence, however many columns share them."""
    table = CLEAN.with_columns(
        pl.when(pl.col("model_name") == "Qwen2.5-7B").then(0.0).otherwise(pl.col(c)).alias(c) for c in published_csv.ZERO
    )
    assert copies.shared_blocks(wide_of(table)) == []


# ---------------------------------------------------------------- two quantities


def test_a_pooled_mean_is_found_and_undone_exactly():
    pooled = published_csv.frame(pooled="OLMo-7B-hf")
    wide, honest = wide_of(pooled), wide_of(CLEAN)
    members = np.array([k["model"] == "olmo-7b" for k in wide.keys.iter_rows(named=True)])
    pools = mixed_units.pooled_files(wide, "mmlu-5")
    assert set(pools) == {("mmlu-5",), ("mmlu-5", "jmmlu-0", "cmmlu-0")}
    assert (pools["mmlu-5", "jmmlu-0", "cmmlu-0"] == members).all()
    own = mixed_units.derive(wide, "mmlu-5", ("mmlu-5", "jmmlu-0", "cmmlu-0"))
    assert own[members] == pytest.approx(honest.of("mmlu-5")[members], abs=1e-9)


def test_an_unproven_pool_is_nulled():
    """Here no checkpoint of the model has a pure mean to compare with, and no score is near 0, so nothing proves the pool."""
    (finding,) = mixed_units.detect_pools(wide_of(published_csv.frame(pooled="OLMo-7B-hf")))
    assert not finding.replaced and len(finding.cells) == len(published_csv.rows_of(CLEAN, model_name="OLMo-7B-hf"))
    assert "set to null" in finding.action


def test_is_mean_over():
    values = np.array([sum([12.34, 56.78, 90.12]) / 3, 12.34])
    assert mixed_units.is_mean_over(values, 3).tolist() == [True, True]
    assert mixed_units.is_mean_over(values, 57).tolist() == [True, True]
    assert mixed_units.is_mean_over(np.array([1 / 7]), 57).tolist() == [False]


def test_values_that_are_no_share_of_the_items_are_nulled():
    table = published_csv.with_value(CLEAN, 7, "humaneval-0shot", 50.17)
    finding = audited(table)["share-humaneval-0"]
    assert finding.cells == [(7, "humaneval-0")]


def test_a_judged_share_of_other_items_is_found():
    rng = np.random.default_rng(1)
    share = np.round(100 * rng.integers(5, 60, CLEAN.height) / 804, 2)
    base = (CLEAN["data_name"] == "pretrain").to_numpy()
    share[base] = [1.17, 2.57, 3.43, 4.07]
    findings = audited(CLEAN.with_columns(pl.Series("alpaca_eval_v2-total", share)))
    named = [finding for key, finding in findings.items() if key.startswith("share-alpacaeval")]
    assert [finding.title for finding in named] == ["AlpacaEval: another quantity"]
    assert {row for row, _ in named[0].cells} == set(published_csv.rows_of(CLEAN, data_name="pretrain"))


# ---------------------------------------------------------------- values


def test_holes_in_the_grid_are_listed():
    hole = published_csv.rows_of(CLEAN, model_name="OLMo-7B-hf", data_name="math", lr_strategy="constant", epoch=4)[0]
    finding = audited(CLEAN.filter(pl.col("") != hole))["grid"]
    assert finding.details == ["full, 1,000 rows, constant: olmo-7b, math, epoch 4"]


def test_columns_missing_together_are_one_finding():
    table = CLEAN.with_columns(
        pl.when(pl.col("lora") == "true", pl.col("model_name") == "Yi-1.5-9B").then(None).otherwise(pl.col(c)).alias(c)
        for c in ("mbpp_4shot", "math-0shot", "cmmlu-0shot", "jmmlu-0shot")
    )
    finding = audited(table)["missing-1"]
    assert len(finding.rows) == len(published_csv.SETS) and set(finding.tasks) == {"mbpp-4", "math-0", "cmmlu-0", "jmmlu-0"}


def test_zeros_where_the_base_model_was_good_are_a_failure_of_format():
    table = CLEAN.with_columns(
        pl.when(pl.col("lora") == "false").then(0.0).otherwise(pl.col("humaneval-0shot")).alias("humaneval-0shot"),
    )
    finding = audited(table)["floor-humaneval-0"]
    assert "exactly 0" in finding.evidence and "format" in finding.evidence and not finding.cells


def test_base_models_below_chance_are_nulled_and_tuned_ones_only_reported():
    base, tuned = published_csv.rows_of(CLEAN, data_name="pretrain")[0], published_csv.rows_of(CLEAN, data_name="lima")[0]
    table = published_csv.with_value(published_csv.with_value(CLEAN, base, "BoolQ-5shot", 0.61), tuned, "BoolQ-5shot", 0.61)
    findings = audited(table)
    assert (base, "boolq-5") in findings["base-format"].cells
    assert (tuned, "boolq-5") not in findings["base-format"].cells


def test_a_spike_between_two_alike_epochs_is_reported_and_kept():
    row = published_csv.rows_of(CLEAN, model_name="OLMo-7B-hf", data_name="lima", lr_strategy="constant", epoch=6)[0]
    table = published_csv.with_value(CLEAN, row, "gsm8k-4shot", 4.93)
    (finding,) = outliers.detect_spikes(wide_of(table))
    assert finding.rows == [row] and finding.tasks == ["gsm8k-4"] and not finding.cells


def test_a_score_out_of_its_models_reach_is_nulled():
    low = CLEAN.with_columns((pl.col("math-0shot") / 2500).round(2).mul(50).alias("math-0shot"))  # 0.4 to 2.0
    row = published_csv.rows_of(CLEAN, model_name="Qwen2.5-7B", data_name="lima", lora="true")[0]
    (finding,) = outliers.detect_isolated(wide_of(published_csv.with_value(low, row, "math-0shot", 80.0)))
    assert finding.cells == [(row, "math-0")]


def test_a_fraction_among_percentages_is_nulled():
    row = published_csv.rows_of(CLEAN, model_name="OLMo-7B-hf", data_name="lima", lr_strategy="constant", epoch=6)[0]
    value = CLEAN["BoolQ-0shot"][row] / 100
    findings = {f.key: f for f in implausible.detect_scales(wide_of(published_csv.with_value(CLEAN, row, "BoolQ-0shot", value)))}
    assert findings["fractions"].cells == [(row, "boolq-0")]


# ---------------------------------------------------------------- repairs


def test_repairs_null_replace_and_leave_alone():
    finding = audit_published.AuditFinding(
        "x", "t", "high", [1], ["a-0"], "e", cells=[(1, "a-0")], replaced=[(1, "b-0", 5.0), (1, "a-0", 7.0)]
    )
    changed = audit_published.repairs([finding])
    assert changed.select("row", "task", "value").rows() == [(1, "a-0", None), (1, "b-0", 5.0)]
    scores = pl.DataFrame({"row": [1, 1, 1], "task": ["a-0", "b-0", "c-0"], "score": [1.0, 2.0, 3.0]})
    repaired = frames.apply_policy(scores, changed, "repaired")
    assert repaired.select("row", "task", "score").rows() == [(1, "b-0", 5.0), (1, "c-0", 3.0)]
    assert frames.apply_policy(scores, changed, "raw").equals(scores)


def test_ranges():
    assert audit_published.ranges([3, 1, 2, 7, 9, 10]) == "1-3, 7, 9-10"


# ---------------------------------------------------------------- the authors' file


@pytest.fixture(scope="module")
def published():
    if not REAL.is_file():
        pytest.skip("../shared/published is absent")
    return {finding.key: finding for finding in audit_published.audit(tidy_published.tidy(REAL.read_bytes()))}


def test_what_is_wrong_with_the_authors_file(published):
    copied = {tuple(f.rows) for f in published.values() if f.key.startswith("copy")}
    assert (905, 914) in copied and (904, 913) in copied and (1002, 1011) in copied
    groups = [f for f in published.values() if f.key.startswith("copy") and len(f.rows) > 2]
    assert sorted(len(f.rows) for f in groups) == [18, 18, 20]
    owned = [f for f in groups if "do not belong" in f.action]
    assert len(owned) == 2 and all("constant, epoch 1" in f.action for f in owned)
    pool = published["pool-mmlu-5"]
    assert len(pool.rows) == 774 and len(pool.replaced) == 774 and all(0 <= value <= 100 for _, _, value in pool.replaced)
    assert published["isolated"].cells == [(556, "math-0")]
    assert len(published["base-format"].cells) == 39
    assert published["missing-1"].rows[0] == 222 and len(published["missing-1"].rows) == 20
    assert published["grid"].details[-1] == "full, 1,000 rows, cosine: gemma2-9b, magicoder, epoch 10"


def test_the_audit_of_the_authors_file_counts_as_stated(published):
    changed = audit_published.repairs(list(published.values()))
    assert (changed["value"].count(), changed["value"].null_count()) == (770, 531)
