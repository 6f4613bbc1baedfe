import json
import os
from pathlib import Path

import pytest

from sft_atlas.core import snakemake_records
from sft_atlas.core.errors import AtlasError

OLD, NEW = "results/s/runs/m/d/full", "results/s/runs/m/d/a"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished run with a consumer and a neighbour whose name starts alike."""
    monkeypatch.chdir(tmp_path)
    for name in ("full", "full-2"):
        run = tmp_path / f"results/s/runs/m/d/{name}"
        run.mkdir(parents=True)
        (run / "train.json").write_text(name)
        os.utime(run / "train.json", ns=(5, 5))
    records = {f"{run}/train.json": {"input": ["data.parquet"], "params": [f"'{run}'", "'{\"rate\": 1}'"]} for run in (OLD, f"{OLD}-2")}
    inputs = sorted(records)
    records["results/s/table"] = {"input": inputs, "input_checksums": dict.fromkeys(inputs, "sha256:1"), "params": []}
    snakemake_records.write(records)
    return records


def test_a_record_is_read_as_it_was_written_also_where_its_path_is_long(folder):
    long = "results/s/" + "ä" * 300
    snakemake_records.write({long: {"params": ["ü"]}})
    assert snakemake_records.read() == folder | {long: {"params": ["ü"]}}
    assert set(snakemake_records.read([OLD, "results/s/table"])) == {f"{OLD}/train.json", "results/s/table"}
    snakemake_records.delete([long])
    assert snakemake_records.read() == folder


def test_snakemake_reads_what_is_written(folder):
    from snakemake.persistence.file import FilePersistence

    assert FilePersistence(nolock=True)._read_record("results/s/table").input == folder["results/s/table"]["input"]


def test_a_moved_folder_takes_its_records_along_and_its_consumers_know(folder):
    snakemake_records.move({OLD: NEW})
    assert Path(f"{NEW}/train.json").read_text() == "full" and os.stat(f"{NEW}/train.json").st_mtime_ns == 5 and not os.path.exists(OLD)
    records = snakemake_records.read()
    assert set(records) == {f"{NEW}/train.json", f"{OLD}-2/train.json", "results/s/table"}
    assert records[f"{NEW}/train.json"] == {"input": ["data.parquet"], "params": [f"'{NEW}'", "'{\"rate\": 1}'"]}
    assert records[f"{OLD}-2/train.json"] == folder[f"{OLD}-2/train.json"]
    inputs = [f"{NEW}/train.json", f"{OLD}-2/train.json"]  # in the order in which Snakemake compares them
    assert records["results/s/table"] == {"input": inputs, "input_checksums": dict.fromkeys(inputs, "sha256:1"), "params": []}


def test_records_of_outputs_that_are_deleted_move_too(folder):
    os.remove(f"{OLD}/train.json")
    os.rmdir(OLD)
    snakemake_records.move({OLD: NEW})
    assert f"{NEW}/train.json" in snakemake_records.read()


def test_two_folders_change_places_by_way_of_a_third(folder):
    snakemake_records.move({OLD: "results/s/third"})
    snakemake_records.move({f"{OLD}-2": OLD})
    snakemake_records.move({"results/s/third": f"{OLD}-2"})
    assert Path(f"{OLD}/train.json").read_text() == "full-2"
    assert snakemake_records.read()[f"{OLD}/train.json"]["params"][0] == f"'{OLD}'"


def test_nothing_moves_where_a_new_path_is_taken(folder):
    with pytest.raises(AtlasError, match="which exists; delete or rename one of them"):
        snakemake_records.move({"results/s/runs/m": "results/s/other", OLD: f"{OLD}-2"})
    assert Path(f"{OLD}/train.json").read_text() == "full" and snakemake_records.read() == folder


def test_a_record_that_is_cut_off_is_left_out(folder):
    [file] = [path for output, path in snakemake_records._files(snakemake_records.FOLDER) if output == "results/s/table"]
    file.write_text(json.dumps(folder["results/s/table"])[:20])
    assert "results/s/table" not in snakemake_records.read()


def test_a_rewritten_file_can_keep_its_time(folder):
    with snakemake_records.keep_time(f"{OLD}/train.json"), open(f"{OLD}/train.json", "w") as file:
        file.write("rewritten")
    assert os.stat(f"{OLD}/train.json").st_mtime_ns == 5
