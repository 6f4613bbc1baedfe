"""Untrusted programs: none passes without being right, none harms, none stalls; and nothing runs without its protections."""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from helpers import hostile_programs
from helpers.hostile_programs import FORGING, FORGING_OTHERS, HARMFUL, TESTS
from helpers.sandboxed import LACKING, WHOLE
from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate import jail, sandbox
from sft_atlas.evaluate.sandbox import Limits, Outcome, run

QUICK = Limits(cpu_seconds=1, wall_seconds=3.0)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces, seccomp and Landlock are Linux's")
HERE = Path(__file__)
OUTSIDE = HERE.parent / "written-by-a-hostile-sample.txt"
LESSER_KERNEL = Path(hostile_programs.__file__).with_name("lesser_kernel.py")
FEATURES = {"landlock": jail.NO_LANDLOCK, "seccomp": jail.NO_SECCOMP, "namespaces": jail.NO_NAMESPACES, "tmpfs": jail.NO_QUOTA}


def filled(program: str, port: int = 1) -> str:
    """A harmful program with what it aims at."""
    values = {
        "OUTSIDE": repr(str(OUTSIDE)),
        "TEST_FILE": repr(str(HERE)),
        "PORT": port,
        "PARENT": os.getpid(),
        "BENCHMARK": repr(str(HERE)),
    }
    for name, value in values.items():
        program = program.replace(name, str(value))
    return program


def folders() -> set[str]:
    """Folders of programs that are there now."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("sft-atlas-run-")}


@pytest.fixture
def own_temporary_folder(tmp_path, monkeypatch):
    """A temporary folder in which no other test's programs have theirs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


# ---------------------------------------------------------------- passing without being right


@pytest.mark.slow
@WHOLE
@pytest.mark.parametrize("name", FORGING)
def test_no_program_passes_without_being_right(name):
    assert not run(filled(FORGING[name]), TESTS, ["f"], QUICK).passed


@pytest.mark.slow
@WHOLE
@pytest.mark.parametrize("name", FORGING_OTHERS)
def test_no_value_passes_for_another(name):
    program, tests = FORGING_OTHERS[name]
    assert not run(program, tests, ["f"], QUICK).passed


@WHOLE
def test_the_tests_that_hostile_programs_fail_can_be_passed():
    assert run("def f(x):\n    return x * 2", TESTS, ["f"]) == Outcome(True, "passed", ())


@WHOLE
def test_a_verdict_counts_only_with_the_token_of_its_run():
    assert sandbox._judge([b"[]", b'{"token": "t", "passed": true}'], "", "t", True).passed
    for verdict in (b'{"token": "other", "passed": true}', b'{"passed": true}', b"[]", b"", b'{"token": "t", "passed": 1}'):
        assert not sandbox._judge([b"[]", verdict], "", "t", True).passed
    assert sandbox._judge([b"[]"], "timeout", "t", True).reason == "timeout"


# ---------------------------------------------------------------- harm


@pytest.mark.slow
@WHOLE
@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_program_does_not_succeed_or_stall(name, monkeypatch, port, own_temporary_folder):
    monkeypatch.setenv("HF_TOKEN", "secret")
    started = time.monotonic()
    assert not run(filled(HARMFUL[name], port), limits=QUICK).passed
    assert time.monotonic() - started < 60
    assert not OUTSIDE.exists() and HERE.stat().st_mode & 0o400
    assert not list(own_temporary_folder.iterdir())


@pytest.mark.slow
@WHOLE
def test_nothing_is_left_running():
    for name in ("fork bomb that swallows", "threads", "infinite loop that swallows"):
        run(HARMFUL[name], limits=QUICK)
    listed = [each.info for each in psutil.process_iter(["ppid", "cmdline"])]  # no command: has ended, and waits to be reaped
    assert not [each for each in listed if each["ppid"] == os.getpid() and "jail.main" in " ".join(each["cmdline"] or [])]


