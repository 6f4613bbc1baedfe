"""Rows of a source: formats, columns, conversations and filters."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.data import prepare_dataset, records
from sft_atlas.study.schema import Columns, Dataset


def pairs(*rows, source=None):
    """A frame of instruction, response and source from (instruction, response) tuples."""
    schema = {"instruction": pl.String, "response": pl.String, "source": pl.String}
    return pl.DataFrame([(*row, source) for row in rows], schema=schema, orient="row")


def dataset(**settings):
    return Dataset(path="rows.jsonl", **settings)


def test_a_source_without_rows_is_an_error(tmp_path):
    pl.DataFrame(schema={"instruction": pl.String}).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(AtlasError, match=r"none\.parquet: no rows"):
        records.read_rows(dataset(), tmp_path / "none.parquet", "train")


def test_csv_of_the_hub_keeps_the_words_that_pandas_reads_as_missing(tmp_path, monkeypatch):
    """The datasets library reads a folder as it reads a repository."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/train.csv").write_text("instruction,response\nq1,None\nq2,NA\nq3,\n")
    source = Dataset(hub="a/b", revision="main").model_copy(update={"hub": str(tmp_path / "repo")})
    assert records.read_rows(source, None, "train")["response"].to_list() == ["None", "NA", None]


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


def chat(*turns, keys=("role", "content")):
    return [dict(zip(keys, turn, strict=True)) for turn in turns]


SHAREGPT = ("from", "value")
FIRST = [("system", "Be kind."), ("user", "Hi?"), ("assistant", "Hello."), ("user", "Bye?"), ("assistant", "Bye.")]


def test_bytes_that_are_no_text_are_an_error():
    frame = pl.DataFrame({"instruction": ["a"], "response": [b"\xff\xfe"]})
    with pytest.raises(AtlasError, match=r"datasets\.x: column 'response' holds Binary that is not text"):
        records.to_pairs(frame, Columns(), "datasets.x")


CHATS = {
    "texts": [["Hi?", "Hello.", "Bye?", "Bye."], ["Alone?"]],
    "roles": [chat(*FIRST), chat(("user", "Alone?"))],
    "human and gpt": [chat(("human", "Hi?"), ("GPT", "Hello.")), chat(("human", "Alone?"))],
    "from and value": [
        chat(("system", "Be kind."), ("human", "Hi?"), ("gpt", "Hello."), keys=SHAREGPT),
        chat(("human", "Alone?"), keys=SHAREGPT),
    ],
    "both spellings": [chat(("human", "Hi?"), ("gpt", "Hello."), keys=SHAREGPT), chat(("user", "Alone?"))],
    "reply first": [chat(("assistant", "Welcome!"), *FIRST), chat(("assistant", "Welcome!"), ("user", "Alone?"))],
    "parts": [
        chat(("user", [{"type": "text", "text": "H"}, {"type": "text", "text": "i?"}]), ("assistant", "Hello.")),
        chat(("user", "Alone?")),
    ],
    "a number late": [chat(("user", "Hi?"), ("assistant", "Hello."), ("user", 1.5)), chat(("user", "Alone?"))],
    "a null reply": [chat(*FIRST), chat(("user", "Alone?"), ("assistant", None))],
}


@pytest.mark.parametrize("kind", CHATS)
def test_a_conversation_gives_its_first_user_turn_and_the_reply_to_it(tmp_path, kind):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"chat": turns, "source": name}) + "\n" for turns, name in zip(CHATS[kind], "ab", strict=True)))
    source = dataset(columns={"conversation": "chat"})
    frame = records.to_pairs(records.read_rows(source, path, "train"), source.columns, "datasets.chats")
    assert frame.rows() == [("Hi?", "Hello.", "a"), ("Alone?", None, "b")]
    kept, dropped = prepare_dataset.clean(frame, dataset())
    assert kept.height == 1 and dropped["empty response"] == 1


def test_typed_conversations_and_their_numbers_are_read():
    chats = [chat(("user", [{"type": "text", "text": "Hi?"}]), ("assistant", [{"type": "text", "text": "Hello."}])), None, []]
    found = records.first_exchange(pl.DataFrame({"chat": chats}), "chat", "x")
    assert found.rows() == [("Hi?", "Hello."), (None, None), (None, None)]
    rows = pl.DataFrame({"chat": pl.Series([chat(("user", 3), ("assistant", 2.5))], dtype=pl.Object)})
    assert records.first_exchange(rows, "chat", "x").rows() == [("3", "2.5")]


LONG = [("assistant", "Welcome."), ("user", " Hi? "), ("assistant", "Hello."), ("user", "And?"), ("assistant", "Bye."), ("user", "Thanks.")]
SYSTEM = ("system", "Be brief.")


