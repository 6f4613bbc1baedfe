"""The tables of published scores, recomputed from the CSV with numpy and scipy only.

The definitions are in docs/statistics.md and the docstrings of analyse_published.
"""

import csv
import functools

import numpy as np
import polars as pl
import pytest
import scipy.stats

from sft_atlas.core.provenance import ROOT
from sft_atlas.published import POLICIES, analyse_published, audit_published, frames, overall, tidy_published

REAL = ROOT / "../shared/published/evaluation_result.csv"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REAL.is_file(), reason="../shared/published is absent")]

TASKS = {
    "mbpp_4shot": "mbpp-4", "math-0shot": "math-0", "gsm8k-4shot": "gsm8k-4", "humaneval-0shot": "humaneval-0",
    "hellaswag-10shot": "hellaswag-10", "nq-1shot": "nq-1", "BoolQ-5shot": "boolq-5", "mmlu-5shot": "mmlu-5", "mtbench-total": "mtbench-0",
    "alpaca_eval_v2-total": "alpacaeval-0", "mbpp-0shot": "mbpp-0", "gsm8k-0shot": "gsm8k-0", "nq-0shot": "nq-0", "nq-5shot": "nq-5",
    "nq-25shot": "nq-25", "BoolQ-0shot": "boolq-0", "hellaswag-0shot": "hellaswag-0", "mmlu-0shot": "mmlu-0",
    "Truthful_QA-0shot": "truthfulqa-0", "jmmlu-0shot": "jmmlu-0", "cmmlu-0shot": "cmmlu-0",
}  # fmt: skip
MODELS = {
    "OLMo-7B-hf": "olmo-7b", "Meta-Llama-3-8B": "llama3-8b", "Mistral-7B-v0.1": "mistral-7b", "Gemma2-9B": "gemma2-9b",
    "Qwen2.5-7B": "qwen2.5-7b", "llama-3-chinese-8b": "chinese-llama3-8b", "Chinese-Mistral-7B-v0.1": "chinese-mistral-7b",
    "Yi-1.5-9B": "yi1.5-9b", "LLM-jp-3-7B": "llmjp-3-7b", "Llama-3-Swallow-8B-v0.1": "llama3-swallow-8b", "Sarashina2-7B": "sarashina2-7b",
}  # fmt: skip
FAMILY = {
    "llama3-8b": "llama3",
    "chinese-llama3-8b": "llama3",
    "llama3-swallow-8b": "llama3",
    "mistral-7b": "mistral",
    "chinese-mistral-7b": "mistral",
}
LANGUAGE = {
    "olmo-7b": "en", "llama3-8b": "en", "mistral-7b": "en", "gemma2-9b": "en", "qwen2.5-7b": "zh", "chinese-llama3-8b": "zh",
    "chinese-mistral-7b": "zh", "yi1.5-9b": "zh", "llmjp-3-7b": "ja", "llama3-swallow-8b": "ja", "sarashina2-7b": "ja",
}  # fmt: skip
SETS = [
    "alpaca_cleaned", "lima", "ultrachat", "code_alpaca", "magicoder", "openmath", "math", "flan_knowledge", "flan_reasoning",
    "flan_comprehension",
]  # fmt: skip


@functools.cache
def product():
    scores = tidy_published.tidy(REAL.read_bytes())
    changed = audit_published.repairs(audit_published.audit(scores))
    return changed, {
        policy: analyse_published.tables(frames.of_scores(frames.apply_policy(scores, changed, policy))) for policy in POLICIES
    }


@functools.cache
def points(policy: str) -> dict[tuple, float]:
    """Points by (model, set, method, rows, schedule, epoch, task), straight from the CSV; repaired: by the definition of each fault."""
    with open(REAL, newline="") as file:
        rows = list(csv.DictReader(file))
    values = {}
    keys = {}
    for row in rows:
        base = row["data_name"] == "pretrain"
        method = "base" if base else "lora" if row["lora"] == "true" else "full"
        schedule = "" if base else row["lr_strategy"]
        keys[row[""]] = (MODELS[row["model_name"]], row["data_name"], method, int(float(row["data_size"])), schedule, int(row["epoch"]))
        for column, task in TASKS.items():
            if row[column] == "":
                continue
            score = float(row[column])
            values[row[""], task] = 100 * score if task == "truthfulqa-0" else (score - 1) / 9 * 100 if task == "mtbench-0" else score
    if policy == "repaired":
        repair(rows, keys, values)
    return {(*keys[row], task): value for (row, task), value in values.items()}


