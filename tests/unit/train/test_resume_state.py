"""The state folder of a run: what is resumed, what is removed, and trainer checkpoints on a node's own disk."""

import pytest

from helpers.damage import cut, empty, invert
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import resume_state


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.delenv(resume_state.SCRATCH, raising=False)
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def test_another_configuration_is_never_resumed(state):
    (state / "trainer/checkpoint-4").mkdir(parents=True)
    resume_state.open_state(state, {"settings": 1})
    assert not (state / "trainer").exists()
    (state / "trainer").mkdir()
    (state / ".epoch-1.77.part").mkdir()
    resume_state.open_state(state, {"settings": 1})
    assert (state / "trainer").exists()
    assert not list(state.glob(".epoch*"))  # what was being written when the job was killed
    resume_state.open_state(state, {"settings": 2})
    assert not (state / "trainer").exists()


def test_incomplete_checkpoints_are_removed_and_the_newest_complete_one_is_taken(tmp_path):
    for step, complete in ((4, True), (12, True), (8, True), (16, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / "complete").touch()
    assert [path.name for path in resume_state.complete_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    assert not (tmp_path / "checkpoint-16").exists()
    assert resume_state.complete_checkpoints(tmp_path / "absent") == []


def test_training_starts_from_the_beginning_where_a_kept_epoch_is_missing(tmp_path):
    folder = tmp_path / "trainer/checkpoint-4"
    folder.mkdir(parents=True)
    (folder / "complete").touch()
    settings = Hyperparameters(method="full", rows=8, epochs=4, learning_rate=1e-3, batch_size=4, save_epochs=[1, 4])
    assert resume_state.checkpoint_to_resume(tmp_path, settings, 8) is None
    (tmp_path / "epoch-1").mkdir()
    assert resume_state.checkpoint_to_resume(tmp_path, settings, 8) == folder


# ---------------------------------------------------------------- damage


def checkpoint(state, step, content=b"weights" * 2000):
    folder = state / f"trainer/checkpoint-{step}"
    (folder / "rank0").mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(content)
    (folder / "rank0/shard.distcp").write_bytes(content)
    resume_state.mark_complete(folder)
    return folder


def kept_epoch(state, epoch, content=b"weights" * 2000):
    folder = state / f"epoch-{epoch}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    resume_state.record_epoch(state, epoch, folder)
    return folder / "model.safetensors"


@pytest.mark.parametrize("file", ["optimizer.pt", "rank0/shard.distcp", "complete"])
@pytest.mark.parametrize("harm", [invert, cut, lambda path: path.unlink()])
def test_a_damaged_trainer_checkpoint_is_removed_and_the_one_before_it_resumed(state, caplog, file, harm):
    older, newer = checkpoint(state, 2), checkpoint(state, 4)
    resume_state.remove_damaged(state)
    assert older.exists() and newer.exists()
    harm(newer / file)
    resume_state.remove_damaged(state)
    assert resume_state.complete_checkpoints(state / "trainer") == [older] and not newer.exists()
    assert str(newer) in caplog.text
    harm(older / file)
    resume_state.remove_damaged(state)
    assert resume_state.complete_checkpoints(state / "trainer") == []


def test_a_state_of_an_older_version_has_no_hashes_and_is_resumed(state):
    folder = checkpoint(state, 2)
    (folder / "complete").write_bytes(b"")
    (state / "epoch-1").mkdir()
    (state / "epoch-1/model.safetensors").write_bytes(b"old")
    resume_state.remove_damaged(state)
    assert folder.exists() and (state / "epoch-1/model.safetensors").exists()


def test_training_goes_on_from_the_checkpoint_before_a_damaged_epoch(state):
    settings = Hyperparameters(method="full", rows=8, epochs=4, learning_rate=1e-3, batch_size=4, save_epochs=[2, 4])
    older, _ = checkpoint(state, 2), checkpoint(state, 4)
    invert(kept_epoch(state, 2))
    resume_state.remove_damaged(state)
    assert resume_state.checkpoint_to_resume(state, settings, 8) == older


@pytest.mark.parametrize("harm", [invert, cut, empty])
def test_a_damaged_epoch_is_not_published(state, tmp_path, harm):
    settings = Hyperparameters(method="full", rows=8, epochs=2, learning_rate=1e-3, batch_size=4, save_epochs=[1, 2])
    kept_epoch(state, 1)
    harm(kept_epoch(state, 2))
    with pytest.raises(AtlasError, match=r"epoch-2/model.safetensors is (damaged|empty): .* nothing is published: run again"):
        resume_state.publish_epochs(state, tmp_path / "output", settings)
    kept_epoch(state, 2)
    hashes = resume_state.publish_epochs(state, tmp_path / "output", settings)
    assert hashes["1"] == hashes["2"] and (tmp_path / "output/epoch-2/weights/model.safetensors").exists()


def test_a_damaged_record_of_the_state_starts_the_run_anew(state, caplog):
    resume_state.open_state(state, {"settings": 1})
    checkpoint(state, 2)
    cut(state / "identity.json")
    resume_state.open_state(state, {"settings": 1})
    assert not list(state.glob("trainer/*")) and "identity.json is cut short or damaged" in caplog.text


# ---------------------------------------------------------------- scratch


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A function that names the scratch folder of the site file; by default `disk` of the test's folder."""

    def name(folder=tmp_path / "disk"):
        monkeypatch.setenv(resume_state.SCRATCH, str(folder))

    return name


def test_without_scratch_the_checkpoints_stay_in_the_state_folder(state):
    resume_state.link_to_scratch(state, {"seed": 0})
    assert not (state / "trainer").exists()
    (state / "trainer").mkdir()
    resume_state.close_state(state)
    assert not (state / "trainer").exists()


def test_a_job_that_comes_back_to_its_node_finds_its_checkpoints(state, tmp_path, scratch):
    scratch()
    resume_state.open_state(state, {"seed": 0})
    (state / "trainer/checkpoint-1").mkdir()
    (state / "trainer/checkpoint-1/complete").touch()
    assert (state / "trainer").resolve().is_relative_to(tmp_path / "disk")
    resume_state.open_state(state, {"seed": 0})
    assert (state / "trainer/checkpoint-1").exists()
    resume_state.close_state(state)
    assert not list(state.iterdir()) and not list((tmp_path / "disk").rglob("checkpoint-1"))


def test_on_another_node_or_with_other_settings_training_starts_from_the_beginning(state, tmp_path, monkeypatch, scratch):
    monkeypatch.setenv("NODE", "n1")
    scratch(f"{tmp_path}/$NODE")
    resume_state.link_to_scratch(state, {"seed": 0})
    (state / "trainer/checkpoint-1").mkdir()
    monkeypatch.setenv("NODE", "n2")
    resume_state.link_to_scratch(state, {"seed": 0})
    assert not list((state / "trainer").iterdir())
    monkeypatch.setenv("NODE", "n1")
    resume_state.link_to_scratch(state, {"seed": 1})
    assert not list((state / "trainer").iterdir())
    resume_state.link_to_scratch(state, {"seed": 0})
    assert (state / "trainer/checkpoint-1").exists()
    monkeypatch.delenv(resume_state.SCRATCH)  # the site file no longer names scratch
    resume_state.link_to_scratch(state, {"seed": 0})
    assert not (state / "trainer").exists()


def test_checkpoints_of_an_earlier_attempt_in_the_shared_folder_are_resumed_there(state, scratch):
    (state / "trainer").mkdir()
    scratch()
    resume_state.link_to_scratch(state, {"seed": 0})
    assert not (state / "trainer").is_symlink()


def test_checkpoints_of_other_settings_on_scratch_are_not_resumed(state, monkeypatch, scratch):
    scratch()
    resume_state.open_state(state, {"seed": 0})
    assert (state / "trainer").is_symlink()
    monkeypatch.delenv(resume_state.SCRATCH)
    resume_state.open_state(state, {"seed": 1})
    assert not (state / "trainer").is_symlink() and read_json(state / "identity.json") == {"seed": 1}


@pytest.mark.parametrize("folder", ["$NOT_SET/x", "relative"])
def test_scratch_that_is_no_absolute_path_on_this_node_is_an_error(state, scratch, folder):
    scratch(folder)
    with pytest.raises(AtlasError, match="give an absolute path"):
        resume_state.link_to_scratch(state, {})
