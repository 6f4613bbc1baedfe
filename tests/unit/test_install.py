"""`make env` installs what the lock lists, the lock is made from pyproject.toml, and all other lists of packages are made from the lock."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import install
import lock
from sft_atlas.core import optional_packages
from sft_atlas.core.provenance import ROOT

DECLARED = lock.declaration()
LOCKS = {path: (ROOT / path).read_text(encoding="utf-8") for path in (lock.MAIN, lock.VLLM, lock.OPTIONAL)}
PACKAGES = install.parse(LOCKS[lock.MAIN])
OPTIONAL = install.parse(LOCKS[lock.OPTIONAL])
GROUPS = DECLARED["dependency-groups"]
DIRECT = DECLARED["project"]["dependencies"] + GROUPS["slurm"] + GROUPS["atlas"] + GROUPS["test"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
STALE = "stale; run make lock"


def test_every_dependency_is_declared_once_with_an_exact_pin():
    names = [canonicalize_name(re.fullmatch(r"([A-Za-z0-9._-]+)==[0-9][A-Za-z0-9.]*", pin)[1]) for pin in DIRECT + GROUPS["optional"]]
    assert len(set(names)) == len(names)
    assert {"torch", "transformers", "trl", "peft", "lm-eval", "snakemake", "polars"} <= set(names)
    assert not list(ROOT.glob("*requirements*"))


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_is_made_from_the_declaration(path):
    assert f"# declaration: {lock.fingerprint(DECLARED)}\n" in LOCKS[path], STALE


def test_a_change_of_the_declaration_makes_the_lock_stale():
    changed = {**DECLARED, "project": {**DECLARED["project"], "dependencies": [*DECLARED["project"]["dependencies"], "new==1"]}}
    assert lock.fingerprint(changed) != lock.fingerprint(DECLARED)
    ruff = {**DECLARED, "tool": {**DECLARED["tool"], "ruff": {}}}
    assert lock.fingerprint(ruff) == lock.fingerprint(DECLARED)


def test_the_lock_has_every_declared_pin():
    for pin in DIRECT:
        entry = PACKAGES[lock.name_of(pin)]
        assert entry["pin"].split("==")[1] == pin.split("==")[1], STALE
        assert "pyproject.toml" in entry["via"]


@pytest.mark.parametrize("path", LOCKS)
def test_every_package_of_a_lock_has_hashes_and_no_address(path):
    packages = install.parse(LOCKS[path])
    assert len(packages) > (2 if path == lock.OPTIONAL else 100)
    for name, entry in packages.items():
        assert entry["hashes"], name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in entry["hashes"])
    assert "://" not in LOCKS[path] and " @ " not in LOCKS[path]


def test_optional_packages_are_the_ones_that_error_messages_name_and_change_nothing_that_is_installed():
    assert {lock.name_of(pin) for pin in GROUPS["optional"]} == optional_packages.LOCKED
    assert {"bitsandbytes", "wandb"} <= OPTIONAL.keys() and not OPTIONAL.keys() & PACKAGES.keys()
    assert lock.OPTIONAL in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_no_package_needs_a_compiler():
    assert "--no-binary" not in LOCKS[lock.OPTIONAL]
    lines = LOCKS[lock.MAIN].splitlines()
    assert "--only-binary :all:" in lines
    source = {line.split()[1] for line in lines if line.startswith("--no-binary ")}
    assert source <= {"cellpylib", "connection-pool", "langdetect", "rouge-score", "sqlitedict", "word2number", "zss"}, (
        "does it build without a compiler?"
    )
    assert "pycosat" not in PACKAGES


@pytest.mark.parametrize("path", [f"envs/{name}.yaml" for name in DECLARED["tool"]["sft-atlas"]["conda"]] + ["pixi.toml"])
def test_conda_and_pixi_have_what_the_lock_has(path):
    assert (ROOT / path).read_text(encoding="utf-8") == lock.generated(DECLARED, LOCKS)[path], STALE


def test_a_conda_environment_has_all_that_its_packages_require():
    parts = yaml.safe_load((ROOT / "envs/evaluate.yaml").read_text(encoding="utf-8"))["dependencies"]
    pins = next(part["pip"] for part in parts if isinstance(part, dict))
    names = {canonicalize_name(pin.split("==")[0]) for pin in pins}
    assert {"torch", "lm-eval", "rouge-score", "filelock", "triton"} <= names and "snakemake" not in names
    assert all(re.fullmatch(r"\S+==\S+( ; sys_platform == 'linux')?( --hash=sha256:[0-9a-f]{64})+", pin) for pin in pins)


def test_the_hashes_of_cpu_builds_belong_to_the_pinned_torch():
    assert PACKAGES["torch"]["pin"] == lock.TORCH_OF_CPU_BUILDS, "replace [tool.sft-atlas] torch-cpu in pyproject.toml, or empty it"
    assert set(DECLARED["tool"]["sft-atlas"]["torch-cpu"]) <= set(PACKAGES["torch"]["hashes"])


def test_this_environment_is_that_of_the_lock():
    have = {canonicalize_name(entry.metadata["Name"]): entry.version.split("+")[0] for entry in importlib.metadata.distributions()}
    assert install.differing(PACKAGES, have) == [], "run make env"


def test_the_supported_pythons_stand_in_one_way_everywhere():
    supported = SpecifierSet(DECLARED["project"]["requires-python"])
    assert [minor for minor in range(8, 20) if f"3.{minor}.1" in supported] == list(range(install.OLDEST[1], install.NEWEST[1] + 1))
    assert tuple(lock.PYTHONS) == tuple(f"3.{minor}" for minor in range(install.OLDEST[1], install.NEWEST[1] + 1))
    assert (3, install.NEWEST[1] + 1) == lock.NEXT
    assert f"![CPython {', '.join(lock.PYTHONS)}](https://img.shields.io/badge/CPython-{'%20%7C%20'.join(lock.PYTHONS)}-blue)" in README
    assert f'python-version: "{lock.NEXT[0]}.{lock.NEXT[1]}"' in WORKFLOW and f"CPython {lock.NEXT[0]}.{lock.NEXT[1]}: //p" in WORKFLOW
    assert (
        f"({install.OLDEST[0]}, {install.OLDEST[1]}) <= sys.version_info[:2] <= (3, {install.NEWEST[1]})" in (ROOT / "Makefile").read_text()
    )


# ---------------------------------------------------------------- make env

SMALL = """\
# without a wheel for CPython 3.14: immutables==0.21
--only-binary :all:
alpha==1.0 \\
    --hash=sha256:aa
    # via
    #   pyproject.toml
    #   beta
