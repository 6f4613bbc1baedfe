"""The door of all jobs: log, terminal, exit codes, network, and what a wrong call says."""

import os
import subprocess
import sys

import pytest

from helpers.processes import python
from helpers.waiting import HANG
from sft_atlas.core.job import modules


def run(scripts, *words, env=(), **options):
    return python(scripts / "run.py", *words, env={"SFT_ATLAS_WARM": "0", **dict(env)}, **options)


def test_a_job_writes_everything_to_its_log_and_shows_warnings_alone(scripts, tmp_path):
    log = tmp_path / "logs/work.log"
    ended = run(scripts, "train", "ok", "--log", log)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "look here\n")
    text = log.read_text()
    for part in (
        f"INFO run.py train ok --log {log}",
        "a library prints",
        "a child prints",
        "a library warns",
        "INFO step 1",
        "WARNING look here",
    ):
        assert part in text
    assert "INFO offline: 1" in text
    assert "peak_memory_mib" in text.splitlines()[-1]


def test_what_a_person_asked_for_is_shown_although_there_is_a_log(scripts, tmp_path):
    assert run(scripts, "train", "answer", "--log", tmp_path / "work.log").stdout == "the answer\n"


def test_only_jobs_that_say_so_may_use_the_network(scripts, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    for rule, expected in (("fetch", "None"), ("train", "1")):
        log = tmp_path / f"{rule}.log"
        call = [sys.executable, scripts / "run.py", rule, "ok", "--log", log]
        subprocess.run(call, env=environment, check=True, capture_output=True, timeout=HANG)
        assert f"INFO offline: {expected}\n" in log.read_text()


def test_a_mistake_of_the_user_is_a_message_without_traceback(scripts, tmp_path):
    log = tmp_path / "work.log"
    ended = run(scripts, "train", "mistake", "--log", log)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: rows: must be at most 2; lower `rows`\n"
    assert "ERROR error: rows: must be at most 2; lower `rows`" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_ctrl_c_leaves_no_traceback(scripts, tmp_path):
    log = tmp_path / "work.log"
    ended = run(scripts, "train", "interrupt", "--log", log)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n") and "Traceback" not in log.read_text()


@pytest.mark.parametrize("log", ["work.log", "/dev/full"])
def test_a_full_disk_is_a_message_without_traceback(scripts, tmp_path, log):
    ended = run(scripts, "train", "full", "--log", tmp_path / log)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("error: the file system /") and " free of " in ended.stderr
    assert "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_an_unexpected_error_has_its_traceback_in_the_log(scripts, tmp_path):
    log = tmp_path / "work.log"
    ended = run(scripts, "train", "bug", "--log", log)
    assert ended.returncode == 1
    for text in (ended.stderr, log.read_text()):
        assert "Traceback" in text
        assert 'in main\n    {}["missing"]' in text
        assert "KeyError: 'missing'" in text


def test_a_second_try_is_added_to_the_log(scripts, tmp_path):
    log = tmp_path / "work.log"
    for how in ("mistake", "ok"):
        run(scripts, "train", how, "--log", log)
    assert log.read_text().index("lower `rows`") < log.read_text().index("look here")


def test_a_job_works_without_a_log(scripts):
    ended = run(scripts, "train", "ok")
    assert ended.returncode == 0
    assert sorted(ended.stdout.splitlines()) == ["a child prints", "a library prints"]
    assert ended.stderr == "look here\n"


def test_under_slurm_the_allocation_is_noted_until_the_job_succeeds(scripts, tmp_path):
    log = tmp_path / "work.log"
    for number, how in (("7", "mistake"), ("8", "bug")):
        run(scripts, "train", how, "--log", log, env={"SLURM_JOB_ID": number})
    assert (tmp_path / "work.log.slurm").read_text().split() == ["7", "8"]
    run(scripts, "train", "ok", "--log", log, env={"SLURM_JOB_ID": "9"})
    assert not (tmp_path / "work.log.slurm").exists()
    assert log.read_text().count("in the allocation of Slurm job") == 3


def test_a_wrong_call_says_what_there_is(scripts):
    for name, reason in (("trian", "there is no rule 'trian'"), ("library", "'library' is a library module, not a rule")):
        ended = run(scripts, name)
        assert ended.returncode == 1
        assert reason in ended.stderr and "--list-rules" in ended.stderr and "Traceback" not in ended.stderr
    assert run(scripts, "train").returncode == 2
    assert "run.py RULE" in run(scripts).stdout


def test_help_describes_the_job(scripts):
    text = run(scripts, "train", "--help").stdout
    assert text.startswith("usage: run.py train") and "Do what a test asks for." in text


def test_no_two_rooms_have_a_job_of_the_same_name():
    names = modules()
    assert names["train"] == "sft_atlas.train.train" and names["measure_layers"] == "sft_atlas.measure.measure_layers"