@WHOLE
def test_the_disk_use_of_a_program_is_bounded():
    """On its own file system: what it writes above the quota fails, even if it deletes the files while they are open."""
    program = (
        "import os\nkept, size = [], 0\ntry:\n    for i in range(40):\n        kept.append(open(str(i), 'wb', 0))\n        os.remove(str(i))\n"
        "        size += kept[-1].write(bytes(10**6))\nexcept OSError: pass\n"
    )
    tests = "assert 3_000_000 < size <= 4 * 2**20"
    assert run(program, tests, ["size"], Limits(disk=4 * 2**20)).passed


@WHOLE
def test_deep_folders_leave_nothing_behind(own_temporary_folder):
    assert run("import os\nfor i in range(900):\n    os.mkdir('d', 0o700)\n    os.chdir('d')").passed
    assert run(HARMFUL["nested folders"]).reason == "OSError"
    assert not list(own_temporary_folder.iterdir())


@WHOLE
def test_processor_time_is_limited_before_the_wall_clock():
    assert run("while True: pass", limits=Limits(cpu_seconds=1, wall_seconds=60.0)).reason == "killed by SIGKILL"


# ---------------------------------------------------------------- decent programs

DECENT = {
    "standard library": ("import re, math, heapq, datetime, collections, itertools, functools, typing, random, hashlib, decimal, fractions\nx = 1", "assert x == 1"),
    "own files": ("open('own.txt', 'w').write('x')\ndef f(): return open('own.txt').read()", "assert f() == 'x'"),
    "a temporary file": ("import tempfile\ndef f():\n    with tempfile.TemporaryFile() as t: return t.write(b'abc')", "assert f() == 3"),
    "a thread": ("import threading\ndef f(x):\n    t = threading.Thread(target=x.sort)\n    t.start()\n    t.join()\n    return x", "assert f([2, 1]) == [1, 2]"),
    "much output": ("print('x' * 100_000)\nimport sys\nsys.stderr.write('y' * 100_000)\ndef f(x):\n    print(x)\n    return x", "assert f(1) == 1"),
    "main guard": ("def f(): return 'é漢'\nif __name__ == '__main__': f()", "assert f() == '\\u00e9\\u6f22'"),
    "caught exit": ("try:\n    raise SystemExit\nexcept SystemExit:\n    x = 1", "assert x"),
    "own limits": ("import resource, sys\nsys.setrecursionlimit(10**5)\nsoft, hard = resource.getrlimit(resource.RLIMIT_STACK)\nresource.setrlimit(resource.RLIMIT_STACK, (soft, hard))\nx = 1", "assert x"),
    "recursion": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(900) == 900"),
    "dataclass": ("from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: P | None = None\ndef f(): return P(1, P(2))", "assert f().y.x == 2 and f().y.y is None"),
    "plain values": ("def f(x): return x", "for x in (None, True, -1, 2**70, -2**9999, 1.5, 1e300 * 10, 'a\\ud800', '', b'\\xff', bytearray(b'a'), 1j, (), [[]], {1: (2,)}, {1}, frozenset({(1,)}), range(3), int, Ellipsis):\n    if x is not Ellipsis: assert f(x) == x and type(f(x)) is type(x), x\nassert f(float('nan')) != f(float('nan')) and str(f(-0.0)) == '-0.0'"),
    "subclasses by their content": ("from collections import Counter, OrderedDict, defaultdict, namedtuple\nfrom enum import IntEnum\nT = namedtuple('T', 'a b')\nclass E(IntEnum): A = 3\nclass S(str): pass\nd = defaultdict(list)\nd[1].append(2)\nx = [Counter('aab'), OrderedDict(a=1), d, T(1, 2), E.A, S('s')]", "assert x == [{'a': 2, 'b': 1}, {'a': 1}, {1: [2]}, (1, 2), 3, 's']"),
    "types of the standard library": ("from collections import deque\nfrom decimal import Decimal\nfrom fractions import Fraction\nfrom datetime import date, datetime, time, timedelta\nx = [deque([1]), Decimal('1.10'), Fraction(1, 3), date(2020, 1, 2), datetime(2020, 1, 2, 3), time(4), timedelta(days=2)]", "from collections import deque\nfrom decimal import Decimal\nfrom fractions import Fraction\nfrom datetime import date, datetime, time, timedelta\nassert x == [deque([1]), Decimal('1.10'), Fraction(1, 3), date(2020, 1, 2), datetime(2020, 1, 2, 3), time(4), timedelta(days=2)]"),
    "a change in place": ("def f(x): x.sort()\ndef g(d): d['a'] = {1}", "x, d = [2, 1], {}\nassert f(x) is None and x == [1, 2]\ng(d)\nassert d == {'a': {1}}"),
    "a generator": ("def f():\n    n = 0\n    while True:\n        yield n\n        n += 1", "import itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]\ng = f()\nassert next(g) == 0 and next(g) == 1"),
    "map and zip": ("def f(x): return map(str, x)\ndef g(x): return zip(x, x)", "assert list(f([1])) == ['1'] and dict(g('a')) == {'a': 'a'}"),
    "a closure": ("def f(n): return lambda x, k=1: (x + n) * k", "assert f(2)(3) == 5 and f(2)(3, k=2) == 10"),
    "a class": ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x); return self\n    def __len__(self): return len(self.items)\n    def __getitem__(self, i): return self.items[i]\n    def __str__(self): return f'Stack{self.items}'", "s = Stack()\nassert s.push(1).push(2) is s and len(s) == 2 and s[1] == 2 and str(s) == 'Stack[1, 2]' and s and not Stack()\nassert list(s) == [1, 2] and 2 in s and s.items == [1, 2]"),
    "nodes that the tests link": ("class Node:\n    def __init__(self, v): self.v, self.left = v, None\ndef f(n): return 0 if n is None else n.v + f(n.left)", "a = Node(1)\na.left = Node(2)\na.left.left = Node(3)\nassert f(a) == 6 and f([a][0].left) == 5"),
    "a function of the tests": ("def f(g, x): return [g(y) for y in x]\ndef h(it): return next(it) + sum(it)", "assert f(lambda y: y + 1, [1, 2]) == [2, 3] and f(str, [1]) == ['1']\nassert h(iter([1, 2, 3])) == 6"),
    "exceptions": ("class Own(ValueError): pass\ndef f(x):\n    if x: raise Own('no')\n    return {}['k']", "for x, kind in ((1, ValueError), (0, KeyError)):\n    try:\n        f(x)\n        raise AssertionError\n    except kind as error:\n        assert error.args[0] in ('no', 'k')"),
    "own exceptions": ("class Own(Exception): pass\nclass Other(Own): pass\ndef f(x): raise (Own if x else Other)('no')", "try:\n    f(1)\n    raise AssertionError\nexcept Own as error:\n    assert str(error) == 'no' and isinstance(error, Exception)"),
    "names and classes": ("class Node: pass\nclass Other: pass\ndef f(x): return Node()", "assert isinstance(f(1), Node) and not isinstance(3, Node) and f.__name__ == 'f'"),
    "a built-in name": ("def sum(a, b): return a - b", "assert sum(3, 1) == 2"),
}  # fmt: skip