beta==2.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via pyproject.toml
nvidia-x==3.0 ; sys_platform == 'linux' \\
    --hash=sha256:dd
    # via torch
shared==4.0 \\
    --hash=sha256:ee
    # via
    #   alpha
    #   torch
torch==5.0 \\
    --hash=sha256:ff
    # via pyproject.toml
"""


def test_a_lock_is_read():
    packages = install.parse(SMALL)
    assert list(packages) == ["alpha", "beta", "nvidia-x", "shared", "torch"]
    assert packages["alpha"] == {"pin": "alpha==1.0", "marker": "", "hashes": ["sha256:aa"], "via": ["pyproject.toml", "beta"]}
    assert packages["nvidia-x"]["marker"] == "sys_platform == 'linux'"
    assert install.closure(["beta"], packages) == ["alpha", "beta", "shared"]


def test_what_only_a_cuda_build_needs_is_left_out_beside_a_cpu_build():
    packages = install.parse(SMALL)
    assert install.needed(packages, ["shared"]) == ["alpha", "beta", "shared", "torch"]
    assert install.needed(packages, ["shared", "nvidia-x"]) == ["alpha", "beta", "nvidia-x", "shared", "torch"]
    assert "nvidia-cublas" not in install.needed(PACKAGES, ["filelock", "sympy"]) and "triton" in install.needed(PACKAGES, ["triton"])


def test_a_part_of_a_lock_keeps_hashes_and_options():
    text = install.requirements(["beta"], install.parse(SMALL), SMALL)
    assert text == "--only-binary :all:\nbeta==2.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"


@pytest.mark.parametrize(
    ("version", "kind", "message"),
    [
        ((3, 11, 0), "CPython", None),
        ((3, 13, 9), "CPython", None),
        ((3, 10, 13), "CPython", "this is CPython 3.10.13. Choose one: make env PYTHON=/path/to/python3.13"),
        ((3, 11, 9), "PyPy", "this is PyPy 3.11.9. Choose one"),
        ((3, 14, 1), "CPython", "this is CPython 3.14.1, for which these pins have no wheel: immutables==0.21. Choose one"),
        ((3, 15, 0), "CPython", "this is CPython 3.15.0. Choose one"),
    ],
)
def test_another_python_is_refused_with_the_reason(version, kind, message):
    problem = install.python_problem(version, kind, SMALL)
    assert problem is message is None or (message in problem and problem.startswith("sft-atlas needs CPython 3.11 to 3.13; "))


def test_the_lock_says_which_pins_lack_a_wheel_for_the_next_python():
    line = next(line for line in LOCKS[lock.MAIN].splitlines() if line.startswith("# without a wheel for CPython 3.14: "))
    pins = line.partition(": ")[2].split(", ")
    assert pins == ["none"] or all(PACKAGES[lock.name_of(pin)]["pin"] == pin for pin in pins)


def test_an_old_python_gets_the_message_and_no_traceback():
    for python in Path("/root/.pyenv/versions").glob("3.[6-9].*/bin/python"):
        command = ["make", "--no-print-directory", "env", f"PYTHON={python}"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert (
            ended.stderr.startswith("make env: sft-atlas needs CPython 3.11 to 3.13; this is CPython 3.")
            and "Traceback" not in ended.stderr
        )


def test_a_platform_without_wheels_is_named():
    assert install.platform_problem("Linux", "aarch64") is None
    assert "for Windows on AMD64: use Linux" in install.platform_problem("Windows", "AMD64")


def test_the_environment_of_another_clone_is_left_alone(tmp_path, monkeypatch, capsys):
    other, here = tmp_path / "other", tmp_path / "here"
    for folder in (other, here):
        (folder / "envs/locks").mkdir(parents=True)
        (folder / "Makefile").touch()
    (other / ".venv/bin").mkdir(parents=True)
    (other / ".venv/bin/python").symlink_to(sys.executable)
    (here / ".venv").symlink_to(other / ".venv")
    monkeypatch.setattr(install, "ROOT", str(here))
    monkeypatch.setattr(install, "LOCK", str(here / "lock.txt"))
    monkeypatch.setattr(install, "install", lambda *_: pytest.fail("installed into the environment of another clone"))
    monkeypatch.setattr(sys, "argv", ["install.py"])
    (here / "lock.txt").write_text("pytest==0.0.1 \\\n    --hash=sha256:aa\n    # via pyproject.toml\n")
    install.main()
    assert f"environment of {other}: nothing is installed into it from here" in (told := capsys.readouterr().out)
    assert "(locked: 0.0.1)" in told


def test_a_link_to_a_folder_that_is_no_clone_is_used(tmp_path, monkeypatch):
    (tmp_path / "scratch/venv").mkdir(parents=True)
    (tmp_path / ".venv").symlink_to(tmp_path / "scratch/venv")
    monkeypatch.setattr(install, "ROOT", str(tmp_path))
    assert install.home_of(str(tmp_path / ".venv")) is None


def test_results_are_read_from_any_folder_with_the_code_of_the_clone_whose_python_runs(tmp_path, monkeypatch):
    for name in ("größe one", "two"):
        (tmp_path / name / "workflow_scripts/sft_atlas").mkdir(parents=True)
        (tmp_path / name / "workflow_scripts/sft_atlas/__init__.py").write_text(f"load = {name!r}")
    (tmp_path / "größe one/envs").mkdir()
    (tmp_path / "größe one/envs/user_cache.py").write_text("")
    (tmp_path / "two/.venv").symlink_to(tmp_path / "größe one/.venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "größe one/.venv"], check=True)
    monkeypatch.setattr(install, "ROOT", str(tmp_path / "größe one"))
    install.add_own_modules(str(tmp_path / "größe one/.venv/bin/python"))
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"LANG": "C", "LC_ALL": "C"}
    for name in ("größe one", "two"):
        command = [tmp_path / name / ".venv/bin/python", "-c", "from sft_atlas import load; print(ascii(load))"]
        printed = subprocess.run(command, cwd="/", env=plain, capture_output=True, text=True, check=True).stdout.strip()
        assert printed == ascii(name)


def test_nothing_is_installed_where_the_stamp_is_that_of_the_lock(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(install, "ROOT", str(tmp_path))
    monkeypatch.setattr(install, "LOCK", str(tmp_path / "lock.txt"))
    monkeypatch.setattr(install, "install", lambda *_: calls.append(1))
    monkeypatch.setattr(sys, "argv", ["install.py"])
    for folder in (".venv", "envs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "envs/user_cache.py").touch()
    for text, expected in (("a==1", 1), ("a==1", 1), ("a==2", 2)):
        (tmp_path / "lock.txt").write_text(text)
        install.main()
        assert len(calls) == expected


def test_uv_uses_the_index_of_pip_and_no_cache_that_cannot_be_written(tmp_path, monkeypatch):
    configured = {**os.environ, "PIP_INDEX_URL": "https://mirror.example/simple", "UV_CACHE_DIR": str(tmp_path / "new/uv")}
    settings = install.uv_settings(sys.executable, configured)
    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.example/simple" and "UV_NO_CACHE" not in settings
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))  # root may write everywhere
    assert install.uv_settings(sys.executable, configured)["UV_NO_CACHE"] == "1"
    assert not install.has_cache("pip", {"PIP_CACHE_DIR": str(tmp_path / "pip")}) and install.has_cache("pip", {"PIP_CACHE_DIR": "/tmp"})


def test_the_tools_are_run_by_the_makefile():
    text = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    assert "envs/install.py" in text and "$(BIN)/python envs/lock.py" in text
