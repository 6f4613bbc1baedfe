"""A small study and its results, for the tests of several tables."""

import pytest

from helpers import synthetic


@pytest.fixture(scope="module")
def small():
    """A study of two models and two sets, with LoRA, nothing else."""
    return synthetic.study_json(models=2, datasets=2, trajectories=False, leave_one_out=False, merged=True)


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """The folder of its results."""
    root = tmp_path_factory.mktemp("written")
    synthetic.write(root, small)
    return root
