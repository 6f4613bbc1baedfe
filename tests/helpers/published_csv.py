"""A small CSV in the form of the published scores, with noise but without faults; tests plant faults in it."""

import io

import numpy as np
import polars as pl

MODELS = ("OLMo-7B-hf", "Qwen2.5-7B", "Yi-1.5-9B", "Sarashina2-7B")
SETS = ("alpaca_cleaned", "code_alpaca", "lima", "math", "openmath", "ultrachat")
ITEMS = {
    "mbpp_4shot": 257,
    "math-0shot": 5000,
    "gsm8k-4shot": 1319,
    "humaneval-0shot": 164,
    "hellaswag-10shot": 10042,
    "nq-1shot": 3610,
    "BoolQ-5shot": 3270,
}
ZERO = {"mbpp-0shot": 257, "gsm8k-0shot": 1319, "nq-0shot": 3610, "nq-5shot": 3610, "BoolQ-0shot": 3270, "hellaswag-0shot": 10042}
FILES = {"mmlu-5shot": 57, "mmlu-0shot": 57, "jmmlu-0shot": 57, "cmmlu-0shot": 67}


def frame(seed: int = 0, pooled: str | None = None) -> pl.DataFrame:
    """Full and LoRA runs of every model and set, ten-epoch runs with constant schedule of two models, and the base models.

    ``pooled``: a model whose MMLU 5-shot means are over the files of MMLU, MMLU-jp and MMLU-zh.
    """
    rng = np.random.default_rng(seed)
    runs = [(model, name, method, 10, "cosine") for model in MODELS for name in SETS for method in ("false", "true")]
    runs += [(model, name, "false", epoch, "constant") for model in MODELS[:2] for name in SETS for epoch in range(1, 11)]
    runs += [(model, "pretrain", "None", 0, "None") for model in MODELS]
    columns = [*ITEMS, *ZERO, *FILES]
    level = {(model, column): rng.uniform(68 if "BoolQ" in column else 40, 75) for model in MODELS for column in columns}
    effect = {(name, column): rng.normal(0, 6) for name in (*SETS, "pretrain") for column in columns}
    drift = {(model, name, column): rng.normal(0, 8) for model in MODELS for name in (*SETS, "pretrain") for column in columns}
    rows = []
    for number, (model, name, lora, epoch, schedule) in enumerate(runs):
        # a cosine run ends about where its constant schedule stands half way
        progress = (epoch if schedule == "constant" else 5) / 10
        row = {"": number, "model_name": model, "data_name": name}
        for column in columns:
            score = np.clip(level[model, column] + effect[name, column] + drift[model, name, column] * progress + rng.normal(0, 0.7), 1, 99)
            if column in FILES:
                row[column] = np.round(rng.normal(score, 3, FILES[column]).clip(0, 100), 2).sum() / FILES[column]
            else:
                items = {**ITEMS, **ZERO}[column]
                row[column] = round(100 * round(score * items / 100) / items, 2)
        if model == pooled:
            total = 57 * row["mmlu-5shot"] + 57 * row["jmmlu-0shot"] + 67 * row["cmmlu-0shot"]
            row["mmlu-5shot"] = total / 181
        row |= {"Truthful_QA-0shot": round(float(rng.uniform(0.02, 0.18)), 2)}
        row |= {"lora": lora, "epoch": epoch, "data_size": 0.0 if epoch == 0 else 1000.0, "lr_strategy": schedule}
        rows.append(row)
    return pl.DataFrame(rows)


def encode(table: pl.DataFrame) -> bytes:
    """The bytes of a CSV file."""
    target = io.BytesIO()
    table.write_csv(target)
    return target.getvalue()


def with_value(table: pl.DataFrame, row: int, column: str, value: object) -> pl.DataFrame:
    """The table with one cell changed."""
    return table.with_columns(pl.when(pl.col("") == row).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


def rows_of(table: pl.DataFrame, **keys: object) -> list[int]:
    """Row numbers that have these metadata."""
    return table.filter(*(pl.col(key) == value for key, value in keys.items()))[""].to_list()
