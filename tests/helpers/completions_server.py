"""A completions server in a process of its own, with OpenAI's protocol as vLLM speaks it, and real models behind it."""

import contextlib
import json
import multiprocessing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "1.2.3"


class Server(ThreadingHTTPServer):
    """``models``: id -> transformers model. ``settings``: `key` that is required, `faults` (statuses of the first replies), `echo` False,
    `said`: prompt -> what is written, in place of a model."""

    def __init__(self, models, tokenizer, settings):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.tokenizer, self.settings = models, tokenizer, settings

    def complete(self, ids, body):
        """One choice: greedy decoding, or the log-probabilities of the prompt as well with `echo`."""
        import torch

        if "said" in self.settings:
            text = self.settings["said"][self.tokenizer.decode(ids)]
            for stop in body.get("stop") or []:
                text = text.split(stop)[0]
            return {"text": text, "finish_reason": "stop", "logprobs": None}
        model, start, reason = self.models[body["model"]], len(ids), "length"
        if body.get("echo"):
            with torch.inference_mode():
                logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            following = [(logs[i, token].item(), logs[i]) for i, token in enumerate(ids[1:])] + [(logs[-1].max().item(), logs[-1])]
            top = [{str(row.argmax().item()): row.max().item()} for _, row in following]
            logprobs = {"token_logprobs": [None, *(value for value, _ in following)], "top_logprobs": [None, *top]}
            return {"text": "", "finish_reason": reason, "logprobs": logprobs}
        stops = body.get("stop") or []
        while len(ids) - start < body["max_tokens"]:
            with torch.inference_mode():
                ids = [*ids, model(torch.tensor([ids])).logits[0, -1].argmax().item()]
            text = self.tokenizer.decode(ids[start:], skip_special_tokens=True)
            if ids[-1] == self.tokenizer.eos_token_id or any(stop in text for stop in stops):
                reason = "stop"
                break
        text = self.tokenizer.decode(ids[start:], skip_special_tokens=True)
        for stop in stops:
            text = text.split(stop)[0]
        return {"text": text, "finish_reason": reason, "logprobs": None}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        listed = {"data": [{"id": name, "owned_by": "tiny-server", "root": f"/models/{name}"} for name in self.server.models]}
        known = {"/v1/models": listed, "/version": {"version": VERSION}}
        self.answer(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self):
        settings, body = self.server.settings, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if settings.get("key") and self.headers.get("Authorization") != f"Bearer {settings['key']}":
            return self.answer(401, {"error": "wrong key"})
        if settings.get("faults"):
            return self.answer(settings["faults"].pop(0), {"error": "busy"})
        if body.get("echo") and not settings.get("echo", True):
            body = body | {"echo": False}  # servers that do not know `echo` ignore it
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        listed = [self.server.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt for prompt in prompts]
        choices = [{"index": i, **self.server.complete(ids, body)} for i, ids in enumerate(listed)]
        return self.answer(200, {"object": "text_completion", "model": body["model"], "choices": choices})

    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        """Quiet."""


def _run(connection, models, tokenizer, settings):
    server = Server(models, tokenizer, settings)
    connection.send(server.server_address[1])
    server.serve_forever()


@contextlib.contextmanager
def serving(models, tokenizer, **settings):
    """The base URL of a server in a forked process, which ends with the block."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there, models, tokenizer, settings), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.kill()
        process.join()
