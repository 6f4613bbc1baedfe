"""Local files of every format: the same rows from all, values as they stand there, and errors that name the row."""

import bz2
import gzip
import json

import polars as pl
import pyarrow
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.data import local_files
from sft_atlas.data.local_files import read_file
from sft_atlas.study.schema import BenchmarkColumns, Columns

ROWS = [{"instruction": 'Name a colour, "so".', "response": "red"}, {"instruction": "Name a\u2028n\u00fcmber.", "response": "7\nor 8"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = b'instruction,response\n"Name a colour, ""so"".",red\n"Name a\xe2\x80\xa8n\xc3\xbcmber.","7\nor 8"\n'
TEXT_FILES = {
    "rows.jsonl": LINES,
    "windows.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n") + b"\r\n",
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "ROWS.JSONL.GZ": gzip.compress(LINES),
    "rows.jsonl.zst": pyarrow.Codec("zstd").compress(LINES, asbytes=True),
    "rows.json.bz2": bz2.compress(json.dumps(ROWS).encode()),
    "rows.csv": CSV,
    "ROWS.CSV": b"\xef\xbb\xbf" + CSV.replace(b",red", b";red").replace(b"ion,res", b"ion;res").replace(b'","7', b'";"7'),
    "rows.tsv.gz": gzip.compress(CSV.replace(b",red", b"\tred").replace(b"ion,res", b"ion\tres").replace(b'","7', b'"\t"7')),
}


@pytest.mark.parametrize("name", TEXT_FILES)
def test_every_text_format_gives_the_same_rows(tmp_path, name):
    (tmp_path / name).write_bytes(TEXT_FILES[name])
    assert read_file(tmp_path / name).to_dicts() == ROWS


@pytest.mark.parametrize("write", ["write_parquet", "write_ipc", "write_ipc_stream"])
def test_parquet_and_both_forms_of_arrow_are_read(tmp_path, write):
    path = tmp_path / ("ROWS.PARQUET" if write == "write_parquet" else "rows.arrow")
    getattr(pl.DataFrame(ROWS), write)(path)
    assert read_file(path).to_dicts() == ROWS


def test_saved_datasets_are_read_by_split(tmp_path):
    from datasets import Dataset, DatasetDict

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1])).save_to_disk(tmp_path / "two")
    assert read_file(tmp_path / "one").to_dicts() == read_file(tmp_path / "two").to_dicts() == ROWS
    assert read_file(tmp_path / "two", split="test[:1]").to_dicts() == ROWS[:1]
    with pytest.raises(AtlasError, match=r"two: no split 'dev'; it has train, test"):
        read_file(tmp_path / "two", split="dev")
    with pytest.raises(AtlasError, match=r"a folder that `Dataset.save_to_disk` did not write; local data are JSON lines or"):
        read_file(tmp_path)


