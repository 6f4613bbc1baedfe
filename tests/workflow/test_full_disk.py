"""A job that finds no room says so in one error: the file system, what is needed, what is free. It goes on once there is room.

`make test` tries a few kinds of jobs. SFT_ATLAS_EVERY_JOB=1 takes one job of each rule, with no room at all and with little.
"""

import os
import re
import shutil
import subprocess

import pytest

from helpers.full_disk import file_system, fill, make_room
from helpers.waiting import HANG

EVERY = "SFT_ATLAS_EVERY_JOB" in os.environ
SOME = ("collect", "evaluate", "measure_layers", "plot", "train", "write_findings")
LITTLE = 32 * 1024  # bytes: enough for a record, not for weights
ERROR = re.compile(
    r"error: the file system (\S+) is full: [\d.]+ \w+ free of [\d.]+ \w+, while writing below \S+; (about|more than|at least) (?!0 bytes)[\d.]+ \w+ "
    r"is needed for what was being written\. Make room there, .* run again: what is finished is kept"
)

BEFOREHAND = re.compile(
    r"error: \S+ writes up to [\d.]+ \w+ below \S+, where there is room for [\d.]+ \w+; make room"
)  # a training's estimate


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system that is full")
def test_a_full_disk_is_one_error_and_jobs_go_on_once_there_is_room(served):
    listed = served.jobs("all", "contamination", "cards")
    results, failed, tried = served.path / "results", [], 0
    with file_system(results):
        for rule in sorted(listed) if EVERY else SOME:
            _, outputs, command = listed[rule]
            for free in (0, LITTLE) if EVERY else (0,):
                for path in map(served.path.joinpath, outputs):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                fill(results, free)
                done = call(command)
                tried += 1
                error = ERROR.search(done.stdout)
                told = BEFOREHAND.search(done.stdout) or (error and error[1] == str(results))
                if (done.returncode == 0 and not free) or "Traceback" in done.stdout:
                    failed.append(f"{rule}, {free} bytes free, ended with {done.returncode}: {done.stdout[-1500:]}")
                elif done.returncode and (not told or done.stdout.count("error: ") != 1):
                    failed.append(f"{rule}, {free} bytes free: {done.stdout[-1500:]}")
                make_room(results)
                again = call(command)
                if again.returncode or not all((served.path / path).exists() for path in outputs):
                    failed.append(f"{rule} did not go on: {again.stdout[-1500:]}")
    print(f"{tried} jobs on a full disk, {len(failed)} failed")
    assert not failed, "\n\n".join(failed)


def call(command: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=HANG)
