"""Install what envs/locks/sft-atlas.txt lists into .venv, checked by hashes: make env

    python3 envs/install.py                  with uv, which pip installs first
    python3 envs/install.py --with pip       with pip alone
    python3 envs/install.py --torch cpu      torch from PyTorch's index of CPU builds, 200 MB instead of 3 GB with CUDA
    python3 envs/install.py --torch any      whatever torch build pip finds in the indexes that it is set up for, without a hash

Nothing is installed twice: where .venv holds what the lock lists, this ends at once. pip's own settings (index, find-links) decide on the
build of torch, and what only a CUDA build needs is left out beside a CPU build. Nothing is compiled to bytecode in advance: the first import
of a module does that. This file needs nothing but a Python, and runs on old ones far enough to say which Python is needed.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "envs", "locks", "sft-atlas.txt")
OLDEST, NEWEST = (3, 11), (3, 13)  # a test compares them with requires-python
FIRST = ("torch", "setuptools", "uv")
TORCH_INDEX = "https://download.pytorch.org/whl/"


class Problem(Exception):
    """What is wrong and what to do, in words for people."""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text):
    """Package -> {pin, marker, hashes, via} of a lock or of the answer of `uv export`. ``via`` are the packages that require it."""
    packages, entry = OrderedDict(), None
    for line in text.splitlines():
        found = re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==", line)
        if found:
            pin, _, marker = line.rstrip(" \\").partition(" ; ")
            entry = packages[canonical(found.group(1))] = {"pin": pin.strip(), "marker": marker.strip(), "hashes": [], "via": []}
        elif entry and "--hash=" in line:
            entry["hashes"].append(line.split("--hash=")[1].split()[0])
        elif entry and re.match(r" +# ( |via )", line):
            entry["via"].append(line.split()[-1])
    return packages


def closure(names, packages, without=()):
    """These packages and all that they require, except what only the packages in ``without`` require."""
    required = {}
    for name, entry in packages.items():
        for parent in entry["via"]:
            required.setdefault(canonical(parent), []).append(name)
    found, waiting = set(), [canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in packages and name not in found:
            found.add(name)
            waiting += [] if name in without else required.get(name, [])
    return sorted(found)


def needed(packages, of_torch):
    """The packages of the lock that belong beside a build of torch that requires the packages ``of_torch``."""
    declared = [name for name, entry in packages.items() if "pyproject.toml" in entry["via"]]
    return sorted(set(closure(declared, packages, without=("torch",))) | set(closure(of_torch, packages)))


def python_problem(version, implementation, lock):
    """Why this Python cannot be used, or None. ``lock``: the text of the lock, which names the pins without a wheel for the next Python."""
    here = f"this is {implementation} {version[0]}.{version[1]}.{version[2]}"
    wanted = f"sft-atlas needs CPython 3.{OLDEST[1]} to 3.{NEWEST[1]}; {here}"
    choose = f"Choose one: make env PYTHON=/path/to/python3.{NEWEST[1]}"
    if implementation != "CPython" or tuple(version[:2]) < OLDEST:
        return f"{wanted}. {choose}"
    if tuple(version[:2]) > NEWEST:
        found = re.search(r"^# without a wheel for CPython (\S+): (.*)$", lock, re.MULTILINE)
        known = found and found.group(1) == f"{version[0]}.{version[1]}" and found.group(2) != "none"
        reason = f", for which these pins have no wheel: {found.group(2)}" if known else ""
        return f"{wanted}{reason}. {choose}"
    return None


def platform_problem(system, machine):
    """Why this platform cannot be used, or None."""
    if (system, machine) in (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")):
        return None
    return f"there are no wheels of all packages for {system} on {machine}: use Linux (x86-64 or aarch64; on Windows in WSL) or macOS on Apple silicon"


def home_of(venv):
    """The other clone whose environment a link .venv leads to, or None."""
    if not os.path.islink(venv):
        return None
    clone = os.path.dirname(os.path.realpath(venv))
    return clone if os.path.exists(os.path.join(clone, "Makefile")) and not os.path.samefile(clone, ROOT) else None


def installed(python):
    """Package -> version of what an environment has."""
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'], d.version)"
    lines = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    return {canonical(line.split()[0]): line.split()[1].split("+")[0] for line in lines}


def differing(packages, have):
    """Lines for the packages that an environment lacks or has in another version. Those for CUDA may be absent."""
    lines = []
    for name in needed(packages, []):
        version = packages[name]["pin"].split("==")[1]
        if not (packages[name]["marker"] and name not in have) and have.get(name) != version:
            lines.append(f"{name} {have.get(name, 'is missing')} (locked: {version})")
    return lines


def has_cache(program, environment):
    """Whether pip or uv can write its cache; pip would warn about it with every call."""
    cache = environment.get(program.upper() + "_CACHE_DIR")
    cache = cache or os.path.join(environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), program)
    while not os.path.exists(cache) and os.path.dirname(cache) != cache:
        cache = os.path.dirname(cache)
    return os.access(cache, os.W_OK | os.X_OK)


def uv_settings(python, environment):
    """The environment variables with which uv uses the index that pip is set up for, and a cache that can be written."""
    result = dict(environment)
    command = [python, "-m", "pip", "config", "list"]
    ask = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    for line in ask.stdout.splitlines():
        key, _, value = line.partition("=")
        value = value.strip("'\"")
        if key.endswith(".index-url"):
            result.setdefault("UV_DEFAULT_INDEX", value)
        if key.endswith(".cert"):
            result.setdefault("SSL_CERT_FILE", value)
    if not has_cache("uv", environment):
        result["UV_NO_CACHE"] = "1"
    return result


def requirements(names, packages, lock):
    """The text of a requirements file with some packages of the lock."""
    lines = [line for line in lock.splitlines() if line.startswith("--")]
    for name in names:
        entry = packages[name]
        marker = " ; " + entry["marker"] if entry["marker"] else ""
        lines.append(entry["pin"] + marker + "".join(" \\\n    --hash=" + value for value in entry["hashes"]))
    return "\n".join(lines) + "\n"


def step(text, command, **options):
    """Run one command of the installation and say how long it took."""
    print(f"{text} ...", flush=True)
    start = time.time()
    ended = subprocess.run(command, check=False, **options)
    if ended.returncode:
        raise Problem(f"this failed: {' '.join(command)}")
    print(f"    {time.time() - start:.0f} s", flush=True)


def torch_build(pin, pip, report):
    """Version, such as 2.13.0+cpu, URL and, if pip knows it, SHA-256 of the torch that pip would install for the pin without hashes.

    With hashes pip prefers a file whose hash its index states to one in a folder of wheels or in an index without hashes, which would mean
    CUDA where somebody has set pip up for a CPU build.
    """
    ended = subprocess.run([*pip, "--dry-run", "--no-deps", "--ignore-installed", "--report", report, pin], check=False)
    if ended.returncode:
        raise Problem(f"pip finds no {pin}")
    with open(report, encoding="utf-8") as file:
        found = json.load(file)["install"][0]
    return (
        found["metadata"]["version"],
        found["download_info"]["url"],
        found["download_info"]["archive_info"].get("hashes", {}).get("sha256"),
    )


def create(venv, python):
    """An empty environment, unless there is a usable one."""
    inside = os.path.join(venv, "bin", "python")
    if os.path.exists(venv):
        ask = [inside, "-c", "import sys, pip; print('%d.%d' % sys.version_info[:2])"]
        try:
            version = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            print(f"{venv} does not work (was it moved, or its Python removed?) and is made anew")
        else:
            here = f"{sys.version_info[0]}.{sys.version_info[1]}"
            if version != here:
                raise Problem(f"{venv} has CPython {version}, not {here}; to change it: rm -r {venv}")
            return inside
    ended = subprocess.run(
        [python, "-m", "venv", "--clear", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ended.returncode:
        raise Problem(f"{ended.stdout.strip()}\n{python} cannot make environments; on Debian and Ubuntu: apt install python3-venv")
    return inside


def install(venv, python, installer, torch, lock):
    """Make the environment what the lock says."""
    packages = parse(lock)
    if not has_cache("pip", os.environ):
        os.environ["PIP_NO_CACHE_DIR"] = "1"
    inside = create(venv, python)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]
    uv = [os.path.join(venv, "bin", "uv"), "pip", "install", "--quiet", "--python", inside]
    checks = ["--no-deps", "--require-hashes", "--no-build-isolation"]
    settings = uv_settings(inside, os.environ) if installer == "uv" else None
    index = ["--index-url", TORCH_INDEX + torch] if torch not in (None, "any") else []
    with tempfile.TemporaryDirectory() as folder:

        def add(command, names, text):
            path = os.path.join(folder, "requirements.txt")
            with open(path, "w", encoding="utf-8") as out:
                out.write(requirements(names, packages, lock))
            step(text, [*command, *checks, "-r", path], env=settings)

        add(pip, ["uv", "setuptools"] if installer == "uv" else ["setuptools"], "pip: what installs the rest")
        if torch in (None, "cpu"):
            version, url, value = torch_build(packages["torch"]["pin"], [*pip, *index], os.path.join(folder, "report.json"))
            by_uv = installer == "uv" and f"sha256:{value}" in packages["torch"]["hashes"]
            packages["torch"]["pin"] = f"torch=={version}"
            if by_uv:  # uv unpacks it several times faster; of a file by its URL it wants the one hash that it has
                packages["torch"].update(pin=f"torch @ {url}", hashes=[f"sha256:{value}"])
            try:
                add(uv if by_uv else [*pip, *index], ["torch"], f"{'uv' if by_uv else 'pip'}: torch {version}, which pip chose")
            except Problem as problem:
                hint = "if it is a build of your own index, whose hash cannot be in the lock, and you trust it: make env TORCH=any"
                raise Problem(f"{problem}\n{hint}") from None
        else:
            step(f"pip: {packages['torch']['pin']}, without a hash", [*pip, *index, packages["torch"]["pin"]])
        rest = [name for name in needed(packages, required_by_torch(inside)) if name not in FIRST]
        add(uv if installer == "uv" else pip, rest, f"{installer}: {len(rest)} other packages")
    add_own_modules(inside)


def add_own_modules(python):
    """Let the Pythons of the environment import sft_atlas in any folder, and envs/user_cache.py when they start."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout.rstrip("\n")
    shutil.copyfile(os.path.join(ROOT, "envs", "user_cache.py"), os.path.join(place, "sft_atlas_user_cache.py"))
    with open(os.path.join(place, "sft_atlas_user_cache.pth"), "w", encoding="utf-8") as out:
        out.write("import sft_atlas_user_cache\n")
    # Relative: a clone whose .venv is a link to this environment imports its own code. In ASCII: Python 3.11 and 3.12 read this file so in the
    # locale C, and do not start if it cannot be read.
    sources = ascii(os.path.relpath(os.path.join(ROOT, "workflow_scripts"), place))
    with open(os.path.join(place, "sft_atlas.pth"), "w", encoding="ascii") as out:
        out.write(f"import os, sys; sys.path.append(os.path.normpath(os.path.join(sys._getframe(1).f_locals['sitedir'], {sources})))\n")


