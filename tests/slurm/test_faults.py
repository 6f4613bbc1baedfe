"""Jobs that run out of time or memory, are cancelled or fail: what Slurm says of them, and what their retry asks for."""

from collections import defaultdict
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Try:
    """One submission of a job: how it ended, and what it had asked for."""

    state: str
    mem: str
    minutes: str


@pytest.fixture(scope="module")
def tries(lab, faults) -> dict[str, list[Try]]:
    """Every submission of each probe, by its fault, after Snakemake has got all of them done."""
    faults.finish(faults.process)
    found = defaultdict(list)
    columns = "--format=Comment%60,State,ReqMem,TimelimitRaw"
    for line in lab.run("sacct", "--noheader", "--parsable2", "--allocations", columns).splitlines():
        comment, *rest = line.split("|")
        if comment.startswith("rule_probe"):
            found[comment.removeprefix("rule_probe_wildcards_")].append(Try(rest[0].split()[0], *rest[1:]))
    return found


def test_a_job_without_a_fault_is_submitted_once(tries):
    assert tries["none"] == [Try("COMPLETED", "500M", "60")]


def test_a_job_over_its_time_limit_gets_more_time_and_only_that(tries):
    """Its first limit of 60 minutes was lowered to one while it ran."""
    assert tries["time"] == [Try("TIMEOUT", "500M", "1"), Try("COMPLETED", "500M", "120")]


def test_a_job_over_its_memory_gets_more_memory_and_only_that(tries):
    assert tries["memory"] == [Try("FAILED", "500M", "60"), Try("COMPLETED", "1000M", "60")]


def test_a_job_cancelled_by_an_administrator_is_submitted_again_as_it_was(tries):
    assert tries["cancelled"] == [Try("CANCELLED", "500M", "60"), Try("COMPLETED", "500M", "60")]


def test_a_job_that_fails_by_itself_is_tried_again_as_it_was(tries):
    assert tries["failing"] == [Try("FAILED", "500M", "60"), Try("COMPLETED", "500M", "60")]
