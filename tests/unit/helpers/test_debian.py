"""Debian's packages are installed although the package manager is busy for a while; it is played by a script."""

import os

import pytest

from helpers import debian

APT = """#!/bin/sh
echo "$@" >> "$FOLDER/calls"
n=$(wc -l < "$FOLDER/calls")
{faults}
case "$*" in *install*) printf '#!/bin/sh\\n' > "$FOLDER/tool"; chmod +x "$FOLDER/tool";; esac
"""
BUSY = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1234 (apt-get)"


@pytest.fixture
def apt(tmp_path, monkeypatch):
    def with_faults(faults):
        (tmp_path / "apt-get").write_text(APT.replace("{faults}", faults))
        (tmp_path / "apt-get").chmod(0o755)
        return tmp_path / "calls"

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return with_faults


def test_a_busy_package_manager_is_waited_for(apt):
    calls = apt(f'[ $n -lt 4 ] && echo "{BUSY}" >&2 && exit 100')
    assert debian.install(["tools"], ["tool"], pause=0) is None
    lines = calls.read_text().splitlines()
    assert len(lines) == 5 and "DPkg::Lock::Timeout=600" in lines[0] and lines[-1].endswith("install --yes --no-install-recommends tools")
    assert debian.install(["tools"], ["tool"]) is None and len(calls.read_text().splitlines()) == 5, "it is there now"


def test_a_package_manager_that_stays_busy_is_the_reason_after_a_while(apt):
    apt(f'echo "{BUSY}" >&2; exit 100')
    assert debian.install(["tools"], ["tool"], patience=0, pause=0) == f"apt-get install failed: {BUSY}"


def test_another_failure_is_tried_three_times(apt):
    calls = apt('case "$*" in *install*) echo "E: Unable to locate package tools" >&2; exit 100;; esac')
    assert debian.install(["tools"], ["tool"], pause=0) == "apt-get install failed: E: Unable to locate package tools"
    assert len(calls.read_text().splitlines()) == 4


def test_who_may_not_install_is_told_what_is_missing(apt, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert debian.install(["tools"], ["tool"]) == "tool not installed, and only root with apt-get could change that (tools)"


def test_a_library_is_missing_where_it_cannot_be_loaded():
    assert debian.missing(["libc.so.6", "libnone.so.1", "sh"]) == ["libnone.so.1"]
