"""Reading a CSV of published scores: order and encoding do not matter; a truncated or contradictory CSV is an error."""

import hashlib
import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from helpers import published_csv
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.published import fetch_published, tidy_published

REAL = ROOT / "../shared/published/evaluation_result.csv"
OWN = published_csv.frame()


def same(changed: bytes, original: bytes) -> None:
    assert_frame_equal(tidy_published.tidy(changed), tidy_published.tidy(original))


def contents():
    yield pytest.param(published_csv.encode(OWN), id="small")
    if REAL.is_file():
        yield pytest.param(REAL.read_bytes(), id="published")


@pytest.fixture(params=contents())
def content(request):
    return request.param


def test_the_table_has_units_and_keys(content):
    table = tidy_published.tidy(content)
    assert table.columns == [*tidy_published.RUN, "epoch", "benchmark", "shots", "score", "scale", "unit", "row", "task"]
    base = table.filter(pl.col("method") == "base")
    assert set(base["epoch"]) == {0} and base["schedule"].null_count() == base.height and set(base["dataset"]) == {"base"}
    tuned = table.filter(pl.col("method") != "base")
    assert set(tuned["method"]) == {"full", "lora"} and tuned["epoch"].min() == 1 and tuned["schedule"].null_count() == 0
    assert set(table.filter(pl.col("scale") == "fraction")["task"]) == {"truthfulqa-0"}
    assert table.filter(pl.col("scale") == "fraction")["score"].max() <= 1
    assert table.select("row", "task").is_unique().all()


def test_order_of_rows_and_columns_does_not_matter(content):
    table = pl.read_csv(content, infer_schema=False)
    same(table.sample(fraction=1, shuffle=True, seed=3).write_csv().encode(), content)
    same(table.select(reversed(table.columns)).write_csv().encode(), content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "crlf", "semicolon", "tab", "blank lines"])
def test_encoding_does_not_matter(content, encoding):
    text = content.decode()
    changes = {
        "crlf": lambda: text.replace("\n", "\r\n").encode(),
        "semicolon": lambda: text.replace(",", ";").encode(),
        "tab": lambda: text.replace(",", "\t").encode(),
        "blank lines": lambda: text.replace("\n", "\n\n").encode(),
    }
    same(changes.get(encoding, lambda: text.encode(encoding))(), content)


def test_repeated_rows_do_not_matter(content):
    head, *lines = content.decode().splitlines()
    same("\n".join([head, *lines, *lines[::3], ""]).encode(), content)


