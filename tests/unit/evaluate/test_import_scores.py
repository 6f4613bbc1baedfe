"""Imports of scores that others measured: every problem named, and nothing dropped in silence."""

import json

import polars as pl
import pytest

from helpers.imported import content, contents, run, write_again
from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate import import_scores
from sft_atlas.evaluate.imports import found as reading
from sft_atlas.evaluate.imports import wide_table
from sft_atlas.study.items import prompts_hash
from sft_atlas.tables import documented


def test_every_number_of_the_run_is_in_the_table(lm_eval_run, run_script, tmp_path):
    _, scores, _, _ = run(run_script, tmp_path, sorted(lm_eval_run.iterdir()))
    results = next(value for name, value in contents(lm_eval_run).items() if "results_" in name)
    numbers = {
        (task, key): value
        for task, entry in results["results"].items()
        for key, value in entry.items()
        if "," in key and "_stderr" not in key
    }
    assert {(row["task"], row["key"]): row["score"] for row in scores.iter_rows(named=True)} == numbers
    of_group = scores.filter(benchmark="pick")
    group = of_group.row(by_predicate=pl.col("subtask").is_null() & (pl.col("metric") == "acc"), named=True)
    assert (group["n"], group["shots"], group["backend"], group["dtype"]) == (10, 0, "hf", "float32")
    assert group["stderr"] == results["results"]["pick"]["acc_stderr,none"]
    assert group["source"] == "lm-eval" and group["source_version"].startswith("lm_eval 0.4")
    assert scores.filter("main").select("benchmark", "subtask", "metric").rows() == [
        ("sums", None, "exact_match,strict"), ("pick", "pick_a", "acc"), ("pick", "pick_b", "acc"), ("pick", None, "acc"),
    ]  # fmt: skip


def test_the_prompts_of_a_group_are_those_of_its_tasks(lm_eval_run, run_script, tmp_path):
    _, scores, samples, _ = run(run_script, tmp_path, sorted(lm_eval_run.iterdir()))
    own = samples.filter(pl.col("main"), benchmark="pick")
    assert own["subtask"].to_list() == ["pick_a"] * 5 + ["pick_b"] * 5
    assert scores.filter(pl.col("subtask").is_null(), benchmark="pick", metric="acc")["items"].item() == prompts_hash(own["prompt"])


# ---------------------------------------------------------------- hostile files of lm-eval


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"results": {"arc": {"acc,none": "high"}}}', r"results\.arc\.acc,none: 'high' is not a number"),
        ('{"results": {"arc": {"acc,none": Infinity}}}', r"acc,none: an infinite score"),
        ('{"results": {"arc": {"acc,none": 1e999}}}', r"acc,none: an infinite score"),
        ('{"results": {"arc": {"acc,none": true}}}', r"acc,none: 'True' is not a number"),
        ('{"results": {"arc": {"acc,none": [0.5]}}}', r"acc,none: '\[0\.5\]' is not a number"),
        ('{"results": {"arc": 0.5}}', r"results\.arc is '0\.5', not the scores of a task"),
        ('{"results": {"arc": {"acc,none": 0.5, "acc,none": 0.6}}}', r"key 'acc,none' is there twice"),
        ('{"scores": {}}', r"no key `results`"),
        ("[1, 2]", r"no key `results`"),
        ('{"results": {"arc": {"acc,none": 0.5', r"results\.json.*not JSON.*cut short"),
        ('{"results": ' + '{"a": ' * 100_000 + "}" * 100_000 + "}", r"results\.json: nested too deeply"),
        ('{"results": {}}', r"no score is left to import"),
    ],
)  # fmt: skip
def test_results_that_lm_eval_did_not_write_are_refused_with_file_and_key(text, message, run_script, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(AtlasError, match=message) as error:
        run(run_script, tmp_path / "imported", [tmp_path / "results.json"])
    assert str(error.value).startswith("imported_scores.theirs: ")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"doc_id": 0, "acc": 1.0}', '{"doc_id": 0, "acc": 1.0}'], r"line 2: repeats doc_id 0 of line 1"),
        (['{"doc_id": 0, "acc": 1.0}', '{"doc_id": 1,'], r"line 2, column 14: not JSON"),
        (['{"doc_id": 0, "acc": 1.0}'], r"has 1 items, the results count 2"),
        (['{"doc": 0}', "{}"], r"line 1: is no sample of lm-eval"),
        (["[" * 100_000, "{}"], r"nested too deeply|not JSON"),
    ],
)
def test_samples_that_cannot_be_trusted_are_refused_with_their_line(lines, message, run_script, tmp_path):
    (tmp_path / "results_1.json").write_text(json.dumps({"results": {"arc": {"acc,none": 1.0}}, "n-samples": {"arc": {"effective": 2}}}))
    (tmp_path / "samples_arc_1.jsonl").write_text("\n".join(lines))
    with pytest.raises(AtlasError, match=message):
        run(run_script, tmp_path / "imported", sorted(tmp_path.glob("*.json*")))