def required_by_torch(python):
    """The names of the packages that the installed build of torch requires."""
    code = "import importlib.metadata as m\nprint(*[r for r in m.requires('torch') or [] if 'extra ==' not in r], sep='\\n')"
    lines = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout.split("\n")
    return [re.match(r"[\w.-]+", line).group() for line in lines if line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", default=os.path.join(ROOT, ".venv"))
    parser.add_argument("--with", dest="installer", choices=("uv", "pip"), default="uv")
    parser.add_argument("--torch", metavar="BUILD", help="cpu, or another folder of PyTorch's index such as rocm7.0; or any")
    options = parser.parse_args()
    with open(LOCK, "rb") as file:
        lock = file.read().decode("utf-8")
    problem = python_problem(sys.version_info, platform.python_implementation(), lock) or platform_problem(
        platform.system(), platform.machine()
    )
    if problem:
        raise Problem(problem)
    venv = options.venv
    clone = home_of(venv)
    if clone:
        lines = differing(parse(lock), installed(os.path.join(venv, "bin", "python")))
        if lines:
            print(
                f".venv is the environment of {clone}: nothing is installed into it from here. It differs from the lock: {'; '.join(lines)}"
            )
        return
    with open(os.path.join(ROOT, "envs", "user_cache.py"), encoding="utf-8") as file:
        own = file.read()
    stamp, state = os.path.join(venv, ".installed"), hashlib.sha256((lock + repr(options.torch) + own).encode("utf-8")).hexdigest()
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            if file.read().strip() == state:
                return
    if shutil.disk_usage(ROOT).free < 3e9:
        print("less than 3 GB are free here; an environment takes 2 GB, with CUDA 6 GB")
    install(venv, sys.executable, options.installer, options.torch, lock)
    with open(stamp, "w", encoding="utf-8") as file:
        file.write(state + "\n")


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"make env: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nmake env: stopped; start it again to go on")
