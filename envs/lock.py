"""Write the locks, the conda environments and pixi.toml from the declaration in pyproject.toml: make lock

    .venv/bin/python envs/lock.py                  keeps every version that is locked already
    .venv/bin/python envs/lock.py --upgrade NAME   lets these packages, or with ALL every one, move to their newest versions

uv solves for CPython 3.11 to 3.13 on Linux (x86-64, aarch64) and macOS (arm64) at once and asks the package index for the hashes of every
file. Everything else here is rewriting its answer.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename

from install import closure, parse

ROOT = Path(__file__).resolve().parents[1]
NEXT = (3, 14)  # the Python that is not supported yet: the lock names the pins that have no wheel for it
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = (
    {"sys_platform": "linux", "platform_machine": "x86_64"},
    {"sys_platform": "linux", "platform_machine": "aarch64"},
    {"sys_platform": "darwin", "platform_machine": "arm64"},
)
CONDA_PYTHON = "3.11"
MAIN = "envs/locks/sft-atlas.txt"
VLLM = "envs/locks/vllm.txt"
OPTIONAL = "envs/locks/optional.txt"  # what goes beside MAIN, without what MAIN has
TORCH_OF_CPU_BUILDS = "torch==2.13.0"  # whose hashes are in [tool.sft-atlas] torch-cpu


def declaration(root: Path = ROOT) -> dict:
    """pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def fingerprint(declared: dict) -> str:
    """A hash of everything that the locks are made from. It stands in them, so that a stale lock is noticed."""
    parts = [declared["project"][key] for key in ("requires-python", "dependencies")]
    parts += [declared["dependency-groups"], declared["tool"]["uv"], declared["tool"]["sft-atlas"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def name_of(pin: str) -> str:
    return canonicalize_name(Requirement(pin).name)


def shorter(marker: str, environments: list[str]) -> str:
    """A marker without what is true on every platform that the lock is for."""
    if not marker:
        return ""
    places = [
        {
            **platform,
            "platform_system": "Linux" if platform["sys_platform"] == "linux" else "Darwin",
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }
        for platform in PLATFORMS
        for python in PYTHONS
        if any(Marker(place).evaluate(platform) for place in environments)
    ]
    true = [Marker(marker).evaluate(place) for place in places]
    if all(true):
        return ""
    for candidate in ("sys_platform == 'linux'", "sys_platform == 'darwin'", "python_version >= '3.12'", "python_version < '3.12'"):
        if [Marker(candidate).evaluate(place) for place in places] == true:
            return candidate
    return marker


def has_wheel(files: list[str], python: tuple[int, int]) -> bool:
    """Whether one of these wheels fits a Python on one of the platforms of the lock."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(17, 36) for machine in ("x86_64", "aarch64")]
    platforms += [f"manylinux2014_{machine}" for machine in ("x86_64", "aarch64")] + [f"manylinux{year}_x86_64" for year in (1, 2010)]
    platforms += mac_platforms((15, 0), "arm64")
    fitting = {*cpython_tags(python, platforms=platforms), *compatible_tags(python, f"cp{python[0]}{python[1]}", platforms=platforms)}
    return any(parse_wheel_filename(file)[3] & fitting for file in files)


def solve(
    pins: list[str], declared: dict, constraints: list[str], environments: list[str], pythons: str
) -> tuple[str, dict[str, list[str]]]:
    """uv's answer for some pins: a requirements file with hashes, and the wheels of every package."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "package": False,
            "override-dependencies": declared["tool"]["uv"]["override-dependencies"],
            "environments": environments,
            "constraint-dependencies": constraints,
        }
        lines = ["[project]", 'name = "sft-atlas"', 'version = "0"', f"requires-python = {json.dumps(pythons)}"]
        lines += [f"dependencies = {json.dumps(pins)}", "[tool.uv]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
        Path(folder, "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        uv = Path(sys.executable).with_name("uv")
        for command in (["lock"], ["export", "--frozen", "--quiet", "--format", "requirements-txt", "--output-file", "lock.txt"]):
            ended = subprocess.run(
                [uv, "--no-config", *command] if command == ["lock"] else [uv, *command],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if ended.returncode:
                sys.exit(
                    f"{ended.stderr}\nuv found no set of versions. If a version of the lock stands in the way: make lock UPGRADE=NAME (or ALL)"
                )
        found = tomllib.loads(Path(folder, "uv.lock").read_text(encoding="utf-8"))["package"]
        wheels = {
            entry["name"]: [wheel["url"].rsplit("/", 1)[1].replace("%2B", "+") for wheel in entry.get("wheels", [])] for entry in found
        }
        if twice := sorted(name for name in wheels if sum(entry["name"] == name for entry in found) > 1):
            sys.exit(f"{', '.join(twice)}: no single version fits every Python and platform; pin what requires them in pyproject.toml")
        return Path(folder, "lock.txt").read_text(encoding="utf-8"), wheels


def without_wheel(answer: str, declared: dict) -> list[str]:
    """The pins of uv's answer that have no wheel for the next Python."""
    packages = parse(answer)
    pins = [f"{entry['pin']} ; {entry['marker']}" if entry["marker"] else entry["pin"] for entry in packages.values()]
    _, wheels = solve(pins, declared, [], declared["tool"]["uv"]["environments"], f">=3.11,<{NEXT[0]}.{NEXT[1] + 1}")
    return [entry["pin"] for name, entry in packages.items() if not has_wheel(wheels.get(name, []), NEXT)]


def lock_text(packages: dict[str, dict], source: list[str], declared: dict, heading: list[str], environments: list[str]) -> str:
    """A lock as pip and uv read it. ``source``: packages without any wheel, which are pure Python."""
    lines = [*heading, f"# declaration: {fingerprint(declared)}", "", "--only-binary :all:"]
    lines += [*(f"--no-binary {name}" for name in source), ""]
    for entry in packages.values():
        marker = shorter(entry["marker"], environments)
        of_other_builds = declared["tool"]["sft-atlas"]["torch-cpu"] if entry["pin"] == TORCH_OF_CPU_BUILDS else []
        hashes = entry["hashes"] + of_other_builds
        lines.append(entry["pin"] + (f" ; {marker}" if marker else "") + " \\")
        lines += [f"    --hash={value}" + (" \\" if value != hashes[-1] else "") for value in hashes]
        parents = ["pyproject.toml" if parent == "sft-atlas" else parent for parent in entry["via"]]
        lines += [f"    # via {parents[0]}"] if len(parents) == 1 else ["    # via", *(f"    #   {parent}" for parent in parents)]
    return "\n".join(lines) + "\n"


def conda_text(name: str, declared: dict, packages: dict[str, dict]) -> str:
    """envs/NAME.yaml: the packages that its jobs import and all that these require, with hashes, from a lock."""
    lines = [
        f"# The jobs of `{name}` under `snakemake --sdm conda`. Made by `make lock` from pyproject.toml; do not edit.",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={CONDA_PYTHON}",
    ]
    names = closure(declared["tool"]["sft-atlas"]["conda"][name], packages)
    if "reasoning-gym" in names:
        lines.append("  - pycosat=0.6.6  # for reasoning-gym; from conda-forge, because it has no wheel")
    lines += ["  - setuptools  # builds what comes as pure Python source only", "  - pip", "  - pip:"]
    for package in names:
        entry = packages[package]
        marker = f" ; {entry['marker']}" if entry["marker"] else ""
        lines += [f"      - >-\n        {entry['pin']}{marker}", *(f"        --hash={value}" for value in entry["hashes"])]
    return "\n".join(lines) + "\n"


def pixi_text(declared: dict, packages: dict[str, dict]) -> str:
    """pixi.toml: an environment with every version of the lock."""
    lines = [
        "# sft-atlas with pixi: `pixi run demo`. Made by `make lock` from pyproject.toml; do not edit.",
        "# Every version is that of envs/locks/sft-atlas.txt; pixi adds the hashes itself, in pixi.lock.",
        "",
        "[workspace]",
        f'name = "{declared["project"]["name"]}"',
        f'version = "{declared["project"]["version"]}"',
        'channels = ["conda-forge"]',
        'platforms = ["linux-64", "linux-aarch64", "osx-arm64"]',
        "",
        "[dependencies]",
        f'python = "{declared["project"]["requires-python"]}"',
        'pycosat = "0.6.6.*"  # for reasoning-gym; from conda-forge, because it has no wheel',
        "",
        "[tasks]",
        'demo = "snakemake"',
        'plan = "snakemake plan --quiet all"',
        "",
        "[pypi-dependencies]",
    ]
    linux = []
    for name, entry in packages.items():
        line = f'{name} = "=={Requirement(entry["pin"]).specifier.__str__().removeprefix("==")}"'
        if entry["marker"] == "sys_platform == 'linux'":
            linux.append(line)
        else:
            lines.append(line)
    for platform in ("linux-64", "linux-aarch64"):
        lines += ["", f"[target.{platform}.pypi-dependencies]", *linux]
    return "\n".join(lines) + "\n"


def generated(declared: dict, locks: dict[str, str]) -> dict[str, str]:
    """The files that follow from the declaration and the locks alone."""
    main, vllm = parse(locks[MAIN]), parse(locks[VLLM])
    files = {
        f"envs/{name}.yaml": conda_text(name, declared, vllm if name == "vllm" else main) for name in declared["tool"]["sft-atlas"]["conda"]
    }
    return files | {"pixi.toml": pixi_text(declared, main)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", nargs="+", default=[], metavar="NAME", help="packages that may move, or ALL")
    moving = parser.parse_args().upgrade
    declared = declaration()
    groups, everywhere = declared["dependency-groups"], declared["tool"]["uv"]["environments"]
    pins = declared["project"]["dependencies"] + [pin for name in ("slurm", "atlas", "test") for pin in groups[name]]
    known = {name_of(pin): pin for pin in [*pins, *groups["vllm"]]}

    def locked(wanted: list[str], path: str, environments: list[str], what: str, pythons: str, beside: str = "") -> str:
        """The text of a lock. ``beside``: the lock whose versions these packages go with; what it has is left out."""
        before = parse((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).exists() and "ALL" not in moving else {}
        free = {canonicalize_name(name) for name in moving} | {name_of(pin) for pin in wanted}
        there = parse(beside)
        kept = [entry["pin"] for entry in there.values()] + [
            entry["pin"] for name, entry in before.items() if name not in free | there.keys()
        ]
        answer, wheels = solve(wanted, declared, kept, environments, pythons)
        packages = {name: entry for name, entry in parse(answer).items() if name not in there}
        source = sorted(name for name in packages if not wheels[name])
        heading = [f"# {what} Made by `make lock` from pyproject.toml; do not edit.", "#"]
        heading += [f"# pip install --no-deps --no-build-isolation -r {path}     (in an environment that has setuptools)", "#"]
        if path == MAIN:
            lacking = [pin for pin in without_wheel(answer, declared) if name_of(pin) not in source]
            heading.append(f"# without a wheel for CPython {NEXT[0]}.{NEXT[1]}: {', '.join(lacking) or 'none'}")
        return lock_text(packages, source, declared, heading, environments)

    pythons = declared["project"]["requires-python"]
    apart = [known[canonicalize_name(name)] for name in declared["tool"]["sft-atlas"]["conda"]["vllm"]]
    linux = [place for place in everywhere if "linux" in place]
    locks = {
        MAIN: (main_lock := locked(pins, MAIN, everywhere, "All that `make env` installs: core, slurm, atlas and test.", pythons)),
        OPTIONAL: locked(groups["optional"], OPTIONAL, everywhere, "Beside what `make env` installs: optional.", pythons, main_lock),
        VLLM: locked(apart, VLLM, linux, f"Scoring with vLLM on Linux, CPython {CONDA_PYTHON}: envs/vllm.yaml.", f"=={CONDA_PYTHON}.*"),
    }
    for path, text in {**locks, **generated(declared, locks)}.items():
        changed = not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
        (ROOT / path).write_text(text, encoding="utf-8")
        print(f"{path}: {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    main()