ZERO = ["mbpp-0", "gsm8k-0", "nq-0", "nq-5", "nq-25", "boolq-0", "hellaswag-0", "mmlu-0"]


def repair(rows, keys, values) -> None:
    """Apply the audit's repairs, from the definition of each fault."""
    whole = lambda x: abs(x - round(x)) < 1e-5  # noqa: E731
    pooled = {}
    for row in rows:
        if row["mmlu-5shot"] and whole(float(row["mmlu-5shot"]) * 181 * 100) and not whole(float(row["mmlu-5shot"]) * 57 * 100):
            v, j, c = (float(row[name]) for name in ("mmlu-5shot", "jmmlu-0shot", "cmmlu-0shot"))
            pooled[row[""]] = (181 * v - 57 * j - 67 * c) / 57
    dead = set()
    by_key = {key: row for row, key in keys.items()}
    for model, extra in (("qwen2.5-7b", ["nq-1"]), ("llmjp-3-7b", [])):  # constant epoch 1 holds the scores of cosine epoch 10
        for name in SETS:
            one, two = by_key[model, name, "full", 1000, "constant", 1], by_key[model, name, "full", 1000, "cosine", 10]
            if all(values[one, task] == values[two, task] for task in ZERO):
                dead |= {(one, task) for task in [*ZERO, *extra]}
    for name in SETS:  # whose they are is unknown
        one, two = by_key.get(("olmo-7b", name, "full", 1000, "constant", 10)), by_key["olmo-7b", name, "full", 1000, "cosine", 10]
        if one and all(values[one, task] == values[two, task] for task in ZERO):
            dead |= {(row, task) for row in (one, two) for task in [*ZERO, "truthfulqa-0", "jmmlu-0", "cmmlu-0"]}
    dead |= {("834", task) for task in ZERO}  # the cosine run's checkpoint, measured again
    dead |= {("914", task) for task in TASKS.values()}  # Mistral's scores in the row of Chinese-Mistral
    dead |= {(row, task) for row in ("904", "913") for task in [*ZERO, "truthfulqa-0", "jmmlu-0", "cmmlu-0"]}
    dead |= {(row, task) for row in ("1002", "1011") for task in ("mbpp-4", "math-0", "gsm8k-4", "humaneval-0", "hellaswag-10")}
    dead.add(("556", "math-0"))
    items = {"boolq-0": (37.83, 3270), "boolq-5": (37.83, 3270), "cmmlu-0": (22, 11582)}  # what one constant answer earns
    items |= dict.fromkeys(("mmlu-0", "mmlu-5", "jmmlu-0"), (22, 14042))
    items |= dict.fromkeys(("hellaswag-0", "hellaswag-10"), (22, 10042))
    for row, value in pooled.items():
        values[row, "mmlu-5"] = value
    for row, key in keys.items():
        odd = ("chinese-llama3-8b", "full", 10000), ("olmo-7b", "lora", 10000), ("mistral-7b", "lora", 1000), ("mistral-7b", "lora", 10000)
        if key[2] == "base" or (key[0], key[2], key[3]) in (*odd, ("llama3-swallow-8b", "lora", 1000)):
            dead.add((row, "alpacaeval-0"))
        if key[2] == "base":
            for task, (constant, n) in items.items():
                low = constant - 3 * 100 * (constant / 100 * (1 - constant / 100) / n) ** 0.5
                if values.get((row, task), 100) < low:
                    dead.add((row, task))
    for cell in dead:
        values.pop(cell, None)


def score(policy, model, name, method, task, rows=1000, schedule="cosine", epoch=10) -> float:
    return points(policy).get((model, name, method, rows, schedule, epoch, task), np.nan)


def cube(policy, task, method="full") -> np.ndarray:
    """Models x sets of the single-set runs."""
    return np.array([[score(policy, model, name, method, task) for name in SETS] for model in MODELS.values()])


