"""The items of a benchmark: read whole, and sampled."""

import json

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.items import sample_items


def test_items_are_sampled_alike_and_checked(tmp_path):
    path = tmp_path / "b.jsonl"
    rows = [{"instruction": f"q\u2028{number}", "answer": str(number)} for number in range(50)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    items = sample_items("b", path, 20, 0)
    numbers = [item["item"] for item in items]
    assert numbers == sorted(set(numbers)) and len(numbers) == 20 and items == sample_items("b", path, 20, 0)
    assert all(item["answer"] == str(item["item"]) for item in items)
    assert numbers != [item["item"] for item in sample_items("b", path, 20, 1)]
    assert len(sample_items("b", path, 99, 0)) == 50
    path.write_text('{"instruction": "q", "answer": 3}\n')
    with pytest.raises(AtlasError, match="row 0 has no string 'answer'"):
        sample_items("b", path, 5, 0)
    path.write_text('{"instruction": "q", "answer": "3"}\n{"instruction":\n')
    with pytest.raises(AtlasError, match="row 1 is not JSON"):
        sample_items("b", path, 5, 0)
    with pytest.raises(AtlasError, match="does not exist"):
        sample_items("b", tmp_path / "c.jsonl", 5, 0)