@WHOLE
@pytest.mark.parametrize("name", DECENT)
def test_a_right_program_passes(name):
    program, tests = DECENT[name]
    names = sorted({*re.findall(r"\b(?:def|class) (\w+)", program), "x"})
    assert run(program, tests, names) == Outcome(True, "passed", ())


@WHOLE
@pytest.mark.parametrize(
    ("program", "reason"),
    [("assert False", "AssertionError"), ("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError"), ("import time\ntime.sleep(9)", "timeout"), ("a\0b", "not a text"), ("'\ud800'", "not a text"), ("class Own(Exception): pass\nraise Own", "Own"), ("import os; os._exit(0)", "ended early")],
)  # fmt: skip
def test_a_failure_has_its_reason(program, reason):
    assert run(program, limits=Limits(wall_seconds=1.0 if reason == "timeout" else 12.0)).reason == reason


@WHOLE
def test_tests_that_cannot_be_run_apart_are_an_error_and_no_zero():
    with pytest.raises(ValueError, match="the tests pass an object of type Own to the program, which cannot leave their process"):
        run("def f(x): return 1", "class Own: pass\ntry:\n    assert f(Own()) == 1\nexcept BaseException:\n    pass", ["f"])


# ---------------------------------------------------------------- systems that lack protections


def on_a_lesser_kernel(features: str, code: str, **more: object) -> str:
    """What Python prints where the kernel lacks features."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\nfrom sft_atlas.evaluate import sandbox\nfrom sft_atlas.evaluate.sandbox import Limits, run\n{code}"
    command = [sys.executable, str(LESSER_KERNEL), features, sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, **more)
    return result.stdout


ENFORCEABLE = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in jail.ARCHITECTURES or jail.NO_SECCOMP in LACKING,
    reason="another kernel is simulated with seccomp filters, which this one lacks",
)


@WHOLE
@ENFORCEABLE
@pytest.mark.parametrize("feature", FEATURES)
def test_without_a_protection_nothing_runs_and_both_remedies_are_named(feature, tmp_path):
    """The program itself is refused in the jail, whatever was checked before."""
    code = "try:\n    print(run(\"open('ran', 'w')\"))\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    code += "try:\n    sandbox.require('strict')\nexcept Exception as error:\n    print(error)"
    said = on_a_lesser_kernel(feature, code).splitlines()
    assert said[0].startswith("AtlasError this machine (") and said[1] == said[0].removeprefix("AtlasError ")
    assert FEATURES[feature] in said[0] and "nothing was run" in said[0]
    assert sandbox.REMEDIES[FEATURES[feature]] in said[0] and "Or set `sandbox: best_effort` in the study" in said[0]


@ENFORCEABLE
def test_with_best_effort_programs_run_and_what_is_missing_is_said():
    code = "print(sandbox.require('best_effort'))\nprint(run('def f(): return 2', 'assert f() == 2', ['f']))"
    said = on_a_lesser_kernel("landlock,namespaces", code).splitlines()
    lacking = (jail.NO_NAMESPACES, jail.NO_QUOTA, jail.NO_LANDLOCK)
    assert said == [str(lacking), str(Outcome(True, "passed", lacking))]


@LINUX
def test_on_another_system_than_linux_everything_is_missing(monkeypatch):
    monkeypatch.setattr(sandbox, "START", sandbox.START.replace("from sft_atlas", "sys.platform = 'darwin'; from sft_atlas"))
    assert set(sandbox.missing()) == set(FEATURES.values())
    assert run("def f(): return 2", "assert f() == 2", ["f"], policy="best_effort").passed
    with pytest.raises(AtlasError, match="nothing was run"):
        run("def f(): return 2", "assert f() == 2", ["f"], policy="strict")


@WHOLE
def test_a_warning_is_on_the_terminal_once(monkeypatch, caplog):
    monkeypatch.setattr(sandbox, "missing", lambda: (jail.NO_LANDLOCK,))
    monkeypatch.setattr(sandbox, "AGREED", sandbox.Agreed())
    with caplog.at_level("INFO"):
        assert sandbox.require("best_effort") == (jail.NO_LANDLOCK,)
        assert sandbox.require() == (jail.NO_LANDLOCK,)  # by a scoring function later
        monkeypatch.setenv(sandbox.WARNED, "1")
        monkeypatch.setattr(sandbox, "AGREED", sandbox.Agreed())
        sandbox.require("best_effort")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "runs with `sandbox: best_effort`" in caplog.text and jail.NO_LANDLOCK in caplog.text
    with pytest.raises(AtlasError, match="lacks what the sandbox"):
        sandbox.require("strict")


@pytest.mark.slow
@ENFORCEABLE
def test_without_namespaces_the_other_walls_stand(tmp_path):
    """Processes of the same user are in sight, and out of reach."""
    chosen = ("fork bomb", "network", "killer of its parent", "killer of all", "file writer", "token of the parent", "debugger")
    chosen += (
        "limits of others",
        "limits of the tests",
        "processors of others",
        "priority of others",
        "priority of the user",
        "scheduler of others",
        "shared memory",
        "outliving its parent",
    )
    programs = [filled(HARMFUL[name]) for name in chosen]
    forging = [
        FORGING[name]
        for name in (
            "/proc/PID/mem of the tests",
            "ptrace of the tests",
            "process_vm_readv",
            "pidfd_getfd",
            "kill the tests",
            "verdict by /proc of the parent",
        )
    ]
    code = f"sandbox.require('best_effort')\nfor p in {programs!r}: print(run(p, limits=Limits(cpu_seconds=1, wall_seconds=3.0)).passed)\n"
    code += f"for p in {forging!r}: print(run(p, {TESTS!r}, ['f']).passed)"
    said = on_a_lesser_kernel("namespaces", code).split()
    assert said == ["False"] * (len(programs) + len(forging))
    assert not OUTSIDE.exists()


@ENFORCEABLE
def test_without_a_quota_the_folder_is_looked_at_and_removed(tmp_path):
    """Too many bytes or too deep a tree end the program; folders that nobody may read are removed all the same."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    programs = [HARMFUL[name] + "\nimport time; time.sleep(9)" for name in ("many files", "nested folders", "folders that nobody may read")]
    programs.append("import os\nos.mkdir('d', 0o000)\nos.mkdir('e')\nopen('e/f', 'w').write('x')")
    code = f"sandbox.require('best_effort')\nfor p in {programs!r}: print(run(p, limits=Limits(wall_seconds=5.0)).reason)"
    said = on_a_lesser_kernel("tmpfs", code, env=environment).split("\n")[:4]
    assert said[:2] == ["quota", "quota"] and said[3] == "passed"
    assert not list(tmp_path.iterdir())


