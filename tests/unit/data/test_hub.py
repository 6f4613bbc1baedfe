"""Fetching from the model hub, against a small hub that speaks its protocol on this machine."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import hub, pin_revisions

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 8,
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"raise SystemExit",
    "original/consolidated.safetensors": b"the same again",
}
SECRET = "hf_a-token-that-must-not-be-seen"


class SmallHub(http.server.BaseHTTPRequestHandler):
    """One model, `team/model`; `team/gated` is gated; the first `failures` requests end with 503."""

    protocol_version = "HTTP/1.1"
    failures = 0
    seen: Counter
    tokens: set

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        kind = type(self)
        kind.seen[self.command, self.path.split("?")[0]] += 1
        kind.tokens.add(self.headers.get("Authorization"))
        if kind.failures:
            kind.failures -= 1
            return self.reply(503, b"busy", {}, body)
        if "/team/gated" in self.path:
            return self.reply(
                403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model team/gated is restricted"}, body
            )
        if "/team/model" not in self.path:
            return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, body)
        if self.path.startswith("/api/"):
            if "/revision/" in self.path and self.path.split("/revision/")[1].split("?")[0] not in ("main", COMMIT):
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, body)
            if "/tree/" in self.path:
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in FILES.items()
                ]
                return self.reply(200, json.dumps(tree).encode(), {}, body)
            info = {"id": "team/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            return self.reply(200, json.dumps(info).encode(), {}, body)
        name = self.path.split(f"/resolve/{COMMIT}/")[1].split("?")[0]
        data = FILES[name]
        return self.reply(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, body)

    def reply(self, status, data, headers, body):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def small_hub():
    handler = type("Hub", (SmallHub,), {"seen": Counter(), "tokens": set(), "failures": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()


def fetch(folder, address, repository="team/model", revision="main", tries=5, script="fetch_model", **entry):
    """The fetch job in a process of its own; its exit status, model.json and log."""
    job = [
        *(
            "workflow_scripts/run.py",
            script,
            *(["--name", "ant"] if script == "fetch_model" else []),
            "--entry",
            json.dumps({"hub": repository, "revision": revision, **entry}),
        ),
        *("--folder", str(folder / "weights"), "--output", str(folder / "model.json"), "--log", str(folder / "log")),
    ]
    quick = f"import sys; sys.path.insert(0, 'workflow_scripts'); from sft_atlas.data import hub; hub.request.__defaults__ = (0.01,); hub.RETRIES = {tries}; import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    own = {
        "HF_ENDPOINT": address,
        "HF_TOKEN": SECRET,
        "HF_HOME": str(folder / "home"),
        "PYTHONPATH": "workflow_scripts",
        "HF_HUB_DISABLE_XET": "1",
    }
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key} | own
    done = subprocess.run([sys.executable, "-c", quick, *job], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    written = folder / "model.json"
    return done.returncode, json.loads(written.read_text()) if written.exists() else None, (folder / "log").read_text() + done.stderr


def test_a_model_comes_without_pickles_code_or_second_copies_and_with_its_commit(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address)
    assert status == 0, log
    assert set(manifest["sha256"]) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert manifest["sha256"]["model.safetensors"] == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert manifest["provenance"]["settings"]["commit"] == COMMIT
    assert "revision 'main' is not a commit" in log
    assert small_hub.tokens == {f"Bearer {SECRET}"} and SECRET not in log + json.dumps(manifest)


def test_a_sentence_encoder_comes_the_same_way(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address, script="fetch_encoder")
    assert status == 0, log
    assert "model.safetensors" in manifest["sha256"] and manifest["provenance"]["settings"]["commit"] == COMMIT


def test_code_comes_along_only_where_the_study_says_so(small_hub, tmp_path):
    status, manifest, log = fetch(tmp_path, small_hub.address, revision=COMMIT, trust_remote_code=True)
    assert status == 0, log
    assert "modeling_own.py" in manifest["sha256"] and "is not a commit" not in log


def test_a_hub_that_fails_is_asked_again_and_what_is_there_is_kept(small_hub, tmp_path):
    small_hub.failures = 2
    status, _, log = fetch(tmp_path, small_hub.address)
    assert status == 0, log
    loads = {path: count for (method, path), count in small_hub.seen.items() if method == "GET" and path.endswith("model.safetensors")}
    fetch(tmp_path, small_hub.address)
    assert loads == {path: small_hub.seen["GET", path] for path in loads}, "loaded again although it was there"


@pytest.mark.parametrize(
    ("repository", "revision", "said"),
    [
        ("team/gated", "main", "the repository is gated; accept its licence at https://huggingface.co/team/gated, and set HF_TOKEN"),
        ("team/nothing", "main", "does not exist on the hub, or is private"),
        ("team/model", "v9", "does not exist on the hub, or is private"),
    ],
)
def test_what_waiting_does_not_help_is_said_at_once(small_hub, tmp_path, repository, revision, said):
    status, manifest, log = fetch(tmp_path, small_hub.address, repository, revision)
    assert status == 1 and manifest is None
    assert said in log and "Traceback" not in log and "try 2" not in log
    assert SECRET not in log


def test_a_hub_that_is_not_there_ends_with_advice(tmp_path):
    status, manifest, log = fetch(tmp_path, "http://127.0.0.1:9", revision=COMMIT, tries=1)
    assert status == 1 and manifest is None
    assert "could not be loaded from the hub after 1 tries" in log and "give `path:` a local copy" in log and "Traceback" not in log


# ---------------------------------------------------------------- waiting


class Answers:
    """Fails some times, then answers."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "loaded"


