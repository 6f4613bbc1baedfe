"""An OpenAI-compatible endpoint on this machine with a real model behind it, that can be told to misbehave."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY_VARIABLE = "JUDGE_TEST_KEY"  # environment variable of the key
RATINGS, IDENTIFIERS = [f"Rating: [[{number}]]" for number in range(1, 11)], ["m", "M"]


class JudgeServer(ThreadingHTTPServer):
    """``faults``: what happens to the next requests, one entry each; then answers.

    An entry is a status, a word (`hang`, `garbage`, `malformed`, `null`, `drop`), bytes that are sent as the reply's content, or a function
    that is called with the handler.
    A judgement is whichever of the possible ones the model finds most likely after the prompt's last 60 tokens.
    """

    daemon_threads = True

    def __init__(self, model, tokenizer, key="secret-key"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.tokenizer, self.key = model, tokenizer, key
        self.faults, self.bodies, self.times, self.lock = [], [], [], threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def likelihoods(self, user):
        import torch

        options = IDENTIFIERS if "Best Model Identifier" in user else RATINGS
        prompt = self.tokenizer(user)["input_ids"][-60:]
        found = {}
        for option in options:
            ids = self.tokenizer(option)["input_ids"]
            with self.lock, torch.inference_mode():
                logits = self.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
            found[option] = sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids)) / len(ids)
        return found

    def handle_error(self, request, client_address):
        """A client that went away is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.times.append(time.monotonic())
            fault = server.faults.pop(0) if server.faults else None
        if self.headers.get("Authorization") != f"Bearer {server.key}":
            return self.answer(401, {"error": f"wrong key {self.headers.get('Authorization')}"})
        if callable(fault):
            return fault(self)
        if isinstance(fault, bytes):
            return self.answer(200, fault)
        if fault == "hang":
            time.sleep(3)
        if fault == "drop":
            return self.connection.close()
        if isinstance(fault, int):
            return self.answer(
                fault, {"error": {"message": f"told to; your key is {server.key}"}}, {"Retry-After": "0.05"} if fault == 429 else {}
            )
        if fault == "garbage":
            return self.answer(200, ["not", "a", "completion"])
        found = server.likelihoods(body["messages"][-1]["content"])
        text = max(found, key=found.get)
        text = {"malformed": "I would rather not say.", "null": None}.get(fault, text)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            tokens = [{"token": option, "logprob": value} for option, value in found.items()]
            choice["logprobs"] = {"content": [{"token": text, "top_logprobs": tokens}]}
        return self.answer(200, {"choices": [choice]})

    def answer(self, status, content, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Quiet."""


@contextlib.contextmanager
def serving(model, tokenizer):
    """A running JudgeServer, stopped at the end."""
    server = JudgeServer(model, tokenizer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
