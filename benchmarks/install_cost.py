"""Install sft-atlas with `make env`, first without a cache and then with what that left in the caches of pip and uv: wall and CPU seconds.

    .venv/bin/python benchmarks/install_cost.py                              with python3
    .venv/bin/python benchmarks/install_cost.py python3.11 python3.13        with each of these Pythons
    .venv/bin/python benchmarks/install_cost.py --with pip --torch cpu       as make env INSTALLER=pip TORCH=cpu

Every installation is made in a temporary copy of this clone, and each Python starts with empty caches of its own. What pip is set up to
find on a disk (find-links, an index in a folder) it takes from there: the column `torch` names the build, not where it came from.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import ROOT, copy_workflow, machine, print_table, run

HEADER = ["Python", "installer", "torch", "caches", "wall s", "CPU s", "load before", "GiB"]


def disk_use(folder: Path) -> int:
    """Bytes that the files of a folder take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def answer(python: Path | str, code: str) -> str:
    """What a line of Python prints."""
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def install(clone: Path, caches: Path, options: list[str]) -> list:
    """Run `make env` in a clone that has no environment; the last five columns of a row."""
    kept = "none" if not caches.exists() else "of the row above"
    load = os.getloadavg()[0]
    folders = {"PIP_CACHE_DIR": str(caches / "pip"), "UV_CACHE_DIR": str(caches / "uv")}
    used = run(["make", "env", *options], cwd=clone, env=os.environ | folders)
    size = disk_use(clone / ".venv") / 2**30
    return [kept, f"{used.wall:.0f}", f"{used.cpu:.0f}", f"{load:.1f}", f"{size:.1f}"]


def rows(pythons: list[str], installer: str, torch: str) -> Iterator[list]:
    """Two rows for each Python: without caches, then with those of the first."""
    for python in pythons:
        with tempfile.TemporaryDirectory(prefix="sft-atlas-") as folder:
            clone, caches = Path(folder, "clone"), Path(folder, "caches")
            copy_workflow(clone)
            for name in ("Makefile", "pyproject.toml"):
                shutil.copy(ROOT / name, clone)
            for _ in range(2):
                shutil.rmtree(clone / ".venv", ignore_errors=True)
                measured = install(clone, caches, [f"PYTHON={shutil.which(python) or python}", f"INSTALLER={installer}", f"TORCH={torch}"])
                inside = clone / ".venv/bin/python"
                version = answer(inside, "import platform; print(platform.python_version())")
                build = answer(inside, "import importlib.metadata; print(importlib.metadata.version('torch'))")
                yield [version, installer, build, *measured]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=["python3"], metavar="PYTHON")
    parser.add_argument("--with", dest="installer", choices=("uv", "pip"), default="uv")
    parser.add_argument("--torch", default="", metavar="BUILD", help="as for make env; cpu for example")
    args = parser.parse_args()
    print(machine(), end="\n\n")
    print_table(HEADER, rows(args.pythons, args.installer, args.torch))
