"""A small hub that speaks the protocol of the model hub on this machine, and a fetch job that uses it."""

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

from helpers.tokenizer import make_tokenizer
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


@contextlib.contextmanager
def serving():
    """A running hub: the class of its handler, with its ``address``."""
    handler = type("Hub", (SmallHub,), {"seen": Counter(), "tokens": set(), "failures": 0})
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
    quick = f"import sys; sys.path.insert(0, 'workflow_scripts'); from sft_atlas.data import hub; hub.request.__defaults__ = (0.01,); hub.RETRIES = {tries}; {'' if load else unloaded}import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
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