def base(policy, task) -> np.ndarray:
    return np.array([points(policy).get((model, "pretrain", "base", 0, "", 0, task), np.nan) for model in MODELS.values()])


def centred(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    means = np.array([row[ok].mean() if ok.any() else np.nan for row, ok in zip(values, known, strict=True)])
    return values - means[:, None]


def row_of(table: pl.DataFrame, **keys) -> dict:
    rows = table.filter(*(pl.col(key) == value for key, value in keys.items()))
    assert rows.height == 1, (keys, rows.height)
    return rows.row(0, named=True)


def close(a, b):
    assert a == pytest.approx(b, abs=1e-6, nan_ok=True)


# ---------------------------------------------------------------- the repairs themselves


def test_the_repaired_cells_are_the_same_cells():
    raw, repaired = points("raw"), points("repaired")
    changed, _ = product()
    analysed = changed.filter(pl.col("task").is_in(list(TASKS.values())))
    assert analysed["value"].null_count() == len(raw) - len(repaired)
    replaced = {key: value for key, value in repaired.items() if value != raw[key]}
    # a value that is whole for both divisors has the same repair or none; the product keeps the published mean's pool by its run
    assert abs(analysed["value"].count() - len(replaced)) <= 3
    assert sorted(replaced.values()) == pytest.approx(
        sorted(v for v in analysed["value"].drop_nulls() if any(abs(v - w) < 1e-6 for w in replaced.values())), abs=1e-6
    )


# ---------------------------------------------------------------- effects over models


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", TASKS.values())
def test_consistency(policy, task):
    table = product()[1][policy]["consistency"]
    values = {"centred": centred(cube(policy, task)), "gain": cube(policy, task) - base(policy, task)[:, None]}
    for value, array in values.items():
        for j, name in enumerate(SETS):
            row = row_of(table, dataset=name, benchmark=task, value=value)
            column = array[:, j][np.isfinite(array[:, j])]
            assert row["n"] == len(column)
            if not len(column):
                continue
            close(row["effect"], column.mean())
            assert (row["up"], row["down"]) == ((column > 1e-9).sum(), (column < -1e-9).sum()) and row["up"] + row["down"] + row[
                "ties"
            ] == row["n"]
            distinct = len(set(np.abs(column).round(9))) == len(column) and (column != 0).all()
            if len(column) > 1 and distinct:
                close(row["p_wilcoxon"], scipy.stats.wilcoxon(column, method="exact").pvalue)


@pytest.mark.parametrize("policy", POLICIES)
def test_sign_flip_p_values_are_exact(policy):
    """Every sign of every model's effect, by permutation_test of scipy, on three cells."""
    table = product()[1][policy]["consistency"]
    for task, name in (("mmlu-0", "code_alpaca"), ("gsm8k-0", "magicoder"), ("boolq-5", "lima")):
        column = centred(cube(policy, task))[:, SETS.index(name)]
        column = column[np.isfinite(column)]
        test = scipy.stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided")
        row = row_of(table, dataset=name, benchmark=task, value="centred")
        null = test.null_distribution
        close(row["p"], np.mean(np.abs(null) >= abs(column.mean()) - 1e-12))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_correction_is_that_of_scipy(policy):
    table = product()[1][policy]["consistency"]
    for value in ("centred", "gain"):
        part = table.filter(pl.col("value") == value, pl.col("n") > 5)  # with five base models no p is below 0.0625
        close(part["q"].to_numpy(), scipy.stats.false_discovery_control(part["p"].to_numpy()))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", ["math-0", "mmlu-5", "mtbench-0", "truthfulqa-0", "nq-0"])
def test_concordance(policy, task):
    values = cube(policy, task)
    values = values[np.isfinite(values).all(axis=1)]
    row = row_of(product()[1][policy]["concordance"], benchmark=task)
    assert row["n"] == len(values)
    statistic = scipy.stats.friedmanchisquare(*values.T).statistic  # W = chi2 / (m (n - 1)), with the same correction for ties
    close(row["w"], statistic / (len(values) * (values.shape[1] - 1)))
    rho = [scipy.stats.spearmanr(values[i], values[j]).statistic for i in range(len(values)) for j in range(i)]
    close(row["effect"], np.mean(rho))


# ---------------------------------------------------------------- likeness


def stacked(policy, value) -> np.ndarray:
    """Models x sets x tasks, each task at unit spread."""
    layers = []
    for task in TASKS.values():
        layer = centred(cube(policy, task)) if value == "centred" else cube(policy, task) - base(policy, task)[:, None]
        known = layer[np.isfinite(layer)]
        layers.append(layer / known.std(ddof=1) if len(known) > 1 else np.full_like(layer, np.nan))
    return np.stack(layers, axis=2)


def r_of(a, b) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return scipy.stats.pearsonr(a[both], b[both]).statistic if both.sum() > 2 else np.nan


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("value", ["centred", "gain"])
def test_similarity_and_the_family_test(policy, value):
    array, models = stacked(policy, value), list(MODELS.values())
    tables = product()[1][policy]
    vectors = {"model": (models, array.reshape(len(models), -1)), "dataset": (SETS, np.moveaxis(array, 1, 0).reshape(len(SETS), -1))}
    for of, (names, flat) in vectors.items():
        for i in range(len(names)):
            for j in range(i):
                row = row_of(tables["similarity"], of=of, first=names[i], second=names[j], value=value)
                close(row["r"], r_of(flat[i], flat[j]))
    pairs = [(i, j, r_of(vectors["model"][1][i], vectors["model"][1][j])) for i in range(len(models)) for j in range(i)]
    pairs = [(models[i], models[j], r) for i, j, r in pairs if np.isfinite(r)]
    for question, label in (("same family - other family", lambda m: FAMILY.get(m, m)), ("same language - other language", LANGUAGE.get)):
        alike = [r for a, b, r in pairs if label(a) == label(b)]
        other = [r for a, b, r in pairs if label(a) != label(b)]
        row = row_of(tables["similarity_tests"], value=value, question=question)
        assert row["n"] == len(alike)
        close(row["effect"], np.mean(alike) - np.mean(other))


@pytest.mark.parametrize("value", ["centred", "gain"])
def test_components(value):
    """As published one run is missing, so the matrix is the 100 runs of the other base models x 21 benchmarks."""
    array = stacked("raw", value)
    matrix = array[np.isfinite(array).all(axis=(1, 2))].reshape(-1, len(TASKS))
    assert len(matrix) == 100
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(matrix.T))[::-1]
    share = eigenvalues / eigenvalues.sum()
    table = product()[1]["raw"]["components"].filter(pl.col("value") == value, pl.col("variables") == "benchmark").sort("component")
    assert table["observations"][0] == len(matrix)
    close(table["share"].to_numpy(), share)
    assert table["needed"][0] == int(np.argmax(np.cumsum(share) >= 0.9)) + 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", ["math-0", "mmlu-5", "boolq-0", "mtbench-0"])