def test_a_load_is_tried_again_when_the_network_fails(caplog):
    answers = Answers(ConnectionError("reset"), TimeoutError())
    assert hub.request(answers, "dataset", "a/b", "1", wait=0) == "loaded"
    assert answers.calls == 3
    assert "dataset a/b at 1: ConnectionError; try 2 of 5" in caplog.text


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ConnectionError(), TimeoutError()], ids=repr)
def test_a_load_that_always_fails_ends_with_advice(error):
    answers = Answers(*[error] * 9)
    with pytest.raises(AtlasError) as caught:
        hub.request(answers, "dataset", "a/b", "1", wait=0)
    assert answers.calls == hub.RETRIES
    assert f"dataset a/b at 1 could not be loaded from the hub after 5 tries: {type(error).__name__}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gated_dataset_is_explained():
    from datasets.exceptions import DatasetNotFoundError

    with pytest.raises(AtlasError, match=r"gated; accept its licence at https://huggingface\.co/datasets/a/b, and set HF_TOKEN"):
        hub.request(Answers(DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")), "dataset", "a/b", "1")


def test_a_mistake_of_ours_is_not_tried_again():
    answers = Answers(ValueError("no such split"))
    with pytest.raises(ValueError, match="no such split"):
        hub.request(answers, "dataset", "a/b", "1", wait=0)
    assert answers.calls == 1


# ---------------------------------------------------------------- pinning


@pytest.mark.parametrize(
    "text",
    [
        "m: {hub: a/b, revision: main, dtype: float32}",
        "m:\n  hub: a/b\n  revision: main\n",
        'm: {label: x, hub: "a/b", revision: "main"}',
        "m: {hub: a/b, revision: main}  # main",
    ],
)
def test_a_branch_is_replaced_by_its_commit_and_nothing_else(text):
    assert pin_revisions.pin(text, "a/b", "main", COMMIT) == text.replace("revision: main", f"revision: {COMMIT}").replace(
        'revision: "main"', f'revision: "{COMMIT}"'
    )


def test_another_repository_keeps_its_branch():
    text = "m: {hub: a/b, revision: main}\nn: {hub: a/bc, revision: main}\n"
    assert "a/bc, revision: main" in pin_revisions.pin(text, "a/b", "main", COMMIT)


def test_a_revision_in_another_place_is_an_error_with_the_commit():
    with pytest.raises(AtlasError, match=f"write the commit {COMMIT} there by hand"):
        pin_revisions.pin("m: {revision: main, hub: a/b}", "a/b", "main", COMMIT)
