"""Watching a run: what is said about it comes from Snakemake's events, the jobs' logs, trainer states and histories."""

import json
import os
import time
from pathlib import Path

import polars as pl
import psutil
import pytest

from helpers.recording import HOSTILE, LORA, RED, Recording
from sft_atlas.core import job
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_table
from sft_atlas.core.provenance import ROOT
from sft_atlas.plan import progress, watch
from sft_atlas.study.paths import Paths


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    made = Recording(tmp_path / "results/small")
    yield made
    made.close()


def states(recording):
    return [entry.state for entry in progress.read(recording.root).jobs]


def test_jobs_are_done_running_queued_failed_or_waiting(recording):
    assert states(recording) == ["done", *["waiting"] * 9]
    recording.start(1, log="")
    recording.finish(1)
    recording.start(2, log="running\n")
    recording.start(3)  # submitted: on a cluster it may be in the queue for days
    recording.start(5, log=HOSTILE)
    recording.fail(5)
    assert states(recording) == ["done", "done", "running", "queued", "waiting", "failed", *["waiting"] * 4]
    recording.start(5, log="once more\n")  # Snakemake tries again
    assert states(recording)[5] == "running"


def test_of_a_failed_group_only_what_failed_is_called_failed(recording):
    recording.start(2, log="x INFO done in 3.0 s wall, {}\n")
    recording.start(3, log="x ERROR error: out of memory\n")
    recording.start(6)
    for number in (2, 3, 6):
        recording.fail(number, indent=True)
    assert [states(recording)[number] for number in (2, 3, 6)] == ["waiting", "failed", "waiting"]


def test_a_log_of_an_earlier_run_does_not_make_a_job_run(recording):
    path = recording.path(2)
    path.parent.mkdir(parents=True)
    path.write_text("done in 3.0 s wall")
    os.utime(path, (1e9, 1e9))
    recording.start(2)
    assert states(recording)[2] == "queued"


def test_every_job_counts_in_one_block(recording):
    run = progress.read(recording.root)
    assert {name: count.total() for name, count in run.counts.items()} == {
        "data": 1, "base models": 1, "single": 4, "merged": 1, "other jobs on models": 1, "tables, figures and pages": 2,
    }  # fmt: skip
    assert run.total.total() == len(run.jobs) == 10


def test_hours_left_fall_as_jobs_finish_and_come_from_the_plan(recording):
    def hours():
        look = watch.Look.now(recording.root, ROOT / "config/devices.yaml")
        return look.forecast.hours([one for one in look.forecast.jobs if one.left])[1], look.forecast.time_left()[1]

    before = hours()
    for number in (2, 3):
        recording.start(number, log="")
        recording.finish(number)
    after = hours()
    assert 0 < after[0] < before[0] and 0 < after[1] <= before[1]


def test_a_run_ends_well_with_errors_or_without_a_word(recording):
    assert progress.read(recording.root).status == "running"
    recording.start(2, log="x")
    path = progress.events_file(recording.root)
    whole = path.read_text()
    for field, value in (("pid", 2**22 + 1), ("process_began", psutil.Process().create_time() - 50)):
        first, *rest = whole.splitlines(keepends=True)
        path.write_text(json.dumps(json.loads(first) | {field: value}) + "\n" + "".join(rest))
        run = progress.read(recording.root)
        assert run.status == "killed" and run.jobs[2].state == "waiting"  # nothing runs any more
        assert "Start Snakemake again" in watch.Look.now(recording.root, ROOT / "config/devices.yaml").status
    path.write_text(json.dumps(json.loads(first) | {"pid": 2**22 + 1, "host": "login-2"}) + "\n")
    assert progress.read(recording.root).status == "running"  # on another machine: who knows
    for success, status in ((True, "done"), (False, "failed")):
        path.write_text(whole + json.dumps({"event": "end", "time": 1.0, "success": success}) + "\n")
        assert progress.read(recording.root).status == status