def test_variance(policy, task):
    """Sums of squares by least squares on dummy variables, one block after the other (the design is balanced)."""
    both = np.stack([cube(policy, task, method) for method in ("full", "lora")], axis=2)
    both = both[np.isfinite(both).all(axis=(1, 2))]
    m, d, k = both.shape
    y = both.ravel() - both.mean()
    i, j, h = np.indices(both.shape).reshape(3, -1)
    labels = {
        "model": i,
        "dataset": j,
        "method": h,
        "model x dataset": i * d + j,
        "model x method": i * k + h,
        "dataset x method": j * k + h,
    }
    blocks, left, total = [], y, (y**2).sum()
    for term, label in labels.items():
        blocks.append(np.eye(label.max() + 1)[label])
        design = np.hstack(blocks)
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        row = row_of(product()[1][policy]["variance"], benchmark=task, value="score", term=term)
        assert row["n"] == m
        close(row["effect"], ((left**2).sum() - (residual**2).sum()) / total)
        left = residual
    close(row_of(product()[1][policy]["variance"], benchmark=task, value="score", term="rest")["effect"], (left**2).sum() / total)


@pytest.mark.parametrize("policy", POLICIES)
def test_numbers_over_benchmarks_count_each_benchmark_once(policy):
    """The means of the tables above, variants first."""
    tables = product()[1][policy]
    shares = {term: tables["variance"].filter(pl.col("value") == "score", pl.col("term") == term) for term in ("model", "dataset")}
    shares = shares["model"].join(shares["dataset"], on="benchmark").filter(pl.col("benchmark") != "all")
    expected = {
        overall.concordance: (tables["gains"].filter(pl.col("method") == "full"), tables["concordance"]),
        overall.model_minus_set: (tables["gains"], shares.with_columns(pl.col("effect") - pl.col("effect_right"))),
    }
    for function, (cells, table) in expected.items():
        by_benchmark = {}
        for task, effect in table.select("benchmark", "effect").iter_rows():
            if np.isfinite(effect):
                by_benchmark.setdefault(task.rpartition("-")[0], []).append(effect)
        close(function(cells, 0).effect, np.mean([np.mean(effects) for effects in by_benchmark.values()]))