def test_bom_crlf_and_empty_lines_are_read_and_nan_is_missing(run_script, tmp_path):
    results = {"results": {"arc": {"acc,none": 1.0}}, "n-samples": {"arc": {"effective": 2}}}
    (tmp_path / "results_1.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(results, indent=1).replace("\n", "\r\n").encode())
    (tmp_path / "samples_arc_1.jsonl").write_bytes(b'\xef\xbb\xbf{"doc_id": 0, "acc": 1.0}\r\n\r\n{"doc_id": 1, "acc": NaN}\r\n')
    folder, _, samples, _ = run(run_script, tmp_path / "imported", sorted(tmp_path.glob("*.json*")))
    assert samples["score"].to_list() == [1.0, None] and samples["missing"].to_list() == [None, "acc is nan"]
    (written,) = [value for name, value in write_again(run_script, folder, tmp_path / "again").items() if "samples" in name]
    assert written == content(tmp_path / "samples_arc_1.jsonl")


def test_two_results_of_one_model_are_joined_unless_they_differ(run_script, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for date, score in (("2024-01-01", 0.5), ("2024-01-02", 0.5)):
        (model / f"results_{date}.json").write_text(
            json.dumps({"model_name": "m", "results": {"arc": {"acc,none": score}, f"on-{date}": {"acc,none": 0.25}}})
        )
    folder, scores, _, record = run(run_script, tmp_path / "imported", sorted(model.iterdir()))
    assert sorted(scores["benchmark"]) == ["arc", "on-2024-01-01", "on-2024-01-02"] and "the same score as" in record["left_out"][0]
    assert write_again(run_script, folder, tmp_path / "again") == contents(model)
    (model / "results_2024-01-03.json").write_text(json.dumps({"model_name": "m", "results": {"arc": {"acc,none": 0.75}}}))
    with pytest.raises(AtlasError, match=r"results_2024-01-03\.json: results\.arc\.acc,none: 0\.75, but .*results_2024-01-01\.json"):
        run(run_script, tmp_path / "imported", sorted(model.iterdir()))


# ---------------------------------------------------------------- wide tables

TABLE = "name,mmlu:acc:5,gsm8k:exact_match:5,notes\nalpha,45.5,12.25,good\nbeta,,40,\n"


def wide(run_script, tmp_path, text, name="theirs.csv", **settings):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return run(run_script, tmp_path / "imported", [path], "csv", **settings)


def test_a_csv_whose_heads_say_what_they_hold(run_script, tmp_path):
    _, scores, samples, record = wide(run_script, tmp_path, TABLE)
    rows = scores.select("source_checkpoint", "benchmark", "metric", "shots", "score").rows()
    assert rows == [("alpha", "mmlu", "acc", 5, 0.455), ("alpha", "gsm8k", "exact_match", 5, 0.1225), ("beta", "mmlu", "acc", 5, None), ("beta", "gsm8k", "exact_match", 5, 0.4)]  # fmt: skip
    assert samples.is_empty() and record["left_out"] == [f"{tmp_path / 'theirs.csv'}: column notes is said to hold no scores"]
    assert record["unknown"]["checkpoints"] == ["alpha", "beta"]
    assert set(scores["source"]) == {"csv"} and scores["source_version"][0].startswith("sha256 ")
    assert next(iter(record["inputs"].values()))["sha256"].startswith(scores["source_version"][0].split()[1])


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + TABLE.encode(), TABLE.encode("utf-16"), TABLE.replace("\n", "\r\n").encode(), TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode(), TABLE.rstrip("\n").encode(), b"\n" + TABLE.replace("alpha", '"alpha"').encode(),
    ],
    ids=["bom", "utf-16", "crlf", "semicolons", "tabs", "no last line feed", "quotes"],
)  # fmt: skip
def test_csv_in_other_dresses(text, run_script, tmp_path):
    assert wide(run_script, tmp_path, text)[1]["score"].to_list() == [0.455, 0.1225, None, 0.4]


