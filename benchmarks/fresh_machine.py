"""Run `make env` and `make demo` from a clean clone on a bare Debian without a compiler, and print what each took in wall seconds.

    sudo python benchmarks/fresh_machine.py FOLDER                                      Debian 12 with its Python, which is 3.11
    sudo python benchmarks/fresh_machine.py FOLDER --suite trixie                       Debian 13 with its Python, which is 3.13
    sudo python benchmarks/fresh_machine.py FOLDER --python /opt/py312/bin/python3.12   with a Python of this machine; any number of them
    sudo python benchmarks/fresh_machine.py FOLDER --user root --targets demo test      by root; all tests too

Debian's packages (debootstrap: git, make, certificates, Python) and the clone of what is committed here are in FOLDER, and nothing is
written outside it. The clone's folder has spaces and non-ASCII letters, the locale is C, the umask 077, and the home cannot be written (for
root it is a file). The root has its own mounts and processes, which end when this script does; it shares the network, and what pip is set up
for: pip's configuration, its variables, folders of wheels, certificates. Needs root, debootstrap, 0.4 GB for Debian, and while a Python is tried
3 GB and the results, 4 GB more with CUDA. Bare systems stay in FOLDER for the next call, and logs; the roots are removed unless --keep says otherwise.
Ends with 1 if a target fails.
"""

import argparse
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness import ROOT, machine, print_table

sys.path.insert(0, str(ROOT / "tests/install"))
from conditions import COMPILER, FOLDER

MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("ca-certificates", "git", "make", "python3", "python3-venv")
LIBRARIES = {
    "bookworm": ("libffi8", "libreadline8", "libsqlite3-0", "libssl3"),
    "trixie": ("libffi8", "libreadline8t64", "libsqlite3-0", "libssl3t64"),
}
USER, UID = "newcomer", 1000
PASSED_ON = re.compile(r"(PIP|UV)_|(SSL_CERT|REQUESTS_CA|CURL_CA|GIT_SSL)|(https?|no)_proxy", re.IGNORECASE)
PASSED_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs")
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def bare_system(folder: Path, suite: str, mirror: str) -> Path:
    """The tree of a bare Debian, made once."""
    system = folder / f"debian-{suite}"
    if not system.exists():
        if not shutil.which("debootstrap"):
            sys.exit("debootstrap is not installed: apt-get install debootstrap")
        part = folder / f"debian-{suite}.part"
        shutil.rmtree(part, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES + LIBRARIES[suite])}", suite, str(part), mirror]
        with (folder / f"debootstrap-{suite}.log").open("w") as log:
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
                sys.exit(f"debootstrap failed: see {log.name}")
        part.rename(system)
    return system


def new_root(system: Path, root: Path, user: str) -> Path:
    """A copy of a bare system with a clean clone of this repository and a home that cannot be written; the path of the clone inside."""
    subprocess.run(["cp", "--archive", "--reflink=auto", str(system), str(root)], check=True)
    compilers = [name.name for folder in ("bin", "sbin") for name in (root / "usr" / folder).iterdir() if COMPILER.fullmatch(name.name)]
    if compilers:
        sys.exit(f"{root} has a compiler: {', '.join(compilers)}")
    with (root / "etc/passwd").open("a") as accounts:
        accounts.write(f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh\n")
    with (root / "etc/group").open("a") as groups:
        groups.write(f"{USER}:x:{UID}:\n")
    home, work = root / "home" / user, root / "srv" / FOLDER
    home.touch() if user == "root" else home.mkdir(mode=0o555)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(work)], check=True)
    if user != "root":
        subprocess.run(["chown", "--recursive", f"{UID}:{UID}", str(work)], check=True)
    return Path("/srv", FOLDER)


def shared(pythons: list[Path]) -> list[Path]:
    """Files and folders of this machine that are visible in the root, and cannot be written there."""
    wheels = [Path(name) for name in os.environ.get("PIP_FIND_LINKS", "").split() if name.startswith("/")]
    return [path for path in (*map(Path, PASSED_FILES), *wheels, *pythons) if path.exists()]


