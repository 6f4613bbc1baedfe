"""What every job relies on: outputs that appear whole, locks, logs and exit codes, provenance, and the warm start."""

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata

import polars as pl
import pytest

from sft_atlas.core import job, release_lock, warm
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, write_json, write_table
from sft_atlas.core.provenance import PACKAGES, ROOT, git_state, record_provenance, resource_usage

SCRIPTS = ROOT / "workflow_scripts"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(SCRIPTS)}


def python(*words, env=(), **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], env=ENVIRONMENT | dict(env), capture_output=True, text=True, timeout=60, **options
    )


def until(condition, seconds=20):
    """Wait for a condition; fails when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def started(*words, env=(), **options):
    """A process that is killed at the end, whatever happens."""
    process = subprocess.Popen([sys.executable, *map(str, words)], env=ENVIRONMENT | dict(env), text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- outputs


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep/er/result.txt"
    with atomic(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_text() == "new"
    assert listing(tmp_path) == ["deep", "deep/er", "deep/er/result.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["result.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "old.bin").write_text("old")
    with atomic(folder) as part:
        part.mkdir()
        (part / "new.bin").write_text("new")
        assert listing(folder) == ["old.bin"]
    assert listing(tmp_path) == ["weights", "weights/new.bin"]


def test_a_failure_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "old.bin").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(folder) as part:
        part.mkdir()
        (part / "new.bin").write_text("half")
        raise ZeroDivisionError
    assert listing(tmp_path) == ["weights", "weights/old.bin"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    code = f"import os; from sft_atlas.core.job import atomic\nwith atomic({str(path)!r}) as part: part.write_text('half'); os.kill(os.getpid(), 9)"
    assert python("-c", code).returncode == -9
    assert path.read_text() == "old"


def test_json_is_sorted_readable_and_whole(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"b": "é", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1], "b": "é"}
    assert listing(tmp_path) == ["facts.json"]


def test_a_table_is_written_whole(tmp_path):
    frame = pl.DataFrame({"score": [0.5]})
    write_table(tmp_path / "tables/scores.parquet", frame)
    assert pl.read_parquet(tmp_path / "tables/scores.parquet").equals(frame)
    assert listing(tmp_path) == ["tables", "tables/scores.parquet"]


HOLD = """
import sys, time
from pathlib import Path
from sft_atlas.job import exclusive