def test_a_study_says_what_columns_and_checkpoints_are(run_script, tmp_path):
    table = "Model,Base,Data,Kind,MMLU,err,n\nalpha,llama/7b,lima,LoRA,0.5,0.01,3\ngamma,llama/7b,,,0.25,0.02,3\n"
    settings = {
        "benchmarks": {"MMLU": {"benchmark": "mmlu", "metric": "acc", "shots": 5, "stderr": "err", "items": 100}},
        "facts": {"model": "Base", "dataset": "Data", "method": "Kind"},
        "metrics": {"mmlu": {"text": "acc (lm_eval: mmlu)", "metric": "acc", "filter": "none"}},
        "version": "v2", "template": "theirs",
    }  # fmt: skip
    _, scores, _, _ = wide(run_script, tmp_path, table, **settings)
    columns = ["model", "dataset", "recipe", "method", "epoch", "benchmark", "metric", "score", "stderr", "n", "shots", "template"]
    assert scores.select(columns).rows() == [
        ("llama__7b", "lima", "lora", "lora", 1, "mmlu", "acc (lm_eval: mmlu)", 0.5, 0.01, 100, 5, "theirs"),
        ("llama__7b", "base", "base", "base", 0, "mmlu", "acc (lm_eval: mmlu)", 0.25, 0.02, 100, 5, "theirs"),
    ]
    assert scores["source_version"][0].startswith("v2 sha256 ")


