"""Untrusted programs: none passes without reaching its end, none harms, none stalls."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.sandbox import Limits, Outcome, run

QUICK = Limits(cpu_seconds=1, wall_seconds=3.0)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces, seccomp and Landlock are Linux's")
OUTSIDE = Path(__file__).parent / "written-by-a-hostile-sample.txt"

HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb that swallows": "import os\nwhile True:\n    try: os.fork()\n    except Exception: pass",
    "processes": "import multiprocessing\nfor i in range(99): multiprocessing.Process(target=print).start()",
    "infinite loop": "while True: pass",
    "infinite loop that swallows": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "sleeper": "import time\ntime.sleep(60)",
    "threads": "import threading, time\nfor i in range(10**6): threading.Thread(target=time.sleep, args=(60,)).start()",
    "memory hog": "x = bytearray(10**11)",
    "memory hog in pieces": "x = []\nwhile True: x.append(bytearray(10**7))",
    "memory hog that swallows": "x = []\nwhile True:\n    try: x.append(bytearray(10**7))\n    except MemoryError: pass",
    "file writer": f"open({str(OUTSIDE)!r}, 'w').write('x')",
    "file writer elsewhere": "open('/tmp/written-by-a-hostile-sample.txt', 'w').write('x')",
    "file remover": f"import os\nos.remove({__file__!r})",
    "file mode": f"import os\nos.chmod({__file__!r}, 0o000)",
    "huge file": "with open('x', 'wb') as f:\n    while True: f.write(bytes(10**6))",
    "reader of files": "open('/etc/passwd').read()",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', PORT), timeout=1)",
    "token variable": "import os\nassert os.environ['HF_TOKEN']",
    "token of the parent": f"assert b'HF_TOKEN' in open('/proc/{os.getpid()}/environ', 'rb').read()",
    "killer of its parent": f"import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill({os.getpid()}, signal.SIGKILL)",
    "killer of all": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "killer of its group": "import os, signal\nos.killpg(0, signal.SIGKILL)",
    "huge output": "while True: print('x' * 10**6)",
    "huge output on the answer's channel": "import os\nwhile True:\n    for fd in range(3, 20):\n        try: os.write(fd, b'x' * 10**6)\n        except OSError: pass",
    "exit 0": "import sys\nsys.exit(0)",
    "hard exit 0": "import os\nos._exit(0)",
    "SystemExit swallowed around a failure": "import sys\ntry:\n    sys.exit(0)\nfinally:\n    import os; os._exit(0)",
    "claim": "print('passed')\nimport os\nos.write(1, b'[]\\n{\"key\": \"0\"}\\n')\nraise ValueError",
    "forged answers": "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'[]\\n{\"key\": \"0\"}\\n')\n    except OSError: pass\nos._exit(0)",
    "exec": "import subprocess\nsubprocess.run(['ls'], check=True)",
    "recursion": "def f(): f()\nf()",
    "crash": "import ctypes\nctypes.string_at(0)",
    "debugger": f"import ctypes\nassert ctypes.CDLL(None).ptrace(16, {os.getpid()}, 0, 0) == 0",
    "module patch": "import os, builtins\nos.write = os._exit = builtins.exec = lambda *a: None\nassert False",
}  # fmt: skip


@pytest.fixture
def port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sample_does_not_pass_harm_or_stall(name, monkeypatch, port):
    monkeypatch.setenv("HF_TOKEN", "secret")
    before, started = set(os.listdir("/tmp")), time.monotonic()
    found = run(HOSTILE[name].replace("PORT", str(port)), QUICK)
    assert not found.passed
    assert time.monotonic() - started < 60
    assert not OUTSIDE.exists() and Path(__file__).stat().st_mode & 0o400
    assert not [path for path in set(os.listdir("/tmp")) - before if "hostile" in path]


@pytest.mark.slow
@LINUX
def test_nothing_is_left_running():
    for name in ("fork bomb that swallows", "threads", "infinite loop that swallows"):
        run(HOSTILE[name], QUICK)
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if line.split()[0] == str(os.getpid()) and "jail.py" in line]


@pytest.mark.parametrize(
    "program",
    [
        "assert sorted([2, 1]) == [1, 2]",
        "import re, math, heapq, datetime, collections, itertools, functools, typing, random, hashlib, decimal, fractions",
        "open('own.txt', 'w').write('x')\nassert open('own.txt').read() == 'x'",
        "import threading\nt = threading.Thread(target=sorted, args=([2, 1],))\nt.start()\nt.join()",
        "print('x' * 100_000)\nimport sys\nsys.stderr.write('y' * 100_000)",
        "assert 'é漢' == '\\u00e9\\u6f22'\nif __name__ == '__main__': pass",
        "try:\n    raise SystemExit\nexcept SystemExit:\n    pass\nassert True",
    ],
)
def test_a_decent_program_passes(program):
    assert run(program) == Outcome(True, "passed", sandbox.missing())


@pytest.mark.parametrize(
    ("program", "reason"),
    [("assert False", "AssertionError"), ("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError"), ("import time\ntime.sleep(9)", "timeout"), ("a\0b", "not a text"), ("'\ud800'", "not a text")],
)  # fmt: skip
def test_a_failure_has_its_reason(program, reason):
    assert run(program, Limits(wall_seconds=1.0)).reason == reason


@LINUX
def test_processor_time_is_limited_before_the_wall_clock():
    assert run("while True: pass", Limits(cpu_seconds=1, wall_seconds=60.0)).reason == "killed by SIGKILL"


def test_what_the_system_does_not_allow_is_said():
    assert sandbox._judge([b'["namespaces (network, processes)"]', b'{"key": "k"}'], True, "k") == Outcome(
        True, "passed", ("namespaces (network, processes)",)
    )
    assert not sandbox._judge([b"[]", b'{"key": "other"}'], True, "k").passed
    assert sandbox._judge([], False, "k").reason == "timeout"


@LINUX
def test_without_namespaces_the_other_walls_stand():
    """A system that allows no namespaces: they are reported missing, and nothing else gives way."""
    jail = sandbox.JAIL.read_text(encoding="utf-8").replace("LIBC.unshare(NAMESPACES)", "1")
    weaker = Path(__file__).parent / "jail-without-namespaces.py"
    weaker.write_text(jail, encoding="utf-8")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sandbox, "JAIL", weaker)
            assert "namespaces (network, processes)" in run("assert True").missing
            for name in ("fork bomb", "network", "killer of its parent", "file writer", "token of the parent", "debugger"):
                assert not run(HOSTILE[name].replace("PORT", "1"), QUICK).passed, name
    finally:
        weaker.unlink()
