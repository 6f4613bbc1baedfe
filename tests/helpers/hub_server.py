"""A small hub that speaks the protocol of the model hub on this machine, and a fetch job that uses it."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from huggingface_hub.utils.sha import git_hash

from helpers.tokenizer import make_tokenizer
from helpers.waiting import HANG
from sft_atlas.core.provenance import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiny_files() -> dict[str, bytes]:
    """The files of a model that loads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(LlamaConfig(vocab_size=320, bos_token_id=1, eos_token_id=2, **shape)).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return {name: (Path(folder) / name).read_bytes() for name in MODEL}


MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
FILES = tiny_files() | {
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"raise SystemExit",
    "original/consolidated.safetensors": b"the same again",
}


SECRET = "hf_a-token-that-must-not-be-seen"


class SmallHub(http.server.BaseHTTPRequestHandler):
    """One model, `team/model`, and those of `models`; `team/gated` is gated; the first `failures` requests end with 503.

    ``models``: files by repository; ``collections``: repositories by `owner/slug`; ``bases``: the base model on a repository's card.
    """

    protocol_version = "HTTP/1.1"
    failures = 0
    models: dict
    collections: dict
    bases: dict
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
        if "/team/locked" in self.path:
            return self.reply(401, b"{}", {}, body)
        if "/team/gated" in self.path:
            return self.reply(
                403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model team/gated is restricted"}, body
            )
        if self.path.startswith("/api/collections/"):
            slug = self.path.removeprefix("/api/collections/").split("?")[0]
            if slug not in kind.collections:
                return self.reply(404, b"{}", {}, body)
            items = [{"_id": str(i), "type": "model", "id": name, "position": i} for i, name in enumerate(kind.collections[slug])]
            about = {"slug": slug, "title": slug, "owner": {"name": "team"}, "items": items, "lastUpdated": "2026-01-01T00:00:00.000Z"}
            about |= {"position": 0, "private": False, "theme": "green", "upvotes": 0}
            return self.reply(200, json.dumps(about).encode(), {}, body)
        everything = {"team/model": FILES} | kind.models
        name = next((name for name in sorted(everything, key=len, reverse=True) if f"/{name}" in self.path), None)
        if name is None:
            return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, body)
        if self.path.startswith("/api/"):
            if "/revision/" in self.path and self.path.split("/revision/")[1].split("?")[0] not in ("main", COMMIT):
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, body)
            if "/tree/" in self.path:
                files = everything[name].items()
                tree = [{"type": "file", "path": file, "size": len(data), "oid": git_hash(data)} for file, data in files]
                return self.reply(200, json.dumps(tree).encode(), {}, body)
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in everything[name]]}
            info |= {"cardData": {"base_model": kind.bases[name]}} if name in kind.bases else {}
            return self.reply(200, json.dumps(info).encode(), {}, body)
        data = everything[name][self.path.split(f"/resolve/{COMMIT}/")[1].split("?")[0]]
        return self.reply(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, body)

    def reply(self, status, data, headers, body):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


class Spaces(SmallHub):
    """Takes uploads into Spaces of `team`: ``stored`` holds their files by name; ``created`` what was asked for; others are forbidden."""

    stored: dict
    created: list

    def do_POST(self):
        kind = type(self)
        kind.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self.json(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            kind.created.append(json.loads(body))
            if kind.created[-1].get("organization") != "team":
                return self.json(403, {"error": "You don't have the rights to create a space under the namespace"})
            return self.json(200, {"url": f"{kind.address}/spaces/team/{kind.created[-1]['name']}"})
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.json(200, {"files": files})
        for line in map(json.loads, body.splitlines()):  # /api/spaces/team/NAME/commit/main
            if line["key"] == "deletedFile":
                del kind.stored[line["value"]["path"]]
            elif line["key"] == "file":
                kind.stored[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.json(200, {"commitUrl": f"{kind.address}/spaces/team/x/commit/{COMMIT}", "commitOid": COMMIT})

    def answer(self, body):
        if "/spaces/team/" not in self.path:
            return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, body)
        if "/tree/" in self.path:
            return self.json(
                200, [{"type": "file", "path": name, "size": len(data), "oid": git_hash(data)} for name, data in type(self).stored.items()]
            )
        return self.json(200, {"id": "team/x", "sha": COMMIT, "siblings": [{"rfilename": name} for name in type(self).stored]})

    def json(self, status, value):
        return self.reply(status, json.dumps(value).encode(), {}, body=True)


@contextlib.contextmanager
def serving(kind=SmallHub):
    """A running hub: the class of its handler, with its ``address``."""
    handler = type(
        "Hub",
        (kind,),
        {"seen": Counter(), "tokens": set(), "failures": 0, "stored": {}, "created": [], "models": {}, "collections": {}, "bases": {}},
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()


def fetch(folder, address, repository="team/model", revision="main", tries=5, script="fetch_model", load=False, **entry):
    """The fetch job in a process of its own; its exit status, model.json and log. Only with ``load`` it tries whether the model loads."""
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
    unloaded = "from sft_atlas.data import fetch_model; fetch_model.check_loads = lambda *_: None; "
    # The hub's library waits between its own tries, 25 s where there is no hub.
    quick = f"import sys, time; time.sleep = lambda seconds: None; sys.path.insert(0, 'workflow_scripts'); from sft_atlas.core import hub; hub.request.__defaults__ = (0.01,); hub.RETRIES = {tries}; {'' if load else unloaded}import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    own = {
        "HF_ENDPOINT": address,
        "HF_TOKEN": SECRET,
        "HF_HOME": str(folder / "home"),
        "PYTHONPATH": "workflow_scripts",
        "HF_HUB_DISABLE_XET": "1",
    }
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key} | own
    done = subprocess.run([sys.executable, "-c", quick, *job], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG)
    written = folder / "model.json"
    return done.returncode, json.loads(written.read_text()) if written.exists() else None, (folder / "log").read_text() + done.stderr
