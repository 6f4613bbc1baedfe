"""`make demo`: one line per stage, the time left, errors in full, Snakemake's exit code, and what was found."""

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_events as plugin
from helpers.waiting import until
from sft_atlas.core.provenance import ROOT
from sft_atlas.report import run_study, show_findings

STATS = {
    "resolve_study": 1,
    "pretrain_demo_model": 2,
    "train_full": 4,
    "evaluate": 4,
    "plot": 2,
    "write_findings": 1,
    "all": 1,
    "total": 15,
}


def event(what, at, **fields):
    return {"event": what, "time": at, **fields}


def job_of(progress, number, rule, start, end):
    progress.see(event("job_info", start, jobid=number, rule_name=rule))
    if end:
        progress.see(event("job_finished", end, job_id=number))


@pytest.fixture
def progress():
    made = run_study.Progress()
    made.see(event("run_info", 100.0, stats=STATS))
    return made


def test_every_rule_is_counted_in_the_stage_of_its_room(progress):
    assert progress.stages() == {
        "Base models and data": (0, 2),
        "Training": (0, 4),
        "Scoring": (0, 4),
        "Tables": (0, 1),
        "Figures and findings": (0, 3),
    }
    assert progress.planned.total() == 14  # without the target `all` and the total
    job_of(progress, 1, "all", 100.0, 101.0)
    assert progress.done.total() == 0


def test_the_time_left_comes_from_measured_durations_and_the_demos_ratios(progress):
    assert progress.seconds_left(110.0) is None
    typical = run_study.DEMO_SECONDS
    long = 2 * typical["pretrain_demo_model"]  # a machine half as fast
    for number in (1, 2):  # side by side
        job_of(progress, number, "pretrain_demo_model", 100.0, 100.0 + long)
    others = 4 * typical["evaluate"] + 2 * typical["plot"] + 2 * run_study.OTHERWISE
    assert progress.seconds_left(100.0 + long) == pytest.approx(2 * (4 * typical["train"] + others) / 2)
    now = 100.0 + long + 1.0
    job_of(progress, 3, "train_full", now - 1.0, now)
    measured = 3 * 1.0  # the other trainings take what the first took
    pace = (2 * long + 1) / (2 * typical["pretrain_demo_model"] + typical["train"])
    assert progress.seconds_left(now) == pytest.approx((measured + pace * others) / ((2 * long + 1) / (now - 100)))


def test_without_the_demos_models_no_time_is_invented():
    progress = run_study.Progress()
    progress.see(event("run_info", 0.0, stats={"fetch_model": 1, "train_full": 2, "plot": 1, "total": 4}))
    job_of(progress, 1, "fetch_model", 0.0, 5.0)
    assert progress.seconds_left(5.0) is None and "time left: not known yet" in run_study.whole(progress, 5.0)
    job_of(progress, 2, "train_full", 5.0, 105.0)
    pace = 105 / (run_study.OTHERWISE + run_study.DEMO_SECONDS["train"])
    assert progress.seconds_left(105.0) == pytest.approx(
        100.0 + pace * run_study.DEMO_SECONDS["plot"]
    )  # of other models, but the same figures


def test_a_failed_job_is_shown_with_its_whole_log_and_path(progress, tmp_path):
    log = tmp_path / "train.log"
    log.write_text("first line\n" + "loss nan\n" * 100 + "error: the loss is not finite\n")
    progress.see(event("job_info", 101.0, jobid=7, rule_name="train_full"))
    error = event("job_error", 102.0, jobid=7, rule_name="train_full", log=[str(log)], output=["a/train.json"], shellcmd="")
    progress.see(error)
    text = run_study.explain(error)
    assert "FAILED: train_full" in text and text.count("loss nan") == 100 and f"Log: {log}" in text
    assert progress.failed == 1 and "1 failed" in run_study.whole(progress, 110.0)
    assert "ended before it opened its log" in run_study.explain(error | {"log": ["absent.log"]})


def test_durations_are_rounded_as_estimates():
    assert [run_study.duration(s) for s in (1, 43, 58, 185, 5400, 8000)] == ["5 s", "45 s", "1 min", "3 min", "1 h 30 min", "2 h 13 min"]


def test_the_plugin_passes_on_events_and_warnings_alone(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setenv(plugin.VARIABLE, str(writing))
    handler = plugin.LogHandler(None, None)

    def record(level, text, **fields):
        made = logging.LogRecord("snakemake", level, "", 0, text, None, None)
        vars(made).update(fields)
        handler.emit(made)

    record(logging.INFO, "x", event=LogEvent.JOB_INFO, jobid=3, rule_name="plot", shellcmd="secret")
    record(logging.INFO, "Building DAG of jobs...")
    record(logging.WARNING, "a warning of the study")
    os.close(writing)
    with os.fdopen(reading) as stream:
        first, second = map(json.loads, stream)
    assert first.pop("time") > 0 and first == {"event": "job_info", "jobid": 3, "rule_name": "plot", "log": None}
    assert second["event"] == "message" and second["text"] == "a warning of the study"
    record(logging.WARNING, "nobody reads this")  # and the run goes on


def test_the_end_shows_the_summary_and_where_to_look(tmp_path):
    (tmp_path / "findings.md").write_text("# Findings\n\n## In short\n\n- Most gains are up.\n\n## 1. Runs\n\nmore\n")
    assert show_findings.in_short(tmp_path) == ["What was found:", "- Most gains are up."]
    log = tmp_path / "logs/snakemake.log"
    text = "\n".join(run_study.ending(tmp_path, log))
    assert "Most gains" in text and "findings.md" in text and "figures/" in text and "atlas" not in text
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas/index.html").touch()
    assert str(tmp_path.resolve() / "atlas/index.html") in "\n".join(run_study.ending(tmp_path, log))


# ---------------------------------------------------------------- with Snakemake

SNAKEFILE = """
rule all:
    input: "results/few/a.txt"

rule plot:
    output: "results/few/a.txt"
    log: "results/few/logs/plot.log"
    shell: "{command}"
"""


def few(folder, command):
    """A folder in which the study `few` is one job."""
    (folder / "config").mkdir()
    (folder / "config/few.yaml").write_text("study: few\n")
    (folder / "Snakefile").write_text(SNAKEFILE.replace("{command}", command))
    words = [sys.executable, str(ROOT / "workflow_scripts/run.py"), "run_study", "few", "--cores", "1"]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def test_a_run_that_fails_keeps_the_exit_code_and_shows_the_log(tmp_path):
    process = few(tmp_path, "echo third-party noise >&2; echo error: no space > {log}; exit 3")
    text = process.communicate()[0]
    assert process.returncode == 1
    assert "error: no space" in text and "Log: results/few/logs/plot.log" in text and "Go on with: make demo STUDY=few" in text
    assert "third-party noise" not in text and "third-party noise" in (tmp_path / "results/few/logs/snakemake.log").read_text()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = few(tmp_path, "touch started; sleep 3600")
    until((tmp_path / "started").exists, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    text = process.communicate()[0]
    assert process.returncode == 130
    assert "Finished jobs are kept" in text and "Go on with: make demo STUDY=few" in text and "Traceback" not in text