def test_a_line_that_is_being_written_is_left_for_later(recording):
    recording.start(2, log="x")
    with progress.events_file(recording.root).open("a") as handle:
        handle.write('{"event": "job_fin')
    assert states(recording)[2] == "running"


def test_last_losses_are_the_newest_on_disk(recording):
    paths, keys = Paths(recording.root), dict(zip(("model", "dataset", "recipe"), RED.split("/"), strict=True))
    recording.start(2, log=f"x INFO {RED}: step 10/40, loss 2.500\nx INFO {RED}: step 20/40, loss 2.250\n")
    loss = progress.Loss(RED, "running", 20, 40, 2.25)
    assert progress.read(recording.root).losses() == [loss]
    state = Path(paths.fill(paths.state, **keys), "trainer/checkpoint-30/trainer_state.json")
    state.parent.mkdir(parents=True)
    log = [{"step": 29, "loss": 2.1}, {"step": 30, "loss": 2.0}, {"step": 30, "eval_loss": 2.2}]
    state.write_text(json.dumps({"global_step": 30, "max_steps": 40, "log_history": log}))
    assert progress.read(recording.root).losses() == [progress.Loss(RED, "running", 30, 40, 2.0, 2.2)]
    state.write_text('{"global_step"')  # being written: the one before, or the log
    assert progress.read(recording.root).losses() == [loss]
    write_table(
        Path(paths.fill(paths.history, **keys)),
        pl.DataFrame({"step": [39, 40], "loss": [1.6, 1.5], "validation_loss": [None, 1.75]}),
    )
    recording.finish(2)
    assert progress.read(recording.root).losses() == [progress.Loss(RED, "done", 40, 40, 1.5, 1.75)]
    assert state.parent.exists()  # looking removes nothing


def test_the_page_and_the_terminal_show_failures_as_text(recording):
    recording.start(5, log=f"first\n{HOSTILE}\n\n")
    recording.fail(5)
    recording.start(3)
    recording.fail(3)
    look = watch.Look.now(recording.root, ROOT / "config/devices.yaml")
    text, page = "\n".join(watch.lines(look)), watch.page(look, 15)
    assert "\x1b" not in text + page and "loss is nan" in text and "(the job ended before it wrote its log)" in text
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page and page.count("<script>") == 1
    assert f"{recording.root}/logs/train/{LORA}.log" in page and 'data-seconds="15"' in page


def test_a_page_of_a_run_that_has_ended_stays_as_it_is(recording):
    recording.handler.end(time.time(), success=True)
    page = watch.page(watch.Look.now(recording.root, ROOT / "config/devices.yaml"), 15)
    assert "<script" not in page and "not written again" in page


def test_the_command_watches_until_the_end(recording, monkeypatch, capsys):
    args = job.parser(watch).parse_args([str(recording.root), "--every", "1"])
    monkeypatch.setattr(watch, "print_to_terminal", print)

    def sleep(seconds):
        assert seconds >= 1
        recording.start(2, log="x")
        recording.fail(2)
        recording.handler.end(time.time(), success=False)

    monkeypatch.setattr(watch.time, "sleep", sleep)
    watch.main(args)
    shown = capsys.readouterr().out
    assert shown.count("small: running") == 1 and shown.count("small: ended with errors") == 1
    assert "ended with errors" in (recording.root / "watch.html").read_text().lower()


def test_without_a_run_there_is_nothing_to_watch(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(AtlasError, match="no run of this study has begun here"):
        progress.read(tmp_path)
    path = progress.events_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    with pytest.raises(AtlasError, match="is damaged"):
        progress.read(tmp_path)


def test_a_disk_that_cannot_be_written_ends_the_record_and_not_the_run(recording):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

    recording.handler.stream.close()
    recording.handler.stream = Full()
    recording.finish(2)
    assert recording.handler.stream is None
    recording.handler.end(1.0, success=True)