BROKEN = {
    "cut.jsonl": (LINES + b'{"instruction": "a', r"row 3 is not JSON: Unterminated string starting at \(column 17\)"),
    "two.jsonl": (b'{"a": 1} {"a": 2}\n', r"row 1 is not JSON: Extra data \(column 10\) \(local data are JSON lines"),
    "text.txt": (b"not JSON at all\n", "row 1 is not JSON: .*local data are JSON lines"),
    "list.jsonl": (LINES + b'["a"]\n', r"row 3 is not an object with the columns as keys, but \[\"a\"\]"),
    "nan.jsonl": (LINES + b'{"instruction": NaN}\n', "row 3 is not JSON: NaN"),
    "cut.json": (b'[{"a": "b"}, {"a": "c', r"row 2 is not JSON"),
    "several.json": (b'[{"a": "b"}]\n[{"a": "c"}]\n', r"row 2 is not JSON: Text after the end of the array"),
    "latin.jsonl": (
        LINES.decode().replace("\u2028", "").encode("latin1"),
        r"line 2 is not UTF-8 .* \(byte 0xfc\); .* iconv -f WINDOWS-1252",
    ),
    "latin.csv": (b"a,b\nx,\xe9\n", "line 2 is not UTF-8 .* iconv"),
    "wide.jsonl": (LINES.decode().encode("utf-16"), "line 1 is UTF-16; convert the file: iconv -f UTF-16 -t UTF-8 wide.jsonl"),
    "ragged.csv": (CSV + b"alone\n", r"row 3 has 1 fields, the header has 2 \(instruction, response\)"),
    "quote.csv": (CSV + b'"a,b\n', "row 3 is not CSV: unexpected end of data"),
    "twice.csv": (b"a,a\n1,2\n", "two columns have the same name"),
    "cut.jsonl.gz": (gzip.compress(LINES)[:30], "not readable as gzip: .* Is the file whole"),
    "text.parquet": (b"not Parquet", "not readable as Parquet: "),
    "text.arrow": (b"not Arrow", "not readable as Arrow: "),
    "book.xlsx": (b"PK\x03\x04\x14\x00", "a ZIP archive or an Excel file; local data are JSON lines"),
    "pointer.jsonl": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS.* run `git lfs pull`"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_that_names_it_and_the_row(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AtlasError, match=rf"/{name}: {message}") as caught:
        read_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error_that_says_where_paths_start(tmp_path):
    with pytest.raises(AtlasError, match=r"nowhere\.jsonl: there is no such file \(relative paths start at `data_root`"):
        read_file(tmp_path / "nowhere.jsonl")


@pytest.fixture
def read(tmp_path):
    """Write a text as JSON and read it."""

    def call(text, columns=None):
        (tmp_path / "rows.json").write_text(text, encoding="utf-8")
        return read_file(tmp_path / "rows.json", columns)

    return call


LITERALS = ["72", "12.5", "1.50", "1e3", "-0.10", "12345678901234567890123", "true", "null", '"x"']


@pytest.mark.parametrize("values", [LITERALS, LITERALS[:2], ["true", "1"]], ids=["all kinds", "numbers", "bool beside number"])
@pytest.mark.parametrize("array", [False, True], ids=["lines", "array"])
def test_values_are_as_the_file_has_them(read, values, array):
    rows = [f'{{"instruction": "q", "response": {value}, "n": 1.50}}' for value in values]
    frame = read("[" + ",".join(rows) + "]" if array else "\n".join(rows))
    assert frame["response"].to_list() == [None if value == "null" else value.strip('"') for value in values]
    assert frame["n"].to_list() == [1.5] * len(values)


def test_numeric_options_are_as_the_file_has_them(read):
    frame = read('{"k": "A", "o": [3, 0.50], "a": 3}\n{"k": "B", "o": [1, null], "a": 0.5}\n', BenchmarkColumns(choices="o", label="k"))
    assert frame["o"].to_list() == [["3", "0.50"], ["1", None]]
    assert read('{"a": 3, "b": 1}\n{"a": 0.5, "b": 2}\n', BenchmarkColumns(choices=["a", "b"]))["a"].to_list() == ["3", "0.5"]


def test_half_a_surrogate_pair_becomes_the_replacement_character_and_nul_stays(read):
    texts = [r"lone \ud83d end", r"low \ude00", r"pair \ud83d\ude00", r"both \ud83d\ud83d\ude00", r"backslash \\ud83d", r"nul \u0000"]
    expected = ["lone \ufffd end", "low \ufffd", "pair \U0001f600", "both \ufffd\U0001f600", r"backslash \ud83d", "nul \0"]
    for extra in ("", ', "n": 1.5'):  # text only, and with a number
        lines = [f'{{"instruction": "{text}", "response": "r"{extra}}}' for text in texts]
        assert read("\n".join(lines))["instruction"].to_list() == expected


def test_other_columns_may_hold_what_polars_cannot(read):
    frame = read('{"instruction": 1.0, "meta": {"a": 1}, "n": 1.5, "i": 0}\n{"instruction": "x", "meta": [2], "n": 1}\n')
    first, second = {"instruction": "1.0", "meta": '{"a": 1}', "n": 1.5, "i": 0}, {"instruction": "x", "meta": "[2]", "n": 1.0, "i": None}
    assert frame.to_dicts() == [first, second]


def test_a_column_that_changes_its_type_late_is_read(read):
    lines = [json.dumps({"instruction": i, "response": "x"}) for i in [*range(2000), "last"]]
    assert read("\n".join(lines))["instruction"].to_list()[-2:] == ["1999", "last"]


def test_rows_are_parsed_one_by_one_only_where_a_column_is_not_all_text(read, monkeypatch):
    monkeypatch.setattr(local_files, "_objects", lambda *_: pytest.fail("slow reader"))
    long = "long \u2028" * 200_000
    line = {"instruction": 'say "response": [1.5]', "response": long, "score": 1.5, "tags": ["a"], "n": None}
    assert read("\r\n".join([json.dumps(line)] * 2))["response"].to_list() == [long] * 2
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}], "score": 0.5}
    assert len(read(json.dumps(chat), Columns(conversation="messages"))) == 1