# ---------------------------------------------------------------- contrasts


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", TASKS.values())
def test_lora_minus_full(policy, task):
    difference = cube(policy, task, "lora") - cube(policy, task, "full")
    row = row_of(product()[1][policy]["lora_full"], benchmark=task, data="single sets")
    known = np.isfinite(difference)
    assert (row["pairs"], row["n"]) == (known.sum(), known.any(axis=1).sum())
    close(row["effect"], difference[known].mean())
    means = np.array([line[ok].mean() for line, ok in zip(difference, known, strict=True) if ok.any()])
    close(row["p_wilcoxon"], scipy.stats.wilcoxon(means, method="exact").pvalue)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", ["mtbench-0", "alpacaeval-0", "gsm8k-4"])
def test_lora_minus_full_on_merged_data(policy, task):
    sides = (np.array([score(policy, model, "all", method, task, 10000) for model in MODELS.values()]) for method in ("lora", "full"))
    difference = np.subtract(*sides)
    known = np.isfinite(difference)
    row = row_of(product()[1][policy]["lora_full"], benchmark=task, data="merged set")
    assert row["n"] == known.sum()
    close(row["effect"], difference[known].mean())
    stated = {("mtbench-0", "raw"): -0.39 * 100 / 9, ("alpacaeval-0", "raw"): -1.24}.get((task, policy))
    assert stated is None or row["effect"] == pytest.approx(stated, abs=0.06)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", ["math-0", "mmlu-0", "mmlu-5", "nq-5", "hellaswag-0"])
def test_size(policy, task):
    differences = []
    for model in ("olmo-7b", "qwen2.5-7b", "llmjp-3-7b"):
        for name in SETS:
            large, small = (score(policy, model, name, "full", task, rows, "constant", 10) for rows in (20000, 1000))
            differences.append(large - small)
    differences = np.array(differences).reshape(3, len(SETS))
    known = np.isfinite(differences)
    row = row_of(product()[1][policy]["size"], benchmark=task, epochs="last")
    assert (row["pairs"], row["n"], row["unit"]) == (known.sum(), known.any(axis=0).sum(), "training sets")
    close(row["effect"], differences[known].mean())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pair", [("mmlu-0", "jmmlu-0"), ("mmlu-0", "cmmlu-0"), ("mmlu-5", "cmmlu-0")])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_transfer(policy, pair, method):
    one, two = (cube(policy, task, method) for task in pair)
    both = np.isfinite(one) & np.isfinite(two)
    x = np.concatenate([line[ok] - line[ok].mean() for line, ok in zip(one, both, strict=True) if ok.sum() > 1])
    y = np.concatenate([line[ok] - line[ok].mean() for line, ok in zip(two, both, strict=True) if ok.sum() > 1])
    row = row_of(product()[1][policy]["transfer"], method=method, first=pair[0], second=pair[1])
    assert row["n"] == len(x)
    close(row["effect"], (x @ y) / np.sqrt((x @ x) * (y @ y)))
    gains = [array - base(policy, task)[:, None] for array, task in zip((one, two), pair, strict=True)]
    close(row["gain_r"], r_of(gains[0].ravel(), gains[1].ravel()))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_leave_one_out(policy, method):
    table = product()[1][policy]["left_out"]
    for name in ("math", "code_alpaca", "flan_knowledge"):
        for task in ("math-0", "mmlu-5", "boolq-0", "nq-1"):
            without = score(policy, "olmo-7b", f"w/o-{name}", method, task, 9000)
            whole = score(policy, "olmo-7b", "all", method, task, 10000)
            if np.isfinite(without - whole):
                close(row_of(table, model="olmo-7b", method=method, removed=name, benchmark=task)["difference"], without - whole)


