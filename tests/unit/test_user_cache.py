"""A home that cannot be written does not stop Snakemake."""

import os
import subprocess
import sys

import pytest

import install
import user_cache


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


def test_every_python_of_the_environment_does_it(tmp_path):
    folder = tmp_path / "venv with space"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install.add_own_modules(str(folder / "bin/python"))
    call = [folder / "bin/python", "-c", "import os; print(os.environ['XDG_CACHE_HOME'])"]
    told = subprocess.run(call, env={**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": ""}, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(tmp_path / ".snakemake/cache") and not told.stderr