with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_folder_in_use_is_waited_for_and_freed_when_its_holder_is_killed(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started("-c", HOLD, tmp_path / "state", 60, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with started("-c", HOLD, tmp_path / "state", 0, **pipes) as waiting:
            assert waiting.stderr.readline() == f"{tmp_path / 'state'} is in use by another process; waiting for it to end\n"
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.3)
            holder.send_signal(signal.SIGKILL)
            assert waiting.wait(20) == 0
            assert waiting.stdout.read() == "held\n"


def test_a_folder_is_free_again_after_use(tmp_path):
    for _ in range(2):
        assert python("-c", HOLD, tmp_path / "state", 0).stdout == "held\n"


# ---------------------------------------------------------------- logs and exit codes

SCRIPT = """
import argparse, os, subprocess, sys, warnings
from sft_atlas import job

def main(args):
    if args.how == "ok":
        print("a library prints")
        subprocess.run(["echo", "a child prints"])
        warnings.warn("a library warns")
        job.progress("step 1")
        job.LOG.warning("look here")
        job.LOG.info("offline: %s", os.environ.get("HF_HUB_OFFLINE"))
    if args.how == "mistake":
        raise job.AtlasError("rows: 3 are asked for; lower `rows`")
    if args.how == "bug":
        {}["missing"]

def parser():
    p = argparse.ArgumentParser()
    p.add_argument("how")
    return p

if __name__ == "__main__":
    job.run(main, parser())
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "work.py"
    path.write_text(SCRIPT)
    return path


def test_a_job_writes_everything_to_its_log_and_shows_warnings_alone(script, tmp_path):
    log = tmp_path / "logs/work.log"
    ended = python(script, "ok", "--log", log)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "look here\n")
    text = log.read_text()
    for part in (
        f"INFO {script} ok --log {log}",
        "a library prints",
        "a child prints",
        "a library warns",
        "INFO step 1",
        "WARNING look here",
    ):
        assert part in text
    assert "INFO offline: 1" in text
    assert "peak_memory_mib" in text.splitlines()[-1]


def test_only_jobs_that_say_so_may_use_the_network(script, tmp_path):
    program = f"import sys; sys.path.insert(0, {str(script.parent)!r}); sys.argv = ['x', 'ok']; import work"
    for network, expected in ((True, "None"), (False, "1")):
        log = tmp_path / f"{network}.log"
        words = f"sys.argv += ['--log', {str(log)!r}]; work.job.run(work.main, work.parser(), network={network})"
        environment = {key: value for key, value in ENVIRONMENT.items() if key != "HF_HUB_OFFLINE"}
        subprocess.run([sys.executable, "-c", f"{program}; {words}"], env=environment, check=True, capture_output=True, timeout=60)
        assert f"INFO offline: {expected}\n" in log.read_text()


def test_a_mistake_of_the_user_is_a_message_without_traceback(script, tmp_path):
    log = tmp_path / "work.log"
    ended = python(script, "mistake", "--log", log)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: rows: 3 are asked for; lower `rows`\n"
    assert "ERROR error: rows: 3 are asked for; lower `rows`" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_an_unexpected_error_has_its_traceback_in_the_log(script, tmp_path):
    log = tmp_path / "work.log"
    ended = python(script, "bug", "--log", log)
    assert ended.returncode == 1
    for text in (ended.stderr, log.read_text()):
        assert "Traceback" in text
        assert 'line 16, in main\n    {}["missing"]' in text
        assert "KeyError: 'missing'" in text


def test_a_second_try_is_added_to_the_log(script, tmp_path):
    log = tmp_path / "work.log"
    for how in ("mistake", "ok"):
        python(script, how, "--log", log)
    assert log.read_text().index("lower `rows`") < log.read_text().index("look here")


def test_a_job_works_without_a_log(script):
    ended = python(script, "ok")
    assert ended.returncode == 0
    assert sorted(ended.stdout.splitlines()) == ["a child prints", "a library prints"]
    assert ended.stderr == "look here\n"


# ---------------------------------------------------------------- provenance


def test_provenance_says_how_a_result_came_to_be(tmp_path):
    (tmp_path / "rows.txt").write_bytes(b"abc")
    found = record_provenance({"rows": 3}, {"data": tmp_path / "rows.txt"}, device="cpu")
    assert found["settings"] == {"rows": 3}
    assert found["inputs"] == {"data": {"path": str(tmp_path / "rows.txt"), "sha256": hashlib.sha256(b"abc").hexdigest()}}
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {name: metadata.version(name) for name in PACKAGES} == {name: found["versions"][name] for name in PACKAGES}
    assert found["code"] == git_state()
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["device"] == "cpu"
    json.dumps(found)


def test_the_git_state_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "ROOT", tmp_path)
    assert git_state() == {"commit": None, "dirty": None}

    def git(*words):
        call = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert git_state() == {"commit": None, "dirty": False}
    (tmp_path / "code.py").write_text("one")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    (tmp_path / "notes.txt").write_text("untracked")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "code.py").write_text("two")
    assert git_state()["dirty"] is True


def test_usage_is_of_this_process():
    before = resource_usage()
    sum(i * i for i in range(300_000))
    assert resource_usage()["cpu_seconds"] >= before["cpu_seconds"] > 0
    assert 10 < before["peak_memory_mib"] < 100_000


# ---------------------------------------------------------------- the lock of a killed workflow


def test_no_lock_means_nothing_to_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    release_lock.main(argparse.Namespace())


def test_a_lock_is_not_released_while_snakemake_runs_here(tmp_path, monkeypatch):
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    (tmp_path / "snakemake").write_text("import time; print('up', flush=True); time.sleep(60)")
    monkeypatch.chdir(tmp_path)
    with started("snakemake", cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "up\n"
        with pytest.raises(AtlasError, match=rf"Snakemake is already running in this folder \(process {process.pid}\)"):
            release_lock.main(argparse.Namespace())


# ---------------------------------------------------------------- warm start

linux = pytest.mark.skipif(sys.platform != "linux", reason="the warm start forks, and asks /proc")
MARK = "this"  # a module that nothing else imports, which tells a warm job from a cold one, and that prints when imported

PROBE = """
import json, os, sys, time
if sys.argv[1] == "say":
    facts = {"argv": sys.argv, "cwd": os.getcwd(), "probe": os.environ.get("PROBE"), "path": sys.path[0], "name": __name__}
    print(json.dumps(facts | {"secret": os.environ.get("SECRET")}))
    print("to the other stream", file=sys.stderr)
elif sys.argv[1] == "warm":
    print("this" in sys.modules, getattr(sys, "touched", False))
    sys.touched = True
elif sys.argv[1] == "exit":
    sys.exit(eval(sys.argv[2]))
elif sys.argv[1] == "raise":
    raise ValueError("no good")
elif sys.argv[1] == "sleep":
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "probe.py"
    path.write_text(PROBE)
    return path


def listening(address):
    with open("/proc/net/unix") as sockets:
        return any(line.split()[3] == "00010000" for line in sockets if line.rstrip().endswith(f" {address}"))


@contextlib.contextmanager
def serving(folder, *modules, env=()):
    """A running warm server: (its process, its address)."""
    address = folder / "warm.sock"
    with open(folder / "warm.log", "w") as log:
        streams = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
        with started(SCRIPTS / "warm.py", "--serve", address, *modules, env={"SECRET": "of the server", **dict(env)}, **streams) as server:
            until(lambda: listening(address))
            yield server, address


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("warm"), MARK) as (_, address):
        yield address


def client(address, *words):
    return ["-S", SCRIPTS / "warm.py", *words], {"env": {warm.VARIABLE: str(address)}}


