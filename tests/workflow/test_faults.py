"""Random kills, cuts and flipped bits: a study that was disturbed ends with the results of one that was not, or says what to do.

SFT_ATLAS_FAULTS=100 pytest -s tests/workflow/test_faults.py     for a night; SFT_ATLAS_FAULTS_SEED makes other faults
"""

import os

import pytest

from helpers.faults import TARGETS, Faults, fault_study
from helpers.folders import fresh

FAULTS = int(os.environ.get("SFT_ATLAS_FAULTS", 4))
SEED = os.environ.get("SFT_ATLAS_FAULTS_SEED", "0")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = fresh(tmp_path_factory.mktemp("pristine") / "study", {})
    folder.write(fault_study(folder.path))
    return folder


def test_faults_are_survived_or_refused_with_a_remedy(pristine, tmp_path):
    undisturbed = pristine.copy(tmp_path / "undisturbed")
    undisturbed.run(*TARGETS)
    report = Faults(pristine, undisturbed.result(""), tmp_path / "study", SEED).run(FAULTS)
    print(report)
    assert not report.wrong and not report.unclear, str(report)
