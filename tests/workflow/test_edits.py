"""After random edits of a study, one call gives what a run from nothing gives, and a dry run says before what it will do."""

import copy
import os
import random
import re
import shutil
from collections import Counter

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from helpers.edits import make_edits, renamed, replace_names, smallest_study
from helpers.folders import ROOT, fresh
from sft_atlas.core.errors import ConfigError
from sft_atlas.study import study as studies

EDITS = int(os.environ.get("SFT_ATLAS_EDITS", 2))  # 50 for a night
SEED = int(os.environ.get("SFT_ATLAS_EDITS_SEED", 0))
TARGETS = ("tables", "analyses", "contamination")
CLOCK = ("seconds", "tokens_per_second")  # columns that measure time


class Edited:
    """The smallest study in a folder, where expensive jobs are not run twice on the same content."""

    def __init__(self, path):
        self.folder = fresh(path / "study", {})
        self.folder.write(smallest_study(self.folder.path))
        self.cache = path / "cache"
        self.cache.mkdir()
        scripts = self.folder.path / "workflow_scripts"
        (scripts / "run.py").rename(scripts / "real_run.py")
        shutil.copy(ROOT / "tests/helpers/caching_door.py", scripts / "run.py")

    def run(self, *arguments):
        return self.folder.run(*(arguments or TARGETS), SFT_ATLAS_TEST_CACHE=str(self.cache))

    def jobs(self, *arguments):
        """Outputs of the jobs that a call runs, or would run."""
        return Counter(re.findall(r"^    output: (.*)$", self.run(*TARGETS, *arguments), re.MULTILINE))

    def plan(self):
        """How many jobs of each kind the plan says are done, to do, and to do again."""
        self.run("plan", *TARGETS)
        return pl.read_parquet(self.folder.result("plan.parquet"))

    def run_a_part(self, rng):
        """Run a training, or score one checkpoint of it; returns the target."""
        runs = studies.from_config(self.folder.study, "study").runs
        run, suite = rng.choice(list(runs.values())), rng.choice(list(self.folder.study["suites"]))
        target = rng.choice(["train.json", f"epoch-{run.settings.kept_epochs[0]}/scores/{suite}.parquet"])
        path = f"results/tiny/runs/{'/'.join(run.key)}/{target}"
        self.run(path)
        return path

    def tables(self):
        return {path.name: pl.read_parquet(path) for path in sorted(self.folder.result("tables").glob("*.parquet"))}

    def from_nothing(self):
        """The tables of the study as it is, run from nothing in the same place; the results come back afterwards."""
        aside = self.folder.path / "aside"
        aside.mkdir()
        for name in ("results", ".snakemake"):
            (self.folder.path / name).rename(aside / name)
        try:
            self.run()
            return self.tables()
        finally:
            for name in ("results", ".snakemake"):
                shutil.rmtree(self.folder.path / name)
                (aside / name).rename(self.folder.path / name)
            aside.rmdir()


def difference(table, expected, found):
    """What is wrong with a table, or nothing."""
    if found is None:
        return f"{table} is missing"
    try:
        assert_frame_equal(*(frame.drop(CLOCK, strict=False) for frame in (expected, found)), rel_tol=1e-5, abs_tol=1e-6)
    except AssertionError as error:
        return f"{table}: {error}"
    return None


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    edited = Edited(tmp_path_factory.mktemp("edits"))
    edited.run()
    return edited


def attempt(edited, rng):
    """Make edits that give a valid study; returns what they did."""
    while True:
        before, files = edited.folder.study, {path: path.read_bytes() for path in edited.folder.path.glob("config/benchmarks/*.yaml")}
        study = copy.deepcopy(before)
        made = make_edits(study, edited.folder.path, rng)
        try:
            studies.from_config(study, "study")
        except ConfigError:
            for path, content in files.items():
                path.write_bytes(content)
            continue
        edited.folder.write(study)
        return made


def test_what_is_renamed_takes_over_its_results_and_a_dry_run_leaves_all_as_it_was(edited):
    before = edited.folder.study
    study = copy.deepcopy(before)
    for kind, old, new in (
        ("recipes", "full", "all-weights"),
        ("datasets", "spelling", "letters"),
        ("suites", "written", "free"),
        ("models", "qwen3", "second"),
    ):
        study[kind] = renamed(study[kind], old, new)
        replace_names(study, old, new, kind)
    edited.folder.write(study)
    state = sorted(str(path) for name in ("results", ".snakemake/metadata") for path in (edited.folder.path / name).rglob("*"))
    printed = edited.run("-n", *TARGETS)
    assert "recipe all-weights takes over the finished results of full, which has equal settings" in printed
    assert not re.search(r"rule (train|evaluate|measure_(layers|rep|perp)|pretrain|fetch|prepare|merge)", printed), printed
    assert state == sorted(str(path) for name in ("results", ".snakemake/metadata") for path in (edited.folder.path / name).rglob("*"))
    edited.folder.write(before)


@pytest.mark.parametrize("number", range(EDITS))
def test_one_call_after_edits_gives_what_a_run_from_nothing_gives(edited, number):
    rng = random.Random(f"{SEED} {number}")
    made = attempt(edited, rng)
    if rng.random() < 0.3:  # some call for a part of the study comes in between
        made.append(f"run: {edited.run_a_part(rng)}")
    print(number, made)
    plan, planned = edited.plan(), edited.jobs("-n")  # neither changes a result
    assert plan["to_do"].sum() + plan["again"].sum() == planned.total(), f"{made}: the plan and the dry run differ"
    done = edited.jobs()
    assert done == planned, f"{made}: {sorted((planned - done).items())} planned only, {sorted((done - planned).items())} run only"
    found = edited.tables()
    left = edited.jobs("-n")
    assert not left, f"{made}: {sorted(left)} are still to be done"
    wrong = [error for table, expected in edited.from_nothing().items() if (error := difference(table, expected, found.get(table)))]
    assert not wrong, f"{made}: " + "\n".join(wrong)
