"""Training sets and benchmark items: reading, cleaning, sampling, generating, and the proof that they do not meet."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import check_overlap, fetch_benchmark, fetch_dataset, merge_datasets, prepare_dataset, procedural, records
from sft_atlas.data.items import benchmark_items
from sft_atlas.study.schema import Benchmark, Columns, Dataset

ROWS = [{"instruction": "Name a colour.", "response": "red"}, {"instruction": "Name a\u2028number.", "response": "7"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def pairs(*rows, source=None):
    """A frame of instruction, response and source from (instruction, response) tuples."""
    schema = {"instruction": pl.String, "response": pl.String, "source": pl.String}
    return pl.DataFrame([(*row, source) for row in rows], schema=schema, orient="row")


def numbered(count):
    return pairs(*((f"question {i}", f"answer {i}") for i in range(count)))


def dataset(**settings):
    return Dataset(path="rows.jsonl", **settings)


def benchmark(**settings):
    return Benchmark(path="items.jsonl", task="task.yaml", **settings)


# ---------------------------------------------------------------- reading


def write_jsonl(path):
    path.write_text(LINES, encoding="utf-8")


def write_gz(path):
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        handle.write(LINES)


def write_parquet(path):
    pl.DataFrame(ROWS).write_parquet(path)


@pytest.mark.parametrize(("name", "write"), [("rows.jsonl", write_jsonl), ("rows.jsonl.gz", write_gz), ("rows.parquet", write_parquet)])
def test_every_file_format_gives_the_same_rows(tmp_path, name, write):
    write(tmp_path / name)
    assert records.read_file(tmp_path / name).to_dicts() == ROWS


def test_a_column_that_changes_its_type_late_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": i, "response": "x"}) + "\n" for i in [*range(2000), "last"]))
    assert records.read_file(path)["instruction"].to_list()[-2:] == ["1999", "last"]


BROKEN = {
    "cut.jsonl": b'{"instruction": "a", "response": "b"}\n{"instruction": \n',
    "text.jsonl": b"not JSON at all\n",
    "array.jsonl": b'[{"instruction": "a", "response": "b"}]\n',
    "empty.jsonl": b"",
    "cut.jsonl.gz": gzip.compress(LINES.encode())[:30],
    "text.parquet": b"not Parquet",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_that_names_it(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    expected = "Parquet" if name.endswith("parquet") else "JSON lines"
    with pytest.raises(AtlasError, match=rf"{name}: not readable as {expected}: "):
        records.read_file(tmp_path / name)


def test_a_missing_file_is_an_error_that_says_where_paths_start(tmp_path):
    with pytest.raises(AtlasError, match=r"nowhere\.jsonl: there is no such file \(relative paths start at `data_root`"):
        records.read_file(tmp_path / "nowhere.jsonl")


def test_a_source_without_rows_is_an_error(tmp_path):
    pl.DataFrame(schema={"instruction": pl.String}).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(AtlasError, match=r"none\.parquet: no rows"):
        records.read_rows(dataset(), tmp_path / "none.parquet", "train")


def test_columns_are_renamed_and_the_rest_is_left_out():
    frame = pl.DataFrame({"question": ["1 + 1?"], "answer": [2], "id": ["x"]})
    found = records.to_pairs(frame, Columns(instruction="question", response="answer"), "datasets.sums")
    assert found.to_dicts() == [{"instruction": "1 + 1?", "response": "2", "source": None}]


@pytest.mark.parametrize("column", ["source", "task"])
def test_the_rows_own_source_is_kept(column):
    frame = pl.DataFrame({"instruction": ["x"], "response": ["y"], column: ["boolq"]})
    assert records.to_pairs(frame, Columns(), "here")["source"].to_list() == ["boolq"]


def test_alpacas_input_follows_the_instruction_where_there_is_one():
    frame = pl.DataFrame({"instruction": ["Add.", "Add.", "Add."], "input": ["1, 2", " ", None], "response": ["3", "?", "?"]})
    found = records.to_pairs(frame, Columns(input="input"), "datasets.alpaca")
    assert found["instruction"].to_list() == ["Add.\n1, 2", "Add.", "Add."]


def test_a_missing_column_is_an_error_that_lists_the_columns():
    with pytest.raises(AtlasError) as caught:
        records.to_pairs(pl.DataFrame({"question": ["a"], "answer": ["b"]}), Columns(), "datasets.sums")
    assert str(caught.value).startswith(
        "datasets.sums: no column 'instruction'; the columns are question, answer. Name them with `columns:"
    )


def test_a_missing_input_column_is_an_error_too():
    with pytest.raises(AtlasError, match=r"datasets\.x: no column 'context'"):
        records.to_pairs(pairs(("a", "b")), Columns(input="context"), "datasets.x")


def test_a_column_of_lists_is_an_error_and_no_text():
    with pytest.raises(AtlasError, match=r"datasets\.chat: column 'response' holds List\(String\), not text"):
        records.to_pairs(pl.DataFrame({"instruction": ["a"], "response": [["b", "c"]]}), Columns(), "datasets.chat")


# ---------------------------------------------------------------- cleaning and sampling


CHATS = {
    "texts": [["Hi?", "Hello.", "Bye?", "Bye."], ["Alone?"]],
    "roles": [
        [{"role": role, "content": text} for role, text in turns]
        for turns in (
            [("system", "Be kind."), ("user", "Hi?"), ("assistant", "Hello."), ("user", "Bye?"), ("assistant", "Bye.")],
            [("user", "Alone?")],
        )
    ],
}


@pytest.mark.parametrize("kind", CHATS)
def test_a_conversation_gives_its_first_user_turn_and_first_reply(kind):
    frame = records.to_pairs(pl.DataFrame({"chat": CHATS[kind], "source": ["a", "b"]}), Columns(conversation="chat"), "datasets.chats")
    assert frame.rows() == [("Hi?", "Hello.", "a"), ("Alone?", None, "b")]
    kept, dropped = records.clean(frame, dataset())
    assert kept.height == 1 and dropped["empty response"] == 1


@pytest.mark.parametrize(
    ("column", "said"), [("text", "not lists of turns"), ("turns", "need `role` and `content`"), ("chat", "no column")]
)
def test_what_is_no_conversation_is_an_error(column, said):
    frame = pl.DataFrame({"text": ["Hi?"], "turns": [[{"from": "human", "value": "Hi?"}]]})
    with pytest.raises(AtlasError, match=said):
        records.to_pairs(frame, Columns(conversation=column), "datasets.chats")


def test_where_takes_the_rows_with_those_values():
    frame = pl.DataFrame({"kind": ["a", "b", "c", "a"], "form": ["x", "x", "x", "y"], "n": [1, 2, 3, 4]})
    assert records.chosen_rows(frame, {"kind": ["a", "b"], "form": ["x"]}, "f")["n"].to_list() == [1, 2]
    assert records.chosen_rows(frame, {}, "f").equals(frame)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"kind": ["a", "z"]}, "column 'kind' never holds z; it holds a, b"),
        ({"colour": ["a"]}, "no column 'colour'"),
        ({"kind": ["b"], "form": ["y"]}, "no row has all"),
    ],
)
def test_where_that_fits_nothing_is_an_error(where, said):
    with pytest.raises(AtlasError, match=said):
        records.chosen_rows(pl.DataFrame({"kind": ["a", "b", "a"], "form": ["x", "x", "y"]}), where, "f")


def test_rows_are_dropped_with_the_count_of_each_reason():
    frame = pairs((" a ", " b\n"), ("", "b"), (None, "b"), ("a", "  "), ("a", None), ("a", "None"), ("x", "none"), ("a", "b"), ("a", "c"))
    kept, dropped = records.clean(frame, dataset(drop_responses=["NONE "]))
    assert kept.select("instruction", "response").rows() == [("a", "b"), ("a", "c")]
    assert dropped == {"empty instruction": 2, "empty response": 2, "unwanted response": 2, "repeated row": 1}


def test_nothing_is_unwanted_unless_the_study_says_so():
    kept, dropped = records.clean(pairs(("a", "none")), dataset())
    assert len(kept) == 1
    assert dropped["unwanted response"] == 0


def test_a_smaller_sample_is_part_of_a_larger_one_and_starts_it():
    frame = numbered(100)
    small, large = (records.sample(frame, rows, seed=3, allow_fewer=False, where="x") for rows in (10, 60))
    assert small.equals(large[:10])
    assert large["instruction"].n_unique() == 60


def test_a_sample_depends_on_the_seed_alone():
    frame = numbered(100)
    first, again, other = (records.sample(frame, 20, seed, False, "x")["instruction"].to_list() for seed in (0, 0, 1))
    assert first == again != other
    assert first != frame["instruction"].to_list()[:20]


def test_too_few_rows_are_an_error_with_both_numbers_and_two_remedies():
    with pytest.raises(
        AtlasError, match=r"datasets\.x: 6 rows are asked for, 5 are left after cleaning; lower `rows` .* `allow_fewer: true`"
    ):
        records.sample(numbered(5), 6, 0, allow_fewer=False, where="datasets.x")


def test_allow_fewer_takes_all_there_are():
    found = records.sample(numbered(5), 6, 0, allow_fewer=True, where="datasets.x")
    assert sorted(found["instruction"]) == sorted(numbered(5)["instruction"])


# ---------------------------------------------------------------- benchmark items


def test_items_keep_their_fields_and_gain_instruction_and_answer():
    frame = pl.DataFrame({"question": [" 1 + 1? "], "solution": ["two: #### 2\n"], "level": [3]})
    items = benchmark_items(frame, benchmark(columns={"instruction": "question", "response": "solution"}), "benchmarks.x")
    assert items == [{"question": " 1 + 1? ", "solution": "two: #### 2\n", "level": 3, "instruction": "1 + 1?", "answer": "two: #### 2"}]


CHOICES = {
    "list column, index": ({"options": [["x", "y"], ["z", "w"]], "label": [1, 0]}, "options"),
    "list column, letters": ({"options": [["x", "y"], ["z", "w"]], "label": ["B", "a"]}, "options"),
    "list column, index as text": ({"options": [["x", "y"], ["z", "w"]], "label": ["1", "0"]}, "options"),
    "one column per option": ({"first": ["x", "z"], "second": ["y", "w"], "label": [1, 0]}, ["first", "second"]),
    "true and false": ({"options": [["x", "y"], ["z", "w"]], "label": [True, False]}, "options"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_and_label_are_made_from_the_sources_columns(case):
    columns, choices = CHOICES[case]
    frame = pl.DataFrame({"instruction": ["p", "q"], **columns})
    items = benchmark_items(frame, benchmark(columns={"choices": choices}), "benchmarks.x")
    found = [(item["instruction"], item["choices"], item["label"], item["answer"]) for item in items]
    assert found == [("p", ["x", "y"], 1, "y"), ("q", ["z", "w"], 0, "z")]


@pytest.mark.parametrize("label", ["C", "-1", "2", "yes", None], ids=str)
def test_a_label_that_is_none_of_the_choices_is_an_error_with_the_item(label):
    frame = pl.DataFrame({"instruction": ["p", "q"], "options": [["x", "y"], ["z", "w"]], "label": ["A", label]})
    with pytest.raises(AtlasError, match=rf"benchmarks\.x: item 1 has 2 choices and the label {label!r}"):
        benchmark_items(frame, benchmark(columns={"choices": "options"}), "benchmarks.x")


@pytest.mark.parametrize("options", [["xy"], [{"text": ["x", "y"], "label": ["A", "B"]}]], ids=["text", "struct"])
def test_choices_that_are_no_list_are_an_error_and_not_letters_or_keys(options):
    frame = pl.DataFrame({"instruction": ["p"], "options": options, "label": [1]})
    with pytest.raises(AtlasError, match=r"benchmarks\.x: column 'options' holds .*, not lists"):
        benchmark_items(frame, benchmark(columns={"choices": "options"}), "benchmarks.x")


def test_missing_choice_columns_are_an_error_that_lists_the_columns():
    frame = pl.DataFrame({"instruction": ["p"], "first": ["x"], "label": [0]})
    with pytest.raises(AtlasError, match=r"benchmarks\.x: no column 'second'; the columns are instruction, first, label"):
        benchmark_items(frame, benchmark(columns={"choices": ["first", "second"]}), "benchmarks.x")


@pytest.mark.parametrize("absent", ["instruction", "response"])
def test_an_item_without_question_or_answer_is_an_error(absent):
    frame = pairs(("p", "x"), ("q", "y")).with_columns(pl.when(pl.int_range(2) == 1).then(None).otherwise(absent).alias(absent))
    with pytest.raises(AtlasError, match=r"benchmarks\.x: 1 items lack instruction or answer, the first is item 1"):
        benchmark_items(frame, benchmark(), "benchmarks.x")


def test_items_are_a_seeded_sample_in_the_order_of_the_source():
    def instructions(seed, items):
        return [int(item["instruction"].split()[1]) for item in benchmark_items(numbered(50), benchmark(items=items, seed=seed), "x")]

    assert instructions(0, None) == list(range(50))
    assert instructions(0, 10) == sorted(instructions(0, 10)) == instructions(0, 10)
    assert len(set(instructions(0, 10))) == 10
    assert instructions(0, 10) != instructions(1, 10)


def test_more_items_than_there_are_is_an_error():
    with pytest.raises(AtlasError, match=r"benchmarks\.x: 6 items are asked for, the source has 5; lower `items`"):
        benchmark_items(numbered(5), benchmark(items=6), "benchmarks.x")


# ---------------------------------------------------------------- overlap


def test_overlap_is_found_regardless_of_case_and_white_space():
    training = {"a/1": ["  What is\n2 + 2? ", "x", "X"], "b/1": ["y"]}
    found = records.overlap(training, {"quiz": ["what IS 2 +\t2?", "z", "Z "]})
    columns = ("dataset", "benchmark", "train_items", "benchmark_items", "shared")
    assert found.select(columns).rows() == [("a/1", "quiz", 2, 2, 1), ("b/1", "quiz", 1, 2, 0)]
    assert found["examples"].to_list() == [[records.item_hash("what is 2 + 2?")], []]


@pytest.fixture
def overlapping(tmp_path):
    """Command-line words for one training set that shares one of two items with a benchmark."""
    train, items = tmp_path / "data/sums/2/train.parquet", tmp_path / "benchmarks/quiz/test.jsonl"
    for path in (train, items):
        path.parent.mkdir(parents=True)
    pairs(("What is 2 + 2?", "4"), ("What is 1 + 1?", "2")).write_parquet(train)
    items.write_text('{"instruction": "what is  2 + 2?", "answer": "4"}\n{"instruction": "What is 3 + 3?", "answer": "6"}\n')
    return ["--training", str(train), "--benchmarks", str(items), "--output", str(tmp_path / "tables/overlap.parquet")]


def check(words):
    check_overlap.main(check_overlap.parser().parse_args(words))


def test_overlap_is_an_error_with_the_pair_and_leaves_no_table(overlapping, tmp_path):
    with pytest.raises(AtlasError) as caught:
        check([*overlapping, "--policy", "error"])
    assert "sums/2 x quiz: 1 of 2 items" in str(caught.value)
    assert "`on_overlap: report`" in str(caught.value)
    assert not (tmp_path / "tables/overlap.parquet").exists()


def test_overlap_is_listed_where_the_study_allows_it(overlapping, tmp_path, caplog):
    check([*overlapping, "--policy", "report"])
    assert pl.read_parquet(tmp_path / "tables/overlap.parquet")["shared"].to_list() == [1]
    record = json.loads((tmp_path / "tables/overlap.json").read_text())
    assert (record["pairs"], record["pairs_with_overlap"], sorted(record["inputs"])) == (1, 1, ["benchmarks/quiz", "sums/2"])
    assert "sums/2 x quiz: 1 of 2 items" in caplog.text


def test_disjoint_sets_pass_the_strict_check(overlapping, tmp_path):
    (tmp_path / "benchmarks/quiz/test.jsonl").write_text('{"instruction": "What is 3 + 3?", "answer": "6"}\n')
    check(overlapping)
    assert pl.read_parquet(tmp_path / "tables/overlap.parquet")["shared"].to_list() == [0]


# ---------------------------------------------------------------- the jobs


def test_a_file_becomes_a_sample_with_its_provenance(tmp_path, run_script):
    source, rows = tmp_path / "rows.jsonl", [{"q": f"q{i % 7}", "a": "None" if i == 3 else f"a{i % 7}"} for i in range(9)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = dataset(columns={"instruction": "q", "response": "a"}, drop_responses=["none"]).model_dump_json(exclude_defaults=True)
    raw, sample = tmp_path / "toy/source.parquet", tmp_path / "toy/4/train.parquet"
    run_script(fetch_dataset, name="toy", entry=entry, path=source, output=raw)
    run_script(prepare_dataset, name="toy", rows=4, entry=entry, input=raw, output=sample)
    assert pl.read_parquet(raw).shape == (9, 3)
    assert len(pl.read_parquet(sample)) == 4
    manifest = json.loads((sample.parent / "manifest.json").read_text())
    assert manifest["dropped"] == {"empty instruction": 0, "empty response": 0, "unwanted response": 1, "repeated row": 2}
    assert (manifest["rows"], manifest["rows_available"], manifest["sources"]) == (4, 6, {"unknown": 4})
    assert manifest["sha256"] == sha256(sample)
    assert manifest["inputs"]["toy"]["sha256"] == sha256(raw)
    assert json.loads((raw.parent / "manifest.json").read_text())["inputs"]["source"]["sha256"] == sha256(source)


def test_a_merged_set_is_its_members_in_order(tmp_path):
    paths = [tmp_path / name / "2/train.parquet" for name in ("red", "blue")]
    for path in paths:
        path.parent.mkdir(parents=True)
        pairs(*((f"{path.parent.parent.name} {i}", "x") for i in range(2)), source=path.parent.parent.name).write_parquet(path)
    output = tmp_path / "both/2/train.parquet"
    words = ["--name", "both", "--rows", "2", "--inputs", *map(str, paths), "--output", str(output)]
    merge_datasets.main(merge_datasets.parser().parse_args(words))
    assert pl.read_parquet(output)["instruction"].to_list() == ["red 0", "red 1", "blue 0", "blue 1"]
    manifest = json.loads((output.parent / "manifest.json").read_text())
    assert manifest["sources"] == {"blue": 2, "red": 2}
    assert manifest["settings"]["members"] == ["red", "blue"]


def test_benchmark_items_are_written_as_json_lines(tmp_path, run_script):
    (tmp_path / "items.jsonl").write_text(LINES, encoding="utf-8")
    output = tmp_path / "quiz/test.jsonl"
    run_script(
        fetch_benchmark, name="quiz", entry=benchmark().model_dump_json(exclude_defaults=True), path=tmp_path / "items.jsonl", output=output
    )
    items = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n") if line]
    assert [(item["instruction"], item["answer"]) for item in items] == [(row["instruction"], row["response"]) for row in ROWS]
    assert json.loads((output.parent / "manifest.json").read_text())["rows"] == 2


# ---------------------------------------------------------------- procedural tasks

ANSWERABLE = [name for name in procedural.NAMES if name != procedural.PROSE]


def normal(items):
    return {" ".join(item["instruction"].lower().split()) for item in items}


@pytest.mark.parametrize("name", procedural.NAMES)
def test_items_of_a_task_are_distinct_and_complete(name):
    items = procedural.generate({name: 1}, 30, 0, "train")
    assert len(items) == len(normal(items)) == 30
    assert all(item["instruction"].strip() and item["response"].strip() and item["task"] == name for item in items)
    for item in items:
        assert item.get("choices", [item["response"]])[item.get("label", 0)] == item["response"]
        assert len(set(item.get("choices", []))) == len(item.get("choices", []))


@pytest.mark.parametrize("name", ANSWERABLE)
def test_training_and_benchmark_items_never_meet(name):
    train = set().union(*(normal(procedural.generate({name: 1}, 40, seed, "train")) for seed in range(4)))
    held_out = set().union(*(normal(procedural.generate({name: 1}, 20, seed, "benchmark")) for seed in range(4)))
    assert len(train) > 40
    assert len(held_out) > 20
    assert not train & held_out


def test_the_side_of_an_item_does_not_depend_on_case_and_white_space():
    texts = [f"Spell word{i} backward" for i in range(400)]
    assert all(procedural.side(text) == procedural.side(f"  {text.upper()}\n") for text in texts)
    shares = Counter(map(procedural.side, texts))
    assert 60 < shares["benchmark"] < 140


@pytest.mark.slow
def test_the_same_seed_gives_the_same_items_in_another_process():
    weights = dict.fromkeys(procedural.NAMES, 1)
    script = (
        f"import json; from sft_atlas import tasks; print(json.dumps([tasks.generate({weights}, 60, seed, 'train') for seed in (0, 1)]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow_scripts"), "PYTHONHASHSEED": "0"}
    started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    first, second = (json.loads(process.communicate()[0]) for process in started)
    assert first == second
    assert len(first[0]) == 60
    assert first[0] != first[1]


@pytest.mark.parametrize(("size", "weights"), [(40, (3, 1)), (53, (1, 1, 1, 0.01)), (7, (1, 1, 1, 1))])
def test_tasks_get_their_share_and_the_sizes_add_up(size, weights):
    names = ["chain_sum", "number_sorting", "spell_backward", "prose"][: len(weights)]
    counts = Counter(item["task"] for item in procedural.generate(dict(zip(names, weights, strict=True)), size, 0, "train"))
    assert sum(counts.values()) == size
    assert all(abs(counts[name] - size * weight / sum(weights)) <= 1 for name, weight in zip(names, weights, strict=True))


@pytest.mark.parametrize("wanted", ["train", "benchmark"])
def test_syllogisms_are_balanced(wanted):
    items = procedural.generate({"syllogism": 1}, 40, 0, wanted)
    assert Counter(item["response"] for item in items) == {"Yes": 20, "No": 20}


def test_too_few_items_are_an_error_with_both_numbers(monkeypatch):
    settings = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    monkeypatch.setitem(procedural.TASKS, "chain_sum", procedural.Task(settings, procedural.TASKS["chain_sum"].rewrite))
    with pytest.raises(AtlasError, match=r"tasks\.chain_sum: has \d+ distinct items for the train side, 400 are asked for; lower `size`"):
        procedural.generate({"chain_sum": 1}, 400, 0, "train")


def test_text_that_ends_is_an_error_too():
    with pytest.raises(AtlasError, match=r"tasks\.prose: has \d+ distinct items for the train side, 100000 are asked for"):
        procedural.generate({"prose": 1}, 100_000, 0, "train")


def test_an_unknown_task_is_an_error_that_lists_the_known_ones():
    with pytest.raises(AtlasError, match=r"there is no task 'chain_sun' \(known: chain_sum, "):
        procedural.generate({"chain_sum": 1, "chain_sun": 1}, 5, 0, "train")


def test_open_text_makes_no_benchmark():
    with pytest.raises(AtlasError, match=r"tasks\.prose: open text has no single right answer"):
        procedural.generate({"prose": 1}, 5, 0, "benchmark")
