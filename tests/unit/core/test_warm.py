"""The warm server: a job forked from it does what a job in a fresh Python does."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import types

import pytest

from helpers.processes import alive, python, started
from helpers.waiting import HANG, until
from sft_atlas.core import warm

linux = pytest.mark.skipif(sys.platform != "linux", reason="the warm start forks, and reads /proc")
MARK = "this"  # a module that nothing else imports: it distinguishes a warm job from a cold one. It prints when it is imported.


def listening(address):
    with open("/proc/net/unix") as sockets:
        return any(line.split()[3] == "00010000" for line in sockets if line.rstrip().endswith(f" {address}"))


@contextlib.contextmanager
def serving(scripts, folder, *modules, path="", when=warm.WHEN_ASKED):
    """A running warm server: (its process, its address)."""
    address = folder / "warm.sock"
    with open(folder / "warm.log", "w") as log, warm.listen(str(address)) as listener:
        streams = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "pass_fds": [listener.fileno()]}
        environment = {"SECRET": "of the server", "PYTHONPATH": f"{scripts}:{path}"}
        with started("-m", "sft_atlas.core.warm", listener.fileno(), when, *modules, env=environment, **streams) as server:
            listener.close()
            yield server, address


@pytest.fixture(scope="module")
def address(scripts, tmp_path_factory):
    with serving(scripts, tmp_path_factory.mktemp("warm"), MARK) as (_, address):
        yield address


@pytest.fixture
def client(scripts):
    """Words and environment of a job that looks for a server at an address."""
    return lambda address, *words: ([scripts / "run.py", "train", *words], {warm.VARIABLE: str(address)})


@pytest.fixture
def run(client):
    def run(address, *words, env=(), **options):
        call, named = client(address, *words)
        return python(*call, env=named | dict(env), **options)

    return run


@linux
def test_a_job_runs_warm_where_there_is_a_server_and_cold_where_there_is_none(address, run, tmp_path):
    assert run(address, "warm").stdout == "True False\n"
    assert run("0", "warm").stdout == "False False\n"
    assert run(tmp_path / "nowhere.sock", "warm").stdout == "False False\n"


@linux
def test_a_job_leaves_no_trace_in_the_next(address, run):
    assert [run(address, "warm").stdout for _ in range(2)] == ["True False\n"] * 2


@linux
def test_a_rule_without_heavy_imports_does_not_bother_the_server(address, scripts):
    assert python(scripts / "run.py", "fetch", "warm", env={warm.VARIABLE: str(address)}).stdout == "False False\n"


@linux
@pytest.mark.parametrize(
    "what",
    [["say", "a b"], ["say", "é'$"], ["exit", "0"], ["exit", "3"], ["exit", "None"], ["exit", "'in words'"], ["exit", "''"], ["bug"], ["--no"]],
    ids=" ".join,
)  # fmt: skip
def test_a_warm_job_gives_what_a_cold_one_gives(address, run, tmp_path, what):
    results = [run(where, *what, cwd=tmp_path, env={"PROBE": "x"}) for where in (address, "0")]
    warm_one, cold_one = [(ended.returncode, ended.stdout, ended.stderr) for ended in results]
    assert warm_one == cold_one


@linux
def test_streams_environment_and_folder_are_those_of_the_client(address, run, scripts, tmp_path):
    ended = run(address, "say", cwd=tmp_path, env={"PROBE": "of the client"})
    facts = json.loads(ended.stdout)
    assert (facts["cwd"], facts["PROBE"], facts["SECRET"]) == (str(tmp_path), "of the client", None)
    assert facts["argv"] == [str(scripts / "run.py"), "train", "say"]
    assert ended.stderr == "to the other stream\n"


@linux
@pytest.mark.parametrize("how", ["ok", "mistake"])
def test_a_job_with_a_log_behaves_the_same_warm(address, run, tmp_path, how):
    results = []
    for name, where in (("warm", address), ("cold", "0")):
        (tmp_path / name).mkdir()
        ended = run(where, how, "--log", "work.log", cwd=tmp_path / name)
        log = re.sub(r"[\d,.:-]+", "0", (tmp_path / name / "work.log").read_text())  # no times
        results.append((ended.returncode, ended.stdout, ended.stderr, sorted(log.splitlines())))
    assert results[0] == results[1]
    assert results[0][0] == (how != "ok")


@linux
def test_killing_the_client_ends_the_job(address, client, run):
    call, named = client(address, "sleep")
    with started(*call, env=named, stdout=subprocess.PIPE) as waiting:
        pid = int(waiting.stdout.readline())
        assert pid != waiting.pid
        assert alive(pid)
        waiting.send_signal(signal.SIGKILL)
        until(lambda: not alive(pid))
    assert run(address, "warm").stdout == "True False\n"


@linux
def test_the_client_passes_sigterm_to_the_job_and_leaves_sigint_to_it(address, client):
    call, named = client(address, "sleep")
    with started(*call, env=named, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        pid = int(waiting.stdout.readline())
        waiting.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        assert alive(pid)
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(HANG) == 128 + signal.SIGTERM and not waiting.stderr.read()
        assert not alive(pid)


@linux
def test_a_job_that_is_killed_is_a_failure_with_a_reason(address, client):
    call, named = client(address, "sleep")
    with started(*call, env=named, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        os.kill(int(waiting.stdout.readline()), signal.SIGKILL)
        assert waiting.wait(HANG) == 137
        assert waiting.stderr.read() == "train: the job's process died without an exit code (killed, perhaps because memory ran out)\n"


@linux
def test_the_end_of_the_workflow_ends_server_and_job(scripts, client, tmp_path):
    with serving(scripts, tmp_path, MARK) as (server, address):
        call, named = client(address, "sleep")
        with started(*call, env=named, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as waiting:
            pid = int(waiting.stdout.readline())
            server.stdin.close()
            assert server.wait(HANG) == 0
            until(lambda: not alive(pid))
            assert waiting.wait(HANG) == 137
        assert not address.exists()


@linux
def test_a_server_that_must_not_fork_lets_jobs_run_cold(scripts, run, tmp_path):
    (tmp_path / "threaded.py").write_text("import threading, time; threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()")
    with serving(scripts, tmp_path, MARK, "threaded", path=tmp_path) as (server, address):
        assert run(address, "warm").stdout == "False False\n"
        assert "warm start is off: 2 threads after the imports" in (tmp_path / "warm.log").read_text()
        assert server.poll() is None


@linux
def test_a_server_that_will_be_asked_imports_at_once(scripts, run, tmp_path):
    with serving(scripts, tmp_path, MARK, when=warm.AT_ONCE) as (_, address):
        until(lambda: "Beautiful is better than ugly" in (tmp_path / "warm.log").read_text())
        assert run(address, "warm").stdout == "True False\n"


@linux
@pytest.mark.parametrize(("rules", "when"), [(["collect", "train_full"], warm.AT_ONCE), (["plot", "all"], warm.WHEN_ASKED)])
def test_a_server_is_told_whether_it_will_be_asked(tmp_path, monkeypatch, rules, when):
    calls = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: calls.append(command) or types.SimpleNamespace(pid=1, kill=lambda: None))
    monkeypatch.setenv(warm.VARIABLE, "")
    warm.start(str(tmp_path), str(tmp_path / "warm.log"), rules)
    assert calls[0][-1] == when


@linux
def test_the_workflow_starts_a_server_that_waits_without_importing(tmp_path, monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, "")
    warm.start(str(tmp_path), str(tmp_path / "warm.log"))
    try:
        address = tmp_path / f"warm-{os.getpid()}.sock"
        assert os.environ[warm.VARIABLE] == str(address)
        assert listening(address)  # at once, however long Python takes to start: a job that found no server would run cold
        with open(f"/proc/{warm.start.server.pid}/maps") as maps:
            assert "torch" not in maps.read()
        warm.start.server.stdin.close()
        assert warm.start.server.wait(HANG) == 0
        assert (tmp_path / "warm.log").read_text() == ""
    finally:
        warm.start.server.kill()


@linux
def test_a_server_that_ends_late_leaves_the_next_ones_socket_and_those_of_killed_calls_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, "")
    (tmp_path / "warm-99999999.sock").touch()  # more than the largest process id
    servers = []
    try:
        for pid in (os.getppid(), os.getpid()):  # two calls of Snakemake
            monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
            warm.start(str(tmp_path), str(tmp_path / "warm.log"))
            servers.append(warm.start.server)
        servers[0].stdin.close()
        assert servers[0].wait(HANG) == 0
        assert [path.name for path in tmp_path.glob("*.sock")] == [f"warm-{os.getpid()}.sock"]
    finally:
        for server in servers:
            server.kill()


def test_the_warm_start_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, "0")
    assert not warm.useful()