@pytest.mark.parametrize("task", ["math-0", "mmlu-0", "boolq-0"])
def test_noise_floor(task):
    """Steps between the epochs 6 to 10 of the runs with constant schedule; the last two only where both are there."""
    steps = []
    for model in MODELS.values():
        for name in SETS:
            for rows in (1000, 20000):
                line = [score("raw", model, name, "full", task, rows, "constant", epoch) for epoch in range(1, 11)]
                known = [epoch for epoch, value in enumerate(line, 1) if np.isfinite(value)]
                if not known:
                    continue
                steps += [line[e - 1] - line[e - 2] for e in known if e > max(known) / 2 and e - 1 in known]
    row = row_of(product()[1]["raw"]["noise"], benchmark=task)
    assert row["steps"] == len(steps)
    close(row["sd"], 1.4826 / np.sqrt(2) * np.median(np.abs(steps)))


# ---------------------------------------------------------------- further analyses

VARIANTS = {"mbpp": 2, "gsm8k": 2, "hellaswag": 2, "nq": 4, "boolq": 2, "mmlu": 2}  # columns of one benchmark share its weight


def share(task) -> float:
    return 1 / VARIANTS.get(task.rpartition("-")[0], 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_lora_and_full_correlate_over_sets(policy):
    moments, pairs = np.zeros((len(MODELS), 3)), np.zeros(len(MODELS), int)
    for task in TASKS.values():
        one, two = centred(cube(policy, task, "lora")), centred(cube(policy, task, "full"))
        spread = np.concatenate([one[np.isfinite(one)], two[np.isfinite(two)]]).std(ddof=1)
        for m, (x, y) in enumerate(zip(one / spread, two / spread, strict=True)):
            both = np.isfinite(x) & np.isfinite(y)
            if both.sum() > 1:
                x, y = x[both] - x[both].mean(), y[both] - y[both].mean()
                moments[m] += share(task) * np.array([x @ y, x @ x, y @ y])
                pairs[m] += both.sum()
    table = product()[1][policy]["method_correlation"]
    for m, model in enumerate(MODELS.values()):
        row = row_of(table, model=model)
        assert row["pairs"] == pairs[m]
        close(row["effect"], moments[m, 0] / np.sqrt(moments[m, 1] * moments[m, 2]))
    xy, xx, yy = moments.sum(axis=0)
    close(row_of(table, model="all")["effect"], xy / np.sqrt(xx * yy))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("value", ["centred", "gain"])
def test_pairs_of_sets_in_each_base_model(policy, value):
    array, models = stacked(policy, value), list(MODELS.values())
    table, pairs = product()[1][policy]["set_similarity"].filter(value=value), []
    found = {row[:3]: row[3:] for row in table.select("model", "first", "second", "r", "n").iter_rows()}
    for i in range(len(SETS)):
        for j in range(i + 1, len(SETS)):
            r = np.array([r_of(part[i], part[j]) for part in array])
            for model, expected in zip(models, r, strict=True):
                close(found[model, SETS[i], SETS[j]][0], expected)
            close(found["all", SETS[i], SETS[j]][0], r[np.isfinite(r)].mean())
            assert found["all", SETS[i], SETS[j]][1] == np.isfinite(r).sum()
            pairs.append(r)
    vectors = np.array(pairs).T
    vectors = vectors[np.isfinite(vectors).any(axis=1)]
    agreed = [r_of(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i)]
    row = row_of(product()[1][policy]["set_agreement"], value=value)
    assert row["n"] == len(vectors)
    close(row["effect"], np.mean(agreed))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_rank_on_the_own_topic(policy, method):
    tasks = {
        "magicoder": ["mbpp-4", "mbpp-0", "humaneval-0"],
        "math": ["math-0", "gsm8k-4", "gsm8k-0"],
        "flan_reasoning": ["hellaswag-0", "hellaswag-10"],
        "flan_knowledge": ["nq-0", "nq-1", "nq-5", "nq-25", "boolq-0", "boolq-5", "truthfulqa-0"],
        "lima": ["mtbench-0", "alpacaeval-0"],
    }
    for name, columns in tasks.items():
        ranks = np.array([scipy.stats.rankdata(-cube(policy, task, method), axis=1) for task in columns])
        weight = np.array([share(task) for task in columns])[:, None] * np.isfinite(ranks[:, :, 0])
        judged = weight.sum(axis=0) > 0
        mean = (np.nan_to_num(ranks) * weight[:, :, None]).sum(axis=0)[judged] / weight.sum(axis=0)[judged, None]
        row = row_of(product()[1][policy]["own_topic"], method=method, dataset=name)
        assert (row["n"], row["sets"]) == (judged.sum(), len(SETS))
        own = mean[:, SETS.index(name)]
        close(row["effect"], own.mean())
        assert row["best"] == (own <= mean.min(axis=1) + 1e-9).sum()
    assert "flan_comprehension" not in product()[1][policy]["own_topic"]["dataset"].to_list()  # no benchmark has this topic


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pair", [("mmlu-0", "jmmlu-0"), ("mmlu-5", "cmmlu-0")])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_transfer_by_language(policy, pair, method):
    r = np.array([r_of(x, y) for x, y in zip(*(cube(policy, task, method) for task in pair), strict=True)])
    table = product()[1][policy]["transfer_by_language"].filter(method=method, first=pair[0], second=pair[1])
    languages = [[value for value, name in zip(r, LANGUAGE.values(), strict=True) if name == one] for one in ("en", "zh", "ja")]
    groups = [np.array([value for value in group if np.isfinite(value)]) for group in languages]
    for language, group in zip(("en", "zh", "ja"), groups, strict=True):
        row = row_of(table, language=language)
        assert row["n"] == len(group) < 5 and np.isnan(row["low"])
        close(row["effect"], group.mean())
    known = np.concatenate(groups)
    f = scipy.stats.f_oneway(*groups).statistic
    row = row_of(table, language="between languages")
    close(row["effect"], 2 * f / (2 * f + len(known) - 3))
    assert row["n"] == len(known)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_composite_over_epochs_of_the_merged_set(policy, method):
    changes = []
    for model in MODELS.values():
        lines = {
            task: [score(policy, model, "all", method, task, 10000, "cosine", epoch) for epoch in range(1, 11)] for task in TASKS.values()
        }
        lines = {task: np.array(line) for task, line in lines.items() if np.isfinite(line[0])}
        assert all(np.isfinite(line).all() for line in lines.values())  # so that no epoch is left out
        names = [task.rpartition("-")[0] for task in lines]
        weight = np.array([1 / names.count(name) for name in names])
        if lines:
            course = weight @ np.stack(list(lines.values())) / weight.sum()
            changes.append(course - course[0])
    table = product()[1][policy]["composite"].filter(kind="merged", method=method)
    assert table["epoch"].to_list() == list(range(2, 11)) and set(table["n"]) == {len(changes)}
    close(table["effect"].to_numpy(), np.mean(changes, axis=0)[1:])


def test_components_of_zero_shot_columns():
    tasks = [task for task in TASKS.values() if task.endswith("-0") and task != "hellaswag-0"]  # no benchmark of the paper
    assert len(tasks) == 12
    array = np.stack([cube("raw", task) for task in tasks], axis=2)
    array = array[np.isfinite(array).all(axis=(1, 2))]
    matrix = (array - array.mean(axis=1, keepdims=True)).reshape(-1, len(tasks))
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(matrix.T))[::-1]
    table = product()[1]["raw"]["components_zero_shot"].filter(value="centred", variables="benchmark").sort("component")
    assert table["observations"][0] == len(matrix)
    close(table["share"].to_numpy(), eigenvalues / eigenvalues.sum())