def test_a_file_cut_within_a_line_is_an_error(content):
    for length in (len(content) // 2, len(content) - 5, len(content) - 1):
        with pytest.raises(AtlasError, match="cut"):
            tidy_published.tidy(content[:length])


def test_a_file_cut_between_lines_is_an_error(content):
    lines = content.decode().splitlines(keepends=True)
    for kept in range(1, len(lines) - 1, max(1, len(lines) // 40)):
        short = "".join(lines[: kept + 1]).encode()
        known = content == REAL.read_bytes() if REAL.is_file() else False
        whole = set(pl.read_csv(content, infer_schema=False)["model_name"]) == set(
            pl.read_csv(short, infer_schema=False).filter(pl.col("data_name") == "pretrain")["model_name"]
        )
        if known or not whole:
            with pytest.raises(AtlasError, match="cut"):
                tidy_published.tidy(short)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/published is absent")
def test_a_changed_copy_of_the_authors_file_is_an_error():
    content = REAL.read_bytes()
    assert hashlib.sha256(content).hexdigest() == fetch_published.SHA256
    with pytest.raises(AtlasError, match="authors' table, but changed"):
        tidy_published.tidy(content.replace(b",59.53,10.8,", b",59.53,10.9,", 1))


# ---------------------------------------------------------------- a CSV of one's own


def test_rows_that_differ_in_their_number_alone_are_one():
    same(published_csv.encode(pl.concat([OWN, OWN.head(7).with_columns(pl.col("") + 5000)])), published_csv.encode(OWN))


def test_decimal_commas_are_read_where_semicolons_separate():
    text = published_csv.encode(OWN).decode()
    names = {name: name.replace(".", "_") for name in published_csv.MODELS}
    for old, new in names.items():
        text = text.replace(old, new)
    comma = text.replace(",", ";").replace(".", ",")
    same(comma.encode(), text.encode())


def scores_of(table: pl.DataFrame, task: str) -> pl.DataFrame:
    return tidy_published.tidy(published_csv.encode(table)).filter(pl.col("task") == task)


@pytest.mark.parametrize("column", ["math-0shot", "BoolQ-0shot", "mmlu-0shot", "my-quiz-3shot"])
def test_fractions_are_recognised_and_converted(column):
    table = OWN.rename({"nq-1shot": "my-quiz-3shot"})
    task = tidy_published.columns.column(column).task
    given = scores_of(table.with_columns(pl.col(column) / 100), task)
    assert set(given["unit"]) == {"fraction"} and set(given["scale"]) == {"percent"}
    assert given["score"].to_list() == pytest.approx(scores_of(table, task)["score"].to_list())


def test_a_model_that_solves_next_to_nothing_has_small_percentages():
    table = OWN.with_columns((pl.col("") % 2 * 0.61).alias("humaneval-0shot"))  # 0 or 1 of 164 items
    assert set(scores_of(table, "humaneval-0")["unit"]) == {"percent"} and scores_of(table, "humaneval-0")["score"].max() == 0.61


def test_percentages_of_a_benchmark_in_fractions_are_converted():
    given = scores_of(OWN.with_columns(pl.col("Truthful_QA-0shot") * 100), "truthfulqa-0")
    assert set(given["unit"]) == {"percent"} and given["score"].to_list() == pytest.approx(
        scores_of(OWN, "truthfulqa-0")["score"].to_list()
    )


def test_errors_are_one_line_that_names_the_users_file(tmp_path, run_script):
    """The file that was given, not the copy of it, which is what the job reads."""
    table = OWN.with_columns(pl.col("mbpp-0shot").cast(pl.String).replace({str(OWN["mbpp-0shot"][3]): "failed"}))
    (tmp_path / "copy.csv").write_bytes(published_csv.encode(table))
    (tmp_path / "copy.json").write_text(json.dumps({"source": "their/scores.csv"}))
    paths = {"input": tmp_path / "copy.csv", "source": tmp_path / "copy.json", "output": tmp_path / "scores.parquet"}
    with pytest.raises(AtlasError, match=r"^their/scores.csv: row 3, column mbpp-0shot: 'failed' is not a number\.[^\n]*remove it$"):
        run_script(tidy_published, **paths)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/published is absent")
def test_a_part_of_the_authors_table_is_read_without_its_row_numbers():
    part = pl.read_csv(REAL, infer_schema=False).filter(pl.col("data_name").is_in(["pretrain", "lima"]))
    with pytest.raises(AtlasError, match="on purpose, remove the first column"):
        tidy_published.tidy(published_csv.encode(part))
    assert tidy_published.tidy(published_csv.encode(part.drop("")))["row"].n_unique() == part.height


def mistakes():
    tuned = published_csv.rows_of(OWN, data_name="lima", lora="true")[0]
    yield "no column lora", OWN.drop("lora"), "no column lora"
    yield (
        "text in a score",
        OWN.with_columns(pl.col("mbpp-0shot").cast(pl.String).replace({str(OWN["mbpp-0shot"][3]): "n. a."})),
        "is not a number",
    )
    yield "no base row", OWN.filter(pl.col("data_name") != "pretrain"), "no row for the base model"
    yield "off the scale", published_csv.with_value(OWN, tuned, "math-0shot", 180.0), "outside the column's scale"
    yield "a fraction above 1", published_csv.with_value(OWN, tuned, "Truthful_QA-0shot", 4.0), "outside the column's scale"
    yield "no schedule", published_csv.with_value(OWN, tuned, "lr_strategy", None), "has no lr_strategy"
    yield "unknown method", published_csv.with_value(OWN, tuned, "lora", "perhaps"), "lora is"
    other = OWN.filter(pl.col("") == tuned).with_columns(pl.lit(5.0).alias("math-0shot"), pl.lit(9999, pl.Int64).alias(""))
    yield "two results", pl.concat([OWN, other]), "the same checkpoint"
    yield "one id twice", OWN.with_columns(pl.when(pl.col("") == tuned).then(0).otherwise(pl.col("")).alias("")), "same row number"
    yield "one benchmark twice", OWN.with_columns(pl.col("mbpp-0shot").alias("MBPP-0shot")), "the same benchmark"


@pytest.mark.parametrize(("table", "message"), [pytest.param(table, message, id=name) for name, table, message in mistakes()])
def test_a_contradictory_file_is_an_error_that_says_where(table, message):
    with pytest.raises(AtlasError, match=message):
        tidy_published.tidy(published_csv.encode(table))


def test_unknown_names_are_kept():
    table = OWN.with_columns(pl.col("model_name").replace("Yi-1.5-9B", "my-model"), pl.col("data_name").replace("lima", "my-set"))
    table = table.rename({"nq-1shot": "my-quiz-3shot"})
    scores = tidy_published.tidy(published_csv.encode(table))
    assert "my-model" in set(scores["model"]) and "my-set" in set(scores["dataset"])
    assert set(scores.filter(pl.col("benchmark") == "my-quiz")["shots"]) == {3}
