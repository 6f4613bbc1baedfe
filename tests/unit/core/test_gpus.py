"""GPUs of this machine are shared among the jobs of a local run."""

import os
import subprocess
import sys

import pytest

from sft_atlas.core import gpus
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT

CLAIM = "import sys; sys.path.insert(0, 'workflow_scripts'); from sft_atlas.core import gpus; print(*gpus.claim(int(sys.argv[1])), flush=True); sys.stdin.read()"


def claiming(folder, count):
    """A process that takes GPUs and holds them until its input ends."""
    environment = os.environ | {"SFT_ATLAS_GPUS": "0,1,3", "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(count)], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_no_two_jobs_have_the_same_gpu_and_one_that_dies_gives_its_own_back(tmp_path):
    one, two = claiming(tmp_path, 1), claiming(tmp_path, 2)
    names = [one.stdout.readline().split(), two.stdout.readline().split()]
    assert sorted(map(len, names)) == [1, 2] and sorted(names[0] + names[1]) == ["0", "1", "3"]
    waiting = claiming(tmp_path, 2)
    two.kill()
    assert waiting.stdout.readline().split() == names[1]
    for process in (one, two, waiting):
        process.communicate()


def test_more_gpus_than_there_are_is_an_error_and_outside_a_local_run_nothing_is_taken(monkeypatch):
    monkeypatch.delenv("SFT_ATLAS_GPUS", raising=False)
    assert gpus.claim(4) == []
    monkeypatch.setenv("SFT_ATLAS_GPUS", "0")
    with pytest.raises(AtlasError, match="needs 4 GPUs and this machine has 1"):
        gpus.claim(4)


def test_the_gpus_of_this_machine_are_those_that_may_be_seen(monkeypatch):
    for said, names in (("", []), ("-1", []), ("2, 3", ["2", "3"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert gpus.list_gpus() == names
