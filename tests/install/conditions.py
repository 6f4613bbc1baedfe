"""Install sft-atlas and run a very small study under conditions in which programs tend to break.

    python tests/install/conditions.py                         all of them, with the Python that runs this
    python tests/install/conditions.py --python python3.12 --user nobody      as another user (by root only)
    python tests/install/conditions.py --venv .venv            in an environment that is there, which saves the installation
    python tests/install/conditions.py --with pip              pip installs

The folder has spaces and non-ASCII letters, the locale is C, the umask 077, the home is read-only (for root, who may write everywhere, it is
a file), and PATH has no compiler. Prints the seconds of each step; ends with 1 at the first step that fails.
"""

import argparse
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "größe  mit Leerzeichen, 数据 & (klammern)"
SMALL_STUDY = "import sys, json; sys.path.insert(0, 'tests'); from helpers.folders import small_demo; print(json.dumps(small_demo()))"
COMPILER = re.compile(r"(.*-)?(cc|gcc|g\+\+|c\+\+|c[89]9|clang(\+\+)?|ld|tcc|rustc|cargo|gfortran)(-[\d.]+)?")


def path_without_compiler(folder: Path) -> str:
    """A folder of links to the programs of PATH, except compilers."""
    folder.mkdir()
    for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in sorted(Path(place).glob("*")):
            if not COMPILER.fullmatch(program.name) and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return str(folder)


def copy_tracked(target: Path) -> None:
    """The files of this clone that git knows or would know."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file() and name != ".venv":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def environment(work: Path, user: str | None) -> dict[str, str]:
    """The variables of the run."""
    home = work / "home"
    if os.getuid() or user:
        home.mkdir()
        home.chmod(0o555)
    else:
        home.touch()
    kept = {key: value for key, value in os.environ.items() if re.match("(PIP|UV)_|SSL_|https?_proxy", key, re.IGNORECASE)}
    caches = {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"} if user else {}
    return (
        kept | caches | {"PATH": path_without_compiler(work / "bin"), "HOME": str(home), "LANG": "C", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python to install with")
    parser.add_argument("--venv", type=Path, help="use this environment; nothing is installed")
    parser.add_argument("--with", dest="installer", default="uv", choices=("uv", "pip"))
    parser.add_argument("--torch", default="", help="the build of torch, as for make env; cpu for example")
    parser.add_argument("--user", help="run as this user; root only")
    parser.add_argument("--targets", nargs="*", default=[], help="what Snakemake makes; everything if none is given")
    parser.add_argument("--dry-run", action="store_true", help="only Snakemake's dry run")
    options = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="sft-atlas-"))
    clone = work / FOLDER
    clone.mkdir()
    copy_tracked(clone)
    variables = environment(work, options.user)
    if options.user:
        account = pwd.getpwnam(options.user)
        work.chmod(0o755)
        for path in [clone, *clone.rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid)

    def as_told() -> None:
        os.umask(0o077)
        if options.user:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)

    def run(title: str, *command: str) -> str:
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=clone, env=variables, preexec_fn=as_told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        print(f"{title}: {'passed' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            print(done.stdout.decode(errors="replace")[-6000:])
            sys.exit(1)
        return done.stdout.decode(errors="replace")

    try:
        if shutil.which("cc", path=variables["PATH"]) or shutil.which("gcc", path=variables["PATH"]):
            sys.exit("there is still a compiler")
        if options.venv:
            (clone / ".venv").symlink_to(options.venv.absolute())
        else:
            run("make env", "make", "env", f"PYTHON={options.python}", f"INSTALLER={options.installer}", f"TORCH={options.torch}")
        study = run("write the study", ".venv/bin/python", "-c", SMALL_STUDY)  # as JSON, which YAML readers take
        (clone / "study.yaml").write_text(study, encoding="utf-8")
        (clone / "study.yaml").chmod(0o644)
        snakemake = [".venv/bin/snakemake", "--configfile", "study.yaml", "--cores", "2"]
        run("dry run", *snakemake, "-n", "--quiet", "rules")
        if not options.dry_run:
            run("the study", *snakemake, *options.targets)
            if "Nothing to be done" not in run("dry run after it", *snakemake, *options.targets, "-n"):
                sys.exit("results that are there would be made again")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
