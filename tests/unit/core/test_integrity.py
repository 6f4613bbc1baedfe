"""Recorded hashes, which are compared once per file and machine, and files that are cut short."""

import os

import pytest
import torch
from safetensors.torch import save_file

from helpers.damage import cut, empty, invert
from sft_atlas.core import integrity
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, sha256, write_json


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A safetensors file whose hash is remembered in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(integrity, "REMEMBERED_BYTES", 0)
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file({"x": torch.arange(4000.0)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_file_is_hashed_once_and_again_when_it_changed_moved_or_was_copied(weights, monkeypatch):
    hashed = []
    monkeypatch.setattr(integrity, "sha256", lambda path: hashed.append(path) or sha256(path))
    right = integrity.file_hash(weights)
    assert integrity.file_hash(weights) == right == sha256(weights) and len(hashed) == 1
    moved = weights.rename(weights.with_name("moved.safetensors"))
    integrity.file_hash(moved)
    invert(moved)  # the time stamp stays, as does the size
    assert integrity.file_hash(moved) == sha256(moved) != right
    moved.unlink()
    save_file({"x": torch.arange(4000.0)}, moved)  # perhaps with the same inode
    assert integrity.file_hash(moved) == right
    assert [path.name for path in weights.parent.iterdir()] == ["moved.safetensors"]  # nothing is written beside weights


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"state": 1'])
def test_a_damaged_memory_is_no_memory(weights, content):
    right = integrity.file_hash(weights)
    (entry,) = integrity.HASHES.iterdir()
    entry.write_text(content)
    assert integrity.file_hash(weights) == right


def test_hashes_need_no_place_to_be_remembered(weights):
    integrity.HASHES.parent.parent.mkdir()
    integrity.HASHES.parent.write_text("a file where the folder should be")
    assert integrity.file_hash(weights) == sha256(weights)


@pytest.mark.parametrize(
    ("harm", "said"), [(invert, "is damaged: its"), (cut, "is damaged"), (empty, "is empty"), (os.unlink, "is missing")]
)
def test_damage_names_the_file_and_both_hashes(weights, harm, said):
    recorded = {weights.name: sha256(weights)}
    assert integrity.damage(weights.parent, recorded) is None
    harm(weights)
    problem = integrity.damage(weights.parent, recorded)
    assert f"{weights} {said}" in problem
    assert harm is os.unlink or (recorded[weights.name] in problem and sha256(weights) in problem)


@pytest.mark.parametrize("harm", [cut, empty])
def test_cut_weights_are_found_without_a_hash(weights, harm):
    integrity.require_whole_weights(weights.parent, "make it again")
    harm(weights)
    with pytest.raises(AtlasError, match=r"model.safetensors is .*(cut short|empty).*; make it again"):
        integrity.require_whole_weights(weights.parent, "make it again")


@pytest.mark.parametrize(("harm", "said"), [(cut, "(is cut short or damaged|cannot be read)"), (empty, "is empty"), (invert, "")])
def test_cut_records_and_tables_are_errors_with_a_remedy(tmp_path, harm, said):
    import polars as pl

    write_json(tmp_path / "train.json", {"settings": {"epochs": 3}})
    pl.DataFrame({"x": range(1000)}).write_parquet(tmp_path / "train.parquet")
    for read, name in ((read_json, "train.json"), (read_table, "train.parquet")):
        read(tmp_path / name)
        harm(tmp_path / name)
        with pytest.raises(AtlasError, match=rf"{name} {said}.*; delete it and run again"):
            read(tmp_path / name)