def inside(root: Path, visible: list[Path], user: str, folder: Path, command: list[str]) -> list[str]:
    """The command that runs ``command`` in a folder of the root, with mounts and processes of its own."""
    place = shlex.quote(str(root))
    lines = [
        "set -e",
        f"mount --bind {place} {place}",
        f"cd {place}",
        "mount --rbind /dev dev",
        "mount --rbind /sys sys",
        "mount -t proc proc proc",
    ]
    for path in visible:
        source, target = shlex.quote(str(path.resolve())), shlex.quote(str(path).lstrip("/"))
        lines += [
            f"if [ -d {source} ]; then mkdir -p {target}; else mkdir -p $(dirname {target}); rm -f {target}; touch {target}; fi",
            f"mount --bind {source} {target}",
            f"mount -o remount,bind,ro {target}",
        ]
    lines.append("chmod 755 root")  # Pythons may be below /root, also of this machine
    account = "" if user == "root" else f"setpriv --reuid={UID} --regid={UID} --clear-groups"
    lines += [  # not chroot, in which the kernel refuses the namespaces that the sandbox makes
        "mkdir -p old",
        "pivot_root . old",
        "umount -l old",
        f"cd {shlex.quote(str(folder))}",
        "umask 077",
        f"exec {account} {shlex.join(command)}",
    ]
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", "\n".join(lines)]


def timed(command: list[str], environment: dict[str, str], log: Path) -> tuple[int, float]:
    """Exit status and wall seconds of a command that prints into a file."""

    def die_with_parent() -> None:
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)

    start = time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False, preexec_fn=die_with_parent
        )
    return done.returncode, time.monotonic() - start


def rows(options: argparse.Namespace) -> Iterator[list]:
    """A row for each Python: its version, the build of torch, and the seconds of each target."""
    system = bare_system(options.folder, options.suite, options.mirror)
    environment = {key: value for key, value in os.environ.items() if PASSED_ON.match(key)}
    environment |= {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin", "HOME": f"/home/{options.user}", "LANG": "C", "LC_ALL": "C"}
    for number, python in enumerate(options.python or [None]):
        root = options.folder / f"root-{os.getpid()}-{number}"
        prefix = python and python.parents[1]
        visible = shared([prefix] if prefix else [])
        seconds = []
        try:
            clone = new_root(system, root, options.user)
            place = root / clone.relative_to("/")
            for target in ("env", *options.targets):
                command = ["make", target, *([f"PYTHON={python}"] if python else []), *options.make]
                log = options.folder / f"{python.name if python else options.suite}-{options.user}-{target}.log"
                load = os.getloadavg()[0]
                status, wall = timed(inside(root, visible, options.user, clone, command), environment, log)
                if status:
                    print(f"{' '.join(command)} ended with status {status}:\n{log.read_text(errors='replace')[-6000:]}\n{log}", flush=True)
                    sys.exit(1)
                seconds += [f"{wall:.0f}", f"{load:.1f}"]
            torch = next(place.glob(".venv/lib/python3.*/site-packages/torch-*.dist-info")).name.removesuffix(".dist-info").split("-")[1]
            version = re.search(r"^version = (.*)$", (place / ".venv/pyvenv.cfg").read_text(), re.M)[1]
            yield [f"Debian {(root / 'etc/debian_version').read_text().strip()}", version, options.user, torch, *seconds]
        finally:
            if not options.keep:
                shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where everything is written; made if it is missing")
    parser.add_argument(
        "--python", type=Path, nargs="+", help="Pythons of this machine, as prefix/bin/python3.N; without: the system's own"
    )
    parser.add_argument("--suite", choices=LIBRARIES, default="bookworm", help="the release of Debian (default: bookworm)")
    parser.add_argument("--mirror", default=MIRROR, help=f"where Debian's packages come from (default: {MIRROR})")
    parser.add_argument("--user", choices=(USER, "root"), default=USER, help=f"who runs make (default: {USER}, an ordinary user)")
    parser.add_argument("--targets", nargs="*", default=["demo"], help="of make, after env (default: demo)")
    parser.add_argument("--make", nargs="*", default=[], metavar="NAME=VALUE", help="more words for make; TORCH=cpu for example")
    parser.add_argument("--keep", action="store_true", help="keep the roots")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("only root can change into another root: sudo python benchmarks/fresh_machine.py ...")
    for python in options.python or []:
        if not os.access(python, os.X_OK) or not python.is_absolute():
            sys.exit(f"--python {python}: give the full path of a Python")
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # roots are removed then too
    print(machine(), end="\n\n")
    header = [
        "system",
        "Python",
        "user",
        "torch",
        *(word for target in ("env", *options.targets) for word in (f"`make {target}` s", "load before")),
    ]
    print_table(header, rows(options))


if __name__ == "__main__":
    main()