# Headers of the kernel: architecture -> file, and how they name numbers.
HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"#define __NR_(\w+) (\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR(?:3264)?_(\w+) (\d+)"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_system_calls_have_the_kernels_numbers(machine):
    file, pattern = HEADERS[machine]
    if not file.exists():
        pytest.skip(f"{file} is not here")
    numbers = {name: int(number) for name, number in re.findall(pattern, file.read_text())}
    column = list(jail.ARCHITECTURES).index(machine)
    ours = {name: entry[column] for name, entry in (jail.REFUSED | jail.LIMITED | {"clone": jail.CLONE, "clone3": jail.CLONE3}).items()}
    new = {"fchmodat2", "name_to_handle_at", "open_by_handle_at"}  # not in every header
    assert {
        name: number for name, number in ours.items() if numbers.get(name) != number and not (name in new and name not in numbers)
    } == {}


# ---------------------------------------------------------------- users

ANOTHER_USER = 65534


def as_another_user(code: str) -> subprocess.CompletedProcess | None:
    """Run code as the user nobody, with this Python or the system's; None where nobody may read either, or the repository."""
    code = f"import sys; sys.path[:0] = {[path for path in sys.path if 'site-packages' not in path]!r}\n{code}"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", code], user=ANOTHER_USER, group=ANOTHER_USER, capture_output=True, text=True, cwd="/", env={}
            )
        except OSError:
            continue
        if done.returncode == 0:
            return done
    return None


@pytest.mark.slow
@WHOLE
def test_an_ordinary_user_has_the_same_walls():
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; this whole run is an ordinary user's already")
    if not as_another_user("import sft_atlas.evaluate.sandbox"):
        pytest.skip("the user nobody may not read a Python of this version or the repository")
    programs = [
        (filled(HARMFUL[name]), "") for name in ("file writer", "killer of its parent", "network", "nested folders", "priority of others")
    ]
    programs += [
        (FORGING[name], TESTS) for name in ("always-equal object", "frames", "verdict on every descriptor", "/proc/PID/mem of the tests")
    ]
    code = f"from sft_atlas.evaluate.sandbox import run\nprint(run('def f(x): return x * 2', {TESTS!r}, ['f']))\n"
    code += f"for program, tests in {programs!r}: print(run(program, tests, ['f']).passed)"
    assert as_another_user(code).stdout.splitlines() == [str(Outcome(True, "passed", ())), *["False"] * len(programs)]