def ask(address, *words, env=(), **options):
    call, named = client(address, *words)
    return python(*call, env=named["env"] | dict(env), **options)


@linux
def test_a_job_runs_warm_where_there_is_a_server_and_cold_where_there_is_none(address, probe, tmp_path):
    assert ask(address, probe, "warm").stdout == "True False\n"
    assert ask("0", probe, "warm").stdout == "False False\n"
    assert ask(tmp_path / "nowhere.sock", probe, "warm").stdout == "False False\n"


@linux
def test_a_job_leaves_no_trace_in_the_next(address, probe):
    assert [ask(address, probe, "warm").stdout for _ in range(2)] == ["True False\n"] * 2


@linux
@pytest.mark.parametrize(
    "what", [["say", "a b", "é'$"], ["exit", "0"], ["exit", "3"], ["exit", "None"], ["exit", "'in words'"], ["exit", "''"]], ids=" ".join
)
def test_a_warm_job_gives_what_a_cold_one_gives(address, probe, tmp_path, what):
    results = [ask(where, probe, *what, cwd=tmp_path, env={"PROBE": "x"}) for where in (address, "0")]
    warm_one, cold_one = [(ended.returncode, ended.stdout, ended.stderr) for ended in results]
    assert warm_one == cold_one


@linux
def test_streams_environment_and_folder_are_those_of_the_client(address, probe, tmp_path):
    ended = ask(address, probe, "say", cwd=tmp_path, env={"PROBE": "of the client"})
    facts = json.loads(ended.stdout)
    assert (facts["cwd"], facts["probe"], facts["secret"]) == (str(tmp_path), "of the client", None)
    assert (facts["argv"], facts["path"], facts["name"]) == ([str(probe), "say"], str(probe.parent), "__main__")
    assert ended.stderr == "to the other stream\n"


@linux
def test_an_exception_of_a_warm_job_is_shown_and_exits_1(address, probe):
    ended = ask(address, probe, "raise")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("ValueError: no good\n")


@linux
@pytest.mark.parametrize("how", ["ok", "mistake"])
def test_a_job_with_a_log_behaves_the_same_warm(address, script, tmp_path, how):
    found = []
    for name, where in (("warm", address), ("cold", "0")):
        (tmp_path / name).mkdir()
        ended = ask(where, script, how, "--log", "work.log", cwd=tmp_path / name)
        log = re.sub(r"[\d,.:-]+", "0", (tmp_path / name / "work.log").read_text())  # no times
        found.append((ended.returncode, ended.stdout, ended.stderr, sorted(log.splitlines())))
    assert found[0] == found[1]
    assert found[0][0] == (how != "ok")


@linux
def test_killing_the_client_ends_the_job(address, probe):
    call, named = client(address, probe, "sleep")
    with started(*call, **named, stdout=subprocess.PIPE) as asking:
        pid = int(asking.stdout.readline())
        assert pid != asking.pid
        assert alive(pid)
        asking.send_signal(signal.SIGKILL)
        until(lambda: not alive(pid))
    assert ask(address, probe, "warm").stdout == "True False\n"


@linux
def test_a_job_that_is_killed_is_a_failure_with_a_reason(address, probe):
    call, named = client(address, probe, "sleep")
    with started(*call, **named, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        os.kill(int(asking.stdout.readline()), signal.SIGKILL)
        assert asking.wait(20) == 137
        assert asking.stderr.read() == f"{probe}: the job's process died without an exit code (killed, perhaps for want of memory)\n"


@linux
def test_the_end_of_the_workflow_ends_server_and_job(probe, tmp_path):
    with serving(tmp_path, MARK) as (server, address):
        call, named = client(address, probe, "sleep")
        with started(*call, **named, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asking:
            pid = int(asking.stdout.readline())
            server.stdin.close()
            assert server.wait(20) == 0
            until(lambda: not alive(pid))
            assert asking.wait(20) == 137
        assert not address.exists()


@linux
def test_a_server_that_must_not_fork_lets_jobs_run_cold(probe, tmp_path):
    (tmp_path / "threaded.py").write_text("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    with serving(tmp_path, MARK, "threaded", env={"PYTHONPATH": str(tmp_path)}) as (server, address):
        assert ask(address, probe, "warm").stdout == "False False\n"
        assert "warm start is off: 2 threads after the imports" in (tmp_path / "warm.log").read_text()
        assert server.poll() is None


@linux
def test_the_workflow_starts_a_server_that_waits_without_importing(tmp_path, monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, "")
    warm.start(str(tmp_path), str(tmp_path / "warm.log"))
    try:
        assert os.environ[warm.VARIABLE] == str(tmp_path / "warm.sock")
        until(lambda: listening(tmp_path / "warm.sock"))
        with open(f"/proc/{warm.start.server.pid}/maps") as maps:
            assert "torch" not in maps.read()
        warm.start.server.stdin.close()
        assert warm.start.server.wait(20) == 0
        assert (tmp_path / "warm.log").read_text() == ""
    finally:
        warm.start.server.kill()


def test_the_warm_start_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(warm.VARIABLE, "0")
    assert not warm.useful()
