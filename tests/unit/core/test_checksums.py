"""Every change of a Parquet or JSON file of the results is found, and other readers take no notice of the checksum."""

import json

import polars as pl
import pyarrow.parquet as pq
import pytest

from sft_atlas.core import checksums
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_json, write_table

FRAME = pl.DataFrame({"model": ["ant", "bee"], "score": [0.25, None], "rows": [1, 2]})


@pytest.mark.parametrize("name", ["table.parquet", "record.json"])
def test_every_flipped_bit_and_every_cut_is_an_error_with_a_remedy(tmp_path, name):
    path, read = tmp_path / name, read_table if name.endswith("parquet") else read_json
    write_table(path, FRAME) if read is read_table else write_json(path, {"a": 1, "b": {"c": "é"}})
    content = path.read_bytes()
    assert read(path) is not None
    changes = [content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :] for i in range(len(content))]
    changes += [content[:i] for i in range(0, len(content), 7)] + [content + b"x"]
    for changed in changes:
        path.write_bytes(changed)
        try:
            value = read(path)
        except AtlasError as error:
            assert str(path) in str(error) and "delete it and run again" in str(error)
        else:  # the name or the place of the checksum itself, or white space after the end
            assert read is read_json and {key: value[key] for key in ("a", "b")} == {"a": 1, "b": {"c": "é"}}


def test_tables_stay_ordinary_parquet(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, FRAME)
    assert pl.read_parquet(path).equals(FRAME) and pl.scan_parquet(path).filter(pl.col("rows") == 2).collect().equals(FRAME[1:])
    assert pq.read_table(path).to_pylist() == FRAME.to_dicts()
    assert read_table(path, columns=["rows"], n_rows=1).to_dicts() == [{"rows": 1}]


def test_files_without_a_checksum_are_read(tmp_path):
    FRAME.write_parquet(tmp_path / "old.parquet")
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert read_table(tmp_path / "old.parquet").equals(FRAME) and read_json(tmp_path / "old.json") == {"a": 1}
    write_json(tmp_path / "list.json", [1, 2])
    assert json.loads((tmp_path / "list.json").read_text()) == [1, 2] == read_json(tmp_path / "list.json")
    write_json(tmp_path / "empty.json", {})
    assert read_json(tmp_path / "empty.json") == {}


def test_a_checksum_that_was_removed_from_a_table_is_missed(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, FRAME)
    content = path.read_bytes()
    start = content.index(checksums.MARK)
    path.write_bytes(content[:start] + content[start + 40 :])
    with pytest.raises(AtlasError, match="its checksum is not that of its content"):
        read_table(path)