def test_all_turns_of_a_conversation_are_kept_up_to_its_last_reply(tmp_path):
    chats = {
        "whole": chat(*LONG),
        "with a system turn": chat(SYSTEM, *LONG[1:3]),
        "two user turns": chat(*LONG[1:3], *LONG[3:4], *LONG[5:], LONG[4]),
        "an empty reply": chat(LONG[1], ("assistant", "Hello."), LONG[3], ("assistant", "")),
        "no reply": chat(LONG[1]),
        "a late system turn": chat(*LONG[1:3], SYSTEM, *LONG[3:5]),
        "the same again": chat(*LONG),
    }
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"chat": turns, "source": name}) + "\n" for name, turns in chats.items()))
    source = dataset(columns={"conversation": "chat"}, turns="all")
    frame = records.to_pairs(records.read_rows(source, path, "train"), source.columns, "datasets.chats", source.turns)
    kept, dropped = prepare_dataset.clean(frame, source)
    assert kept["source"].to_list() == ["whole", "with a system turn"]
    assert dropped["turns without text or out of order"] == 4 and dropped["repeated row"] == 1
    roles = [[(turn["role"], turn["content"]) for turn in json.loads(text)] for text in kept["messages"]]
    assert roles[0] == [("user", "Hi?"), ("assistant", "Hello."), ("user", "And?"), ("assistant", "Bye.")]
    assert roles[1] == [SYSTEM, ("user", "Hi?"), ("assistant", "Hello.")]
    assert kept.select("instruction", "response").row(0) == ("Hi?", "Hello.")
    assert [turns for turns, _ in records.turns_by_speaker(kept)] == [["Hi?", "And?"], ["Hi?"]]
    assert [turns for turns, _ in records.turns_by_speaker(kept.drop("messages"))] == [["Hi?"], ["Hi?"]]
    first = records.to_pairs(records.read_rows(source, path, "train"), source.columns, "datasets.chats")
    assert "messages" not in first.columns


NO_CHATS = {
    "text": ("Hi?", r"row 2, column 'chat': \"Hi\?\" is not a list of turns"),
    "other keys": ([{"speaker": "human", "text": "Hi?"}], "row 2, column 'chat': the turn .* needs `role` and `content`, or `from` and"),
    "an image": (chat(("user", [{"type": "image_url", "image_url": "x"}])), "row 2, column 'chat': the content .*image_url.* is not text"),
    "roles": (
        chat(("bot", "Hi?"), ("user", "a"), ("tool", "b"), ("assistant", "c")),
        r"role 'bot' \(first in row 2\), 'tool' \(first in row 2\); rename",
    ),
}


@pytest.mark.parametrize("kind", NO_CHATS)
def test_an_invalid_conversation_is_an_error_that_names_its_row(kind):
    value, message = NO_CHATS[kind]
    frame = pl.DataFrame({"chat": pl.Series([CHATS["texts"][0], value, value], dtype=pl.Object)})
    with pytest.raises(AtlasError, match=f"datasets.chats: .*{message}"):
        records.to_pairs(frame, Columns(conversation="chat"), "datasets.chats")
    with pytest.raises(AtlasError, match="no column 'turns'; the columns are chat"):
        records.to_pairs(frame, Columns(conversation="turns"), "datasets.chats")


def test_a_value_that_is_no_text_is_an_error_with_its_row_in_the_file(tmp_path):
    rows = [{"kind": "a", "response": "x"}, {"kind": "b", "response": ["x"]}, {"kind": "a", "response": {"y": 1}}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": "q", **row}) + "\n" for row in [*rows, rows[0]]))

    def fetch(**entry):
        return records.to_pairs(records.read_rows(dataset(**entry), path, "train"), Columns(), "datasets.x")

    with pytest.raises(AtlasError, match=r"datasets\.x: row 2 has \[\"x\"\] in column 'response', not text"):
        fetch()
    with pytest.raises(AtlasError, match=r"row 3 has \{\"y\": 1\} in column 'response'"):
        fetch(split="train[2:]", filter={"kind": ["a"]})
    assert fetch(split="train[3:]", filter={"kind": ["a"]}).rows() == [("q", "x", None)]


def test_a_filter_takes_the_rows_with_those_values():
    frame = pl.DataFrame({"kind": ["a", "b", "c", "a"], "form": ["x", "x", "x", "y"], "n": [1, 2, 3, 4]})
    assert records.filter_rows(frame, {"kind": ["a", "b"], "form": ["x"]}, "f")["n"].to_list() == [1, 2]
    assert records.filter_rows(frame, {}, "f").equals(frame)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"kind": ["a", "z"]}, "column 'kind' never holds z; it holds a, b"),
        ({"colour": ["a"]}, "no column 'colour'"),
        ({"kind": ["b"], "form": ["y"]}, "no row has all"),
    ],
)
def test_a_filter_that_fits_nothing_is_an_error(where, said):
    with pytest.raises(AtlasError, match=said):
        records.filter_rows(pl.DataFrame({"kind": ["a", "b", "a"], "form": ["x", "x", "y"]}), where, "f")


def test_a_slice_of_a_local_file_is_taken_as_of_a_split():
    frame = pl.DataFrame({"x": range(10)})
    assert records.select_slice(frame, "train[2:5]", "f")["x"].to_list() == [2, 3, 4]
    assert len(records.select_slice(frame, "train[:3]", "f")) == 3 and len(records.select_slice(frame, "test", "f")) == 10
    with pytest.raises(AtlasError, match=r"split 'train\[2%\]' is not of the form"):
        records.select_slice(frame, "train[2%]", "f")
