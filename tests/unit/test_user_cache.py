"""A home that cannot be written does not stop Snakemake."""

import os
import subprocess
import sys

import pytest

import install
import user_cache
from sft_atlas.core.provenance import ROOT


def test_a_home_that_can_be_written_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {"HOME": str(tmp_path)}
    user_cache.redirect(environment, "/clone")
    assert environment == {"HOME": str(tmp_path)}


@pytest.mark.parametrize("home", ["/dev/null", "/proc/version"])
def test_a_home_that_cannot_be_written_is_replaced_by_the_clone(tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    environment = {}
    user_cache.redirect(environment, str(tmp_path))
    assert environment == {
        "XDG_CACHE_HOME": str(tmp_path / ".snakemake/cache"),
        "MPLCONFIGDIR": str(tmp_path / ".snakemake/cache/matplotlib"),
    }


def test_what_the_user_has_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "mine"), "MPLCONFIGDIR": "/mine"}
    user_cache.redirect(environment, "/clone")
    assert environment == {"XDG_CACHE_HOME": str(tmp_path / "mine"), "MPLCONFIGDIR": "/mine"}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_every_python_of_the_environment_does_it_and_finds_our_code(tmp_path, monkeypatch, locale):
    folder, clone = tmp_path / "venv with space", tmp_path / "größe (x) 'y'"
    (clone / "workflow_scripts/sft_atlas").mkdir(parents=True)
    (clone / "envs").symlink_to(ROOT / "envs")
    monkeypatch.setattr(install, "ROOT", str(clone))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install.add_own_modules(str(folder / "bin/python"))
    call = [folder / "bin/python", "-c", "import os, sft_atlas; print(os.environ['XDG_CACHE_HOME'], *sft_atlas.__path__, sep='\\n')"]
    environment = {**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "", "LC_ALL": locale}
    told = subprocess.run(call, env=environment, capture_output=True, encoding="utf-8")
    assert not told.stderr
    assert told.stdout.splitlines()[:2] == [str(tmp_path / ".snakemake/cache"), str(clone / "workflow_scripts/sft_atlas")]
