"""The detectors report planted faults, nothing in clean data, and the known faults of the authors' CSV."""

import numpy as np
import polars as pl
import pytest

from helpers import published_csv
from sft_atlas.core.provenance import ROOT
from sft_atlas.published import audit_published, frames, tidy_published
from sft_atlas.published.audit import copies, implausible, mixed_units, outliers
from sft_atlas.published.audit.wide import AuditFinding, Wide, widen

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
    assert "math-0 (n = 5,000)" in findings["share-verified"].proven


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
    for group, owner in zip(groups, copies.owners(wide, groups), strict=True):
        assert "n = 12 pairs" in owner.test
        assert set(getattr(group, owner.side)) <= set(sources)
    assert {row for finding in copies.detect(wide) for row, _ in finding.cells} == set(targets)


def test_where_the_owner_is_unknown_both_sides_are_nulled():
    table, sources, targets = planted_epochs(5)  # where a cosine run ends, so that both fit
    (finding,) = copies.detect(wide_of(table))
    assert {row for row, _ in finding.cells} == {*sources, *targets}


def test_a_block_that_was_measured_again_is_found():
    """All sets but one hold the same numbers; of that one the same checkpoint was evaluated a second time."""
    table, sources, targets = planted_epochs(1, ("OLMo-7B-hf", "Qwen2.5-7B"))
    for column in ZERO:
        again = round(float(table[column][targets[0]]) + 0.02, 2)
        table = published_csv.with_value(table, targets[0], column, again)
    findings = {f.key: f for f in copies.detect(wide_of(table))}
    (again,) = (f for key, f in findings.items() if key.endswith("-again"))
    assert set(again.rows) == {sources[0], targets[0]} and {row for row, _ in again.cells} == {targets[0]}
    assert again.likely and not again.proven
    assert not any(f.key.endswith("-again") for f in copies.detect(wide_of(planted_epochs(1)[0])))  # nothing was measured again


def models_with_bases(owner: int, other: int, level: float) -> Wide:
    """Eight base models of different strength, twelve tuned checkpoints each; ``other`` has the scores of ``owner``."""
    rng, tasks = np.random.default_rng(0), ["math-0", "gsm8k-0", "humaneval-0", "mbpp-0", "nq-0", "truthfulqa-0"]
    strength = np.linspace(20, 20 + 7 * level, 8)
    keys, values = [], []
    for m in range(8):
        for epoch in range(13):
            run = ("base", "base", 0, None) if not epoch else ("lima", "full", 1000, "constant")
            keys.append((len(keys), f"m{m}", *run, epoch))
            source = owner if not epoch and m == other else m
            values.append(strength[source] + (0.123 * (source + 1) if not epoch else rng.uniform(-4, 4, len(tasks))) + np.zeros(len(tasks)))
    schema = ["row", "model", "dataset", "method", "rows", "schedule", "epoch"]
    return Wide(pl.DataFrame(keys, schema=schema, orient="row", infer_schema_length=None), tasks, np.array(values))


@pytest.mark.parametrize(("owner", "other", "level", "side"), [(5, 2, 8, 5), (2, 5, 8, None), (5, 4, 1, None)])
def test_the_owner_of_scores_that_two_base_models_share(owner, other, level, side):
    """They are not those of a model of which they exceed every checkpoint; below the reach of a model, or within both, nothing follows."""
    wide = models_with_bases(owner, other, level)
    group = copies.Group([13 * owner], [13 * other], list(range(len(wide.tasks))), 30.0)
    (found,) = copies.owners(wide, [group])
    assert found.side == ("unknown" if side is None else "first")
    if side is not None:
        assert "none wrongly" in found.test


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


def test_shares_rounded_more_coarsely_are_still_shares():
    """170 of 257 is 66.15 %, and 66.2 if rounded twice."""
    rounded = CLEAN.with_columns(pl.col(column).round(1) for column in (*published_csv.ITEMS, *published_csv.ZERO))
    assert not any(finding.cells for finding in audited(rounded).values())


def test_shares_of_another_number_of_items_are_kept():
    other = CLEAN.with_columns((100 * (pl.col("humaneval-0shot") * 2).round() / 200).alias("humaneval-0shot"))  # 200 items
    finding = audited(other)["share-humaneval-0"]
    assert not finding.cells and finding.unknown


# ---------------------------------------------------------------- values


def test_the_unit_of_a_converted_column_is_named():
    finding = audited(CLEAN.with_columns((pl.col("BoolQ-0shot") / 100).round(4)))["units"]
    assert finding.tasks == ["boolq-0"] and "boolq-0: fraction" in finding.likely and "converted" in finding.action


def test_many_gaps_here_and_there_are_one_finding():
    rng = np.random.default_rng(0)
    columns = [*published_csv.ITEMS, *published_csv.ZERO]
    table = CLEAN.with_columns(
        pl.when(pl.Series(rng.random(CLEAN.height) < 0.05)).then(None).otherwise(pl.col(c)).alias(c) for c in columns
    )
    findings = audited(table)
    assert "missing-rest" in findings and sum(key.startswith("missing") for key in findings) == implausible.PATTERNS + 1


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
    assert "exactly 0" in finding.proven and "lost what the base model can do" in finding.likely and not finding.cells
    assert "the same answer was given to every item" in finding.unknown


