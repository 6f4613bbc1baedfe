"""Order that is no dependency, with the real Snakemake on a toy workflow: prove, train, evaluate."""

import subprocess
import sys

import pytest

from helpers.waiting import HANG
from sft_atlas.core import job_order

TOY = f"""
import sys
sys.path.insert(0, {str(next(iter(job_order.__file__.split("/sft_atlas"))))!r})
from sft_atlas.core import job_order

job_order.run_first(workflow, "proof", "suite", later=lambda rule: rule == "train")

rule all:
    input:
        "proof",
        "b.score",

rule prove:
    input: config.get("benchmarks", "items").split()
    output: "proof"
    shell: "sleep 0.3; echo prove >> done; ! grep leak {{input}} && cat {{input}} > {{output}}"

rule prepare:
    input: "items"
    output: "suite"
    params: suite=config.get("suite", 1)
    shell: "sleep 0.3; echo prepare >> done; echo {{params.suite}} > {{output}}"

rule train:
    input: "rows"
    output: "{{run}}.model"
    params: rate=config.get("rate", 1)
    shell: "echo train >> done; echo {{params.rate}} > {{output}}"

rule evaluate:
    input: "{{run}}.model"
    output: "{{run}}.score"
    params: tokens=config.get("tokens", 24)
    shell: "echo evaluate >> done; cat {{input}} > {{output}}; echo {{params.tokens}} >> {{output}}"
"""


TOGETHER = f"""
import os, sys
sys.path.insert(0, {str(next(iter(job_order.__file__.split("/sft_atlas"))))!r})
from sft_atlas.core import job_order

def batches(jobs):
    members = [job for job in jobs if job.rule.name == "evaluate"]
    if len(members) < 2:
        return {{}}
    if os.path.exists("batch"):
        os.unlink("batch")
    return {{"batch": members}}

job_order.run_together(workflow, batches)

rule all:
    input: expand("{{run}}.score", run=config.get("runs", "a b").split())

rule answer:
    input: "rows"
    output: "batch"
    shell: "echo answer >> done; touch {{output}}"

rule train:
    input: "rows"
    output: "{{run}}.model"
    shell: "sleep 0.2; echo train >> done; touch {{output}}"

rule evaluate:
    input: "{{run}}.model"
    output: "{{run}}.score"
    params: tokens=config.get("tokens", 24)
    shell: "echo evaluate >> done; touch {{output}}"
"""


class Toy:
    """The toy workflow in a folder."""

    def __init__(self, folder, workflow=TOY):
        self.folder = folder
        for name, text in {"Snakefile": workflow, "items": "1", "more": "2", "leaked": "leak", "rows": "3"}.items():
            (folder / name).write_text(text + "\n")

    def run(self, *arguments, ok=True):
        """The jobs of one call, in the order in which they ran."""
        (self.folder / "done").unlink(missing_ok=True)
        call = [
            sys.executable,
            "-m",
            "snakemake",
            *arguments,
            "--cores",
            "2",
            "--keep-going",
            "--rerun-triggers",
            "mtime",
            "params",
            "input",
        ]
        done = subprocess.run(call, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=HANG)
        assert (done.returncode == 0) == ok, done.stdout
        return (self.folder / "done").read_text().split() if (self.folder / "done").exists() else []


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy workflow after a first run."""
    toy = Toy(tmp_path_factory.mktemp("toy"))
    # A file as target brings proof and suite with it, and they come first.
    done = toy.run("b.score")
    assert sorted(done[:2]) == ["prepare", "prove"] and done[2:] == ["train", "evaluate"]
    return toy


def test_a_new_proof_is_no_reason_to_train_and_hides_no_other_reason(toy):
    assert toy.run("--config", "benchmarks=items more") == ["prove"]
    assert sorted(toy.run("--config", "tokens=4")) == ["evaluate", "prove"]
    assert (toy.folder / "b.score").read_text() == "1\n4\n"
    assert toy.run("--config", "tokens=4", "rate=2", "benchmarks=items more") == ["prove", "train", "evaluate"]
    assert (toy.folder / "b.score").read_text() == "2\n4\n"


def test_training_waits_for_both_also_where_neither_belongs_to_the_target(toy):
    done = toy.run("b.model", "--config", "rate=2.5", "suite=2", "benchmarks=items more more")
    assert sorted(done[:2]) == ["prepare", "prove"] and done[2:] == ["train"]
    assert toy.run("b.model", "--config", "rate=2", "suite=2", "benchmarks=items more") == ["prove", "train"]


def test_nothing_is_trained_without_the_proof_and_finished_training_is_kept(toy):
    toy.run("--config", "tokens=4", "rate=2", "suite=2")
    edit = ("--config", "tokens=4", "suite=2", "rate=3", "benchmarks=items leaked")
    assert toy.run(*edit, ok=False) == ["prove"]
    assert toy.run(*edit[:3], "rate=2") == ["prove"]  # the failed proof's file is gone, the model of before is not trained again


def test_one_job_runs_for_several_after_what_they_wait_for_and_is_no_reason_to_run_them(tmp_path):
    toy = Toy(tmp_path, TOGETHER)
    assert toy.run() == ["train", "train", "answer", "evaluate", "evaluate"]
    assert toy.run() == []
    assert toy.run("a.score", "--config", "tokens=8") == ["evaluate"]  # one alone
    assert toy.run("--config", "tokens=9", "runs=a b c") == ["train", "answer", *["evaluate"] * 3]
