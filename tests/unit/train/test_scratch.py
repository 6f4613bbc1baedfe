"""Trainer states on a node's own disk: found again there, never mixed up, gone at the end."""

import json

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.train import resuming, scratch


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.delenv(scratch.VARIABLE, raising=False)
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def test_without_scratch_the_state_stays_where_it_is(state):
    scratch.attach(state, {"seed": 0})
    assert not (state / "trainer").exists()
    (state / "trainer").mkdir()
    scratch.detach(state)
    assert not (state / "trainer").exists()


def test_a_job_that_comes_back_to_its_node_finds_its_state(state, tmp_path, monkeypatch):
    monkeypatch.setenv(scratch.VARIABLE, str(tmp_path / "disk"))
    scratch.attach(state, {"seed": 0})
    (state / "trainer/checkpoint-1").mkdir()
    assert (state / "trainer").resolve().is_relative_to(tmp_path / "disk")
    scratch.attach(state, {"seed": 0})
    assert (state / "trainer/checkpoint-1").exists()
    scratch.detach(state)
    assert not (state / "trainer").is_symlink() and not list((tmp_path / "disk").rglob("checkpoint-1"))


def test_on_another_node_or_with_other_settings_training_starts_clean(state, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE", "n1")
    disk = f"{tmp_path}/$NODE"
    scratch.attach(state, {"seed": 0}, disk)
    (state / "trainer/checkpoint-1").mkdir()
    monkeypatch.setenv("NODE", "n2")
    scratch.attach(state, {"seed": 0}, disk)
    assert not list((state / "trainer").iterdir())
    monkeypatch.setenv("NODE", "n1")
    scratch.attach(state, {"seed": 1}, disk)
    assert not list((state / "trainer").iterdir())
    scratch.attach(state, {"seed": 0}, disk)
    assert (state / "trainer/checkpoint-1").exists()
    scratch.attach(state, {"seed": 0})  # the site file no longer names scratch
    assert not (state / "trainer").exists()


def test_a_state_begun_in_the_shared_folder_goes_on_there(state, tmp_path):
    (state / "trainer").mkdir()
    scratch.attach(state, {"seed": 0}, str(tmp_path / "disk"))
    assert not (state / "trainer").is_symlink()


def test_a_state_on_scratch_of_other_settings_is_not_resumed(state, tmp_path):
    resuming.open_state(state, {"seed": 0})
    scratch.attach(state, {"seed": 0}, str(tmp_path / "disk"))
    resuming.open_state(state, {"seed": 1})
    assert not (state / "trainer").is_symlink() and json.loads((state / "identity.json").read_text()) == {"seed": 1}


@pytest.mark.parametrize("folder", ["$NOT_SET/x", "relative"])
def test_scratch_that_means_nothing_on_this_node_is_an_error(state, folder):
    with pytest.raises(AtlasError, match="an absolute folder is needed"):
        scratch.attach(state, {}, folder)