def test_base_models_below_a_constant_answer_are_nulled_and_tuned_ones_only_reported():
    base, tuned = published_csv.rows_of(CLEAN, data_name="pretrain")[0], published_csv.rows_of(CLEAN, data_name="lima")[0]
    table = published_csv.with_value(published_csv.with_value(CLEAN, base, "BoolQ-5shot", 0.61), tuned, "BoolQ-5shot", 0.61)
    findings = audited(table)
    assert findings["base-format"].cells == [(base, "boolq-5")] and findings["base-format"].likely
    assert "boolq-5 1 (1)" in findings["tuned-format"].proven and not findings["tuned-format"].cells


def test_a_base_model_that_a_constant_answer_would_explain_is_kept():
    """ "no" to every question of BoolQ is right in 37.83 % of the items."""
    base = published_csv.rows_of(CLEAN, data_name="pretrain")[0]
    findings = audited(published_csv.with_value(CLEAN, base, "BoolQ-5shot", 37.83))
    assert "base-format" not in findings and findings["base-chance"].rows == [base]
    assert not findings["base-chance"].cells and "always gives the same answer" in findings["base-chance"].unknown


def test_scores_are_checked_after_the_repairs(monkeypatch):
    """A recomputed score below chance is no valid base score: it would give a gain of a whole benchmark."""
    base = published_csv.rows_of(CLEAN, data_name="pretrain")[0]
    planted = AuditFinding("pool", "t", "high", [base], ["mmlu-5"], proven="p", replaced=[(base, "mmlu-5", 0.012)])
    monkeypatch.setattr(audit_published, "AS_PUBLISHED", (lambda wide: [planted],))
    findings = audit_published.audit(tidy_published.tidy(published_csv.encode(CLEAN)))
    assert (base, "mmlu-5") in next(f for f in findings if f.key == "base-format").cells
    assert audit_published.repairs(findings).filter(row=base, task="mmlu-5")["value"].to_list() == [None]


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
    finding = AuditFinding("x", "t", "high", [1], ["a-0"], "proven", cells=[(1, "a-0")], replaced=[(1, "b-0", 5.0), (1, "a-0", 7.0)])
    changed = audit_published.repairs([finding])
    assert changed.select("row", "task", "value").rows() == [(1, "a-0", None), (1, "b-0", 5.0)]
    scores = pl.DataFrame({"row": [1, 1, 1], "task": ["a-0", "b-0", "c-0"], "score": [1.0, 2.0, 3.0]})
    repaired = frames.apply_policy(scores, changed, "repaired")
    assert repaired.select("row", "task", "score").rows() == [(1, "b-0", 5.0), (1, "c-0", 3.0)]
    assert frames.apply_policy(scores, changed, "raw").equals(scores)


def test_scores_are_changed_only_on_proven_or_likely_grounds():
    with pytest.raises(ValueError, match="no grounds"):
        AuditFinding("x", "t", "high", [1], ["a-0"], unknown="whose", cells=[(1, "a-0")])


def test_ranges():
    assert audit_published.ranges([3, 1, 2, 7, 9, 10]) == "1-3, 7, 9-10"


# ---------------------------------------------------------------- the authors' file


@pytest.fixture(scope="module")
def published():
    if not REAL.is_file():
        pytest.skip("../shared/published is absent")
    return {finding.key: finding for finding in audit_published.audit(tidy_published.tidy(REAL.read_bytes()))}


def test_what_is_wrong_with_the_authors_file(published):
    copied = {tuple(f.rows): f for f in published.values() if f.key.startswith("copy")}
    assert {(905, 914), (904, 913), (1002, 1011), (834, 856)} <= set(copied)
    # Mistral's scores are kept: they exceed every checkpoint of Chinese-Mistral on MBPP, NaturalQuestions and MMLU-zh.
    assert {row for row, _ in copied[905, 914].cells} == {914} and "nq-1, nq-5, nq-25" in copied[905, 914].likely
    assert {row for row, _ in copied[904, 913].cells} == {904, 913} and copied[904, 913].unknown
    assert {row for row, _ in copied[834, 856].cells} == {834} and len(copied[834, 856].cells) == 8
    groups = [f for f in published.values() if f.key.startswith("copy") and len(f.rows) > 2]
    assert sorted(len(f.rows) for f in groups) == [18, 18, 20]
    owned = [f for f in groups if "do not belong" in f.action]
    assert len(owned) == 2 and all("constant, epoch 1" in f.action for f in owned)
    pool = published["pool-mmlu-5"]
    assert len(pool.rows) == 774 and len(pool.replaced) == 774 and all(0 <= value <= 100 for _, _, value in pool.replaced)
    assert published["isolated"].cells == [(556, "math-0")]
    assert len(published["base-format"].cells) == 22 and len(published["base-chance"].rows) == 5
    assert (912, "mmlu-5") in published["base-format"].cells  # Gemma 2, 0.012 % after the repair of the pooled mean
    assert published["missing-1"].rows[0] == 222 and len(published["missing-1"].rows) == 20
    assert published["grid"].details[-1] == "full, 1,000 rows, cosine: gemma2-9b, magicoder, epoch 10"
    assert "100 % of the others are means over 5 to 9" in published["judgements"].proven


def test_the_audit_of_the_authors_file_counts_as_stated(published):
    changed = audit_published.repairs(list(published.values()))
    assert (changed["value"].count(), changed["value"].null_count()) == (769, 512)