def test_checkpoints_that_are_named_are_imported_and_the_others_are_listed(run_script, tmp_path):
    place = {"model": "tiny", "dataset": "lima", "recipe": "lora", "epoch": 2}
    _, scores, _, record = wide(run_script, tmp_path, TABLE, checkpoints={"alpha": place})
    assert scores.select("model", "dataset", "recipe", "epoch", "of_study").unique().rows() == [("tiny", "lima", "lora", 2, True)]
    assert "checkpoint beta: the study names others only" in record["left_out"]
    with pytest.raises(AtlasError, match=r"checkpoints\.alfa: the files have no such name; did you mean 'alpha'\?; there are alpha, beta"):
        wide(run_script, tmp_path, TABLE, checkpoints={"alfa": place})
    with pytest.raises(AtlasError, match=r"are scores of the same checkpoint, benchmark and metric"):
        wide(run_script, tmp_path, TABLE, checkpoints={"alpha": place, "beta": place})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,a:acc:0\nx,12,3\n", r"line 2: 3 cells instead of 2"),
        ("name,a:acc:0\nx,12.5%\n", r"line 2, column a:acc:0: '12\.5%' is not a number; write the number alone, and state `unit: percent`"),
        ('name,a:acc:0\nx,"12,5"\n', r"line 2, column a:acc:0: '12,5' is not a number; write a decimal point"),
        ("name,a:acc:0\nx,good\n", r"line 2, column a:acc:0: 'good' is not a number"),
        ("name,a:acc:0\nx,inf\n", r"line 2, column a:acc:0: an infinite score"),
        ("name,a:acc:0\nx,0x10\n", r"'0x10' is not a number"),
        ("name,a:acc:0\nx,1\nx,0\n", r"line 3, column a:acc:0: x is there twice, with another score before \(.*line 2"),
        ("name,a:acc:0,a:acc:0\nx,1,1\n", r"line 1: two columns are called 'a:acc:0'"),
        ("name,a:acc:0\n,12\n", r"line 2: no checkpoint in column 'name'"),
        ("name,a:acc:0\n", r"no rows"),
        ("", r"no rows"),
        ("name,a\nx,12\n", r"no column says that it holds scores.*there are name, a"),
        ('name,a:acc:0\nx,"12\n', r"not a CSV"),
        ("name,a:acc:0\nx,120\n", r"line 2: 120 is no percentage from 0 to 100"),
        ("name,a:acc:0\nx,-1\n", r"line 2: -1 is no fraction from 0 to 1"),
        ("name,a:acc:0\nx\xff,1\n".encode("latin-1"), r"line 2: not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_csv_that_cannot_be_trusted_is_refused_with_its_line(table, message, run_script, tmp_path):
    with pytest.raises(AtlasError, match=message):
        wide(run_script, tmp_path, table)


def test_repeated_rows_are_dropped_and_listed(run_script, tmp_path):
    _, scores, _, record = wide(run_script, tmp_path, "name,a:acc:0\nx,12\nx,12\n")
    assert scores["score"].to_list() == [0.12] and "line 3" in record["left_out"][0] and "repeats" in record["left_out"][0]


@pytest.mark.parametrize(
    ("columns", "stated", "expected"),
    [
        ({"a": ([45.0, 3.0], None), "b": ([12.0, None], None)}, None, ["percent", "percent"]),
        ({"a": ([0.45, 1.0], None), "b": ([0.0, None], None)}, None, ["fraction", "fraction"]),
        ({"a": ([45.0, 3.0], None), "b": ([0.5, 0.25], None)}, None, "b, line 1: 0.5 may be a fraction or a percentage"),
        ({"a": ([45.0, 0.5], None)}, None, "a, line 2: 0.5 may be a fraction or a percentage"),
        ({"a": ([45.0, 0.5], None), "b": ([2.0, 3.0], None)}, "percent", ["percent", "percent"]),
        ({"a": ([45.0, 3.0], None), "b": ([0.5, 0.25], None)}, "percent", "b, line 1: 0.5 may be a fraction or a percentage"),
        ({"a": ([45.0, 3.0], None), "b": ([0.5, 0.25], "fraction")}, "percent", ["percent", "fraction"]),
        ({"a": ([45.0, 3.0], None), "b": ([0.5, 0.25], "percent")}, None, ["percent", "percent"]),
        ({"a": ([0.5, 0.25], None)}, "percent", ["percent"]),
        ({"a": ([0.5, 45.0], None)}, "fraction", "a, line 2: 45 is no fraction from 0 to 1"),
        ({"a": ([None, 0.0], None), "b": ([12.0, 3.0], None)}, None, ["percent", "percent"]),
    ],
)  # fmt: skip
def test_units_are_found_by_stated_rules_and_refused_where_they_are_not_clear(columns, stated, expected):
    if isinstance(expected, list):
        assert wide_table.units(columns, stated, ["line 1", "line 2"]) == expected
    else:
        with pytest.raises(AtlasError, match=expected):
            wide_table.units(columns, stated, ["line 1", "line 2"])


def test_json_and_parquet_hold_the_same_rows(run_script, tmp_path):
    rows = [{"name": "alpha", "mmlu:acc:5": 45.5}, {"name": "beta", "mmlu:acc:5": None}]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    served = {"rows": [{"row_idx": i, "row": row} for i, row in enumerate(rows)]}  # as the hub's server of datasets
    parquet = run(run_script, tmp_path / "a", [tmp_path / "rows.parquet"], "csv")[1]
    for name, text in (
        ("rows.json", json.dumps(rows)),
        ("rows.jsonl", "\n".join(map(json.dumps, rows))),
        ("served.json", json.dumps(served)),
    ):
        assert wide(run_script, tmp_path, text, name)[1]["score"].to_list() == parquet["score"].to_list() == [0.455, None]
    with pytest.raises(AtlasError, match="cannot be read as Parquet"):
        wide(run_script, tmp_path, b"PAR1 no", "rows.parquet")
    with pytest.raises(AtlasError, match="row 1: is '3', not a row"):
        wide(run_script, tmp_path, "[3]", "rows.json")


def test_a_file_that_no_table_of_scores_is_as_large_as_is_refused(run_script, tmp_path):
    path = tmp_path / "large.csv"
    with open(path, "wb") as stream:
        stream.truncate(200 * 2**20)
    with pytest.raises(AtlasError, match=r"large\.csv: 200 MiB, more than a file of scores has"):
        run(run_script, tmp_path / "imported", [path], "csv")


def test_samples_are_read_line_by_line(run_script, tmp_path, monkeypatch):
    """So that their size has no limit: the file is never read as a whole, whatever the limit of other files is."""
    monkeypatch.setattr(reading, "LARGEST", 1000)
    (tmp_path / "results_1.json").write_text(json.dumps({"results": {"arc": {"acc,none": 1.0}}}))
    (tmp_path / "samples_arc_1.jsonl").write_text("".join(json.dumps({"doc_id": i, "acc": 1.0}) + "\n" for i in range(5000)))
    assert run(run_script, tmp_path / "imported", sorted(tmp_path.glob("*.json*")))[2].height == 5000


# ---------------------------------------------------------------- the Open LLM Leaderboard


def board(run_script, tmp_path, rows, **settings):
    (tmp_path / "board.json").write_text(json.dumps(rows))
    return run(run_script, tmp_path / "imported", [tmp_path / "board.json"], "leaderboard", **settings)


def test_rows_of_the_first_leaderboard(run_script, tmp_path):
    link = '<a target="_blank" href="https://huggingface.co/org/name" style="color: red">org/name</a>'
    row = {"Model": link, "Average ⬆️": 50.0, "ARC": 60.5, "HellaSwag": 80.0, "MMLU": 0.5, "TruthfulQA": None, "Type": "fine-tuned"}
    _, scores, _, _ = board(run_script, tmp_path, [row])
    assert scores.select("benchmark", "metric", "shots", "score").rows() == [
        ("arc_challenge", "acc_norm", 25, 0.605), ("hellaswag", "acc_norm", 10, 0.8), ("mmlu", "acc", 5, 0.005), ("truthfulqa_mc2", "mc2", 0, None),
    ]  # fmt: skip
    assert set(scores["source_checkpoint"]) == {"org/name"} and set(scores["template"]) == {"Open LLM Leaderboard v1"}
    assert scores["source_version"][0].startswith("Open LLM Leaderboard v1 sha256 ")


CARD = (  # columns of open-llm-leaderboard-old/contents by its card
    "eval_name", "Precision", "Type", "T", "Weight type", "Architecture", "Model", "fullname", "Model sha", "Average ⬆️", "Hub License", "Hub ❤️", "#Params (B)",
    "Available on the hub", "Merged", "MoE", "Flagged", "date", "Chat Template", "ARC", "HellaSwag", "MMLU", "TruthfulQA", "Winogrande", "GSM8K",
    "Maintainers Choice",
)  # fmt: skip


def test_every_score_of_the_card_of_the_first_leaderboard_is_read(run_script, tmp_path):
    row = dict.fromkeys(CARD) | {"fullname": "org/name", "eval_name": "org_name_float16", "Chat Template": False}
    row |= {"Average ⬆️": 50.0, "#Params (B)": 7} | {name: 50.0 + place for place, name in enumerate(CARD[19:25])}
    _, scores, _, _ = board(run_script, tmp_path, [row])
    assert scores["score"].to_list() == [0.5, 0.51, 0.52, 0.53, 0.54, 0.55] and set(scores["source_checkpoint"]) == {"org/name"}
    assert scores["benchmark"].to_list() == ["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2", "winogrande", "gsm8k"]


def test_rows_of_the_second_leaderboard_as_table_and_as_api(run_script, tmp_path):
    table = {
        "fullname": "org/name",
        "Model": "<a>x</a>",
        "IFEval Raw": 0.5,
        "IFEval": 50.0,
        "BBH Raw": 0.4,
        "BBH": 14.3,
        "Chat Template": True,
    }
    api = {
        "id": "1", "model": {"name": "org/name", "has_chat_template": True},
        "evaluations": {"ifeval": {"value": 0.5, "normalized_score": 50.0}, "bbh": {"value": 0.4, "normalized_score": 14.3}},
    }  # fmt: skip
    for row in (table, api):
        _, scores, _, record = board(run_script, tmp_path, [row])
        assert scores.select("benchmark", "shots", "score").rows() == [("ifeval", 0, 0.5), ("bbh", 3, 0.4)]
        assert set(scores["template"]) == {"Open LLM Leaderboard v2, chat template"}
        assert any("IFEval, BBH are rescaled" in line for line in record["left_out"])
    _, scores, _, _ = board(run_script, tmp_path, [{"fullname": "org/name", "GPQA": 4.5}])
    assert scores.select("metric", "score").rows() == [("rescaled acc_norm", 0.045)]


def test_the_leaderboards_rows_that_are_not_clear_are_refused(run_script, tmp_path):
    twice = [{"fullname": "org/name", "eval_name": f"name_{dtype}", "BBH Raw": score} for dtype, score in (("f16", 0.4), ("bf16", 0.41))]
    with pytest.raises(AtlasError, match=r"row 2, column BBH Raw: org/name is there twice.*name with `checkpoint` a column"):
        board(run_script, tmp_path, twice)
    assert board(run_script, tmp_path, twice, checkpoint="eval_name")[1].height == 2
    with pytest.raises(AtlasError, match="has columns of both versions"):
        board(run_script, tmp_path, [{"fullname": "x", "ARC": 50, "BBH Raw": 0.4}])
    with pytest.raises(AtlasError, match="has no column of scores"):
        board(run_script, tmp_path, [{"fullname": "x", "MT-Bench": 7}])
    with pytest.raises(AtlasError, match="400 is no percentage"):
        board(run_script, tmp_path, [{"fullname": "x", "ARC": 400}])


def test_imported_scores_have_the_documented_columns_of_the_table(run_script, tmp_path):
    scores = wide(run_script, tmp_path, TABLE)[1]
    assert set(documented.TABLES["scores"].columns) - set(scores.columns) <= {"schedule", "blocks"}


def test_a_base_model_and_a_recipe_of_the_study_are_recognised_in_the_columns_of_a_table(run_script, tmp_path, caplog):
    text = "name,base,set,method,sums:acc:0\na,llama,red,full,0.5\nb,lama,red,lora,0.25\n"
    (tmp_path / "theirs.csv").write_text(text)
    facts = {"model": "base", "dataset": "set", "method": "method"}
    known = {"recipes": ["full"], "models": ["llama"]}
    _, scores, _, record = run(run_script, tmp_path / "out", [tmp_path / "theirs.csv"], "csv", facts=facts, **known)
    assert scores.select("recipe", "method").rows() == [("imported-full", "full"), ("lora", "lora")]
    assert record["unknown"]["base models"] == ["lama; did you mean 'llama'?"]
    assert "base models that the study does not have, under their own names: lama; did you mean 'llama'?" in caplog.text


def test_nothing_to_import_is_said(run_script, tmp_path, caplog):
    run_script(import_scores, imports="{}", output=tmp_path)
    assert "no imported_scores" in caplog.text
