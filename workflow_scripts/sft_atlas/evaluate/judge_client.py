"""Query a judge: an OpenAI-compatible endpoint over HTTP, or a local model. Every reply is stored at once, so no request is paid for twice."""

import functools
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG, progress
from sft_atlas.core.retry import retry
from sft_atlas.models.base_model import end_ids
from sft_atlas.models.tokenization import prompt_ids
from sft_atlas.study.schema import Judge

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # HTTP statuses of failures that may pass
FATAL = {401: "the key is not accepted", 403: "the key may not use this model", 404: "there is no such model or address"}
MAX_WAIT = 60.0  # seconds between two tries
UNANSWERED = 0.05  # share of requests that may stay without an answer before the job fails


@dataclass(frozen=True)
class Reply:
    """A judge's reply: ``text``, or None and why it was ``refused``; ``first``: log-probabilities of candidates for the first token, if requested."""

    text: str | None
    first: dict[str, float]
    refused: str | None = None


class Unanswered(Exception):
    """A request that got no answer; ``retry_after``: seconds after which the endpoint accepts another."""

    def __init__(self, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


class Endpoint:
    """An OpenAI-compatible chat endpoint. ``wait`` is the first pause in seconds after a failure; it doubles each time."""

    def __init__(self, judge: Judge, wait: float = 1.0):
        self.judge, self.wait = judge, wait
        self.key = os.environ.get(judge.key_variable, "") if judge.key_variable else ""
        if judge.key_variable and not self.key:
            raise AtlasError(f"the environment variable {judge.key_variable} is empty; set it to the key for {judge.url}")
        self._lock, self._next = threading.Lock(), 0.0

    def ask(self, system: str, user: str, logprobs: bool, repeat: int) -> Reply:
        """One judgement. Raises Unanswered after the last try, AtlasError where the endpoint will refuse every request."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        limits = {"temperature": self.judge.temperature, "max_tokens": self.judge.max_new_tokens, "seed": repeat}
        odds = {"logprobs": True, "top_logprobs": 5} if logprobs else {}
        call = functools.partial(self._ask_once, {"model": self.judge.model, "messages": messages, **limits, **odds})
        waits = {"tries": self.judge.retries, "wait": self.wait, "longest": MAX_WAIT}
        return retry(call, "judge", **waits, passes=lambda error: isinstance(error, Unanswered), log=LOG.info)

    def _ask_once(self, body: dict) -> Reply:
        """One request. Raises Unanswered where a repetition may be answered."""
        self._take_turn()
        try:
            return _reply(self._send(body))
        except urllib.error.HTTPError as error:
            message = self._hidden(error.read(500).decode("utf-8", "replace"))
            if error.code in FATAL:
                reason = f"{error.code} ({FATAL[error.code]})"
                raise AtlasError(f"{self.judge.url} answers {reason} for the model {self.judge.model!r}: {message}") from None
            if error.code not in RETRIED:
                return Reply(None, {}, f"status {error.code}: {message[:200]}")
            raise Unanswered(f"status {error.code}", _seconds(error.headers.get("Retry-After"))) from None
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            # No connection, a time-out, or an answer that violates the protocol.
            raise Unanswered(self._hidden(f"{type(error).__name__}: {error}")) from None

    def _take_turn(self) -> None:
        """Wait until the rate limit allows one more request."""
        with self._lock:
            now = time.monotonic()
            start, self._next = max(now, self._next), max(now, self._next) + 60.0 / self.judge.requests_per_minute
        time.sleep(max(0.0, start - now))

    def _send(self, body: dict) -> dict:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.judge.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.judge.timeout) as answer:
            return json.loads(answer.read())

    def _hidden(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def _reply(answer: dict) -> Reply:
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        return Reply(None, {}, f"no text (finish_reason {choice.get('finish_reason')})")
    tokens = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs", [])
    return Reply(text, {token["token"]: float(token["logprob"]) for token in tokens})


def _seconds(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


class Local:
    """A transformers model as judge: its chat template where it has one, greedy, or sampled with the repeat as seed."""

    def __init__(self, judge: Judge, model, tokenizer):
        self.judge, self.model, self.tokenizer = judge, model, tokenizer

    def ask(self, system: str, user: str, logprobs: bool, repeat: int) -> Reply:
        """One judgement; refused where the prompt does not fit the model."""
        import torch

        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if self.tokenizer.chat_template:
            form = {"return_tensors": "pt", "return_dict": True}
            ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **form)["input_ids"]
        else:
            ids = torch.tensor(prompt_ids(self.tokenizer, [f"{system}\n\n{user}\n"]))
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest and ids.shape[1] + self.judge.max_new_tokens > longest:
            return Reply(None, {}, f"the prompt has {ids.shape[1]} tokens, the judge takes {longest} with its answer")
        torch.manual_seed(repeat)
        sampling = {"do_sample": False}
        if self.judge.temperature:  # from the whole vocabulary, as an endpoint does that is given a temperature only
            sampling = {"do_sample": True, "temperature": self.judge.temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            out = self.model.generate(
                ids.to(self.model.device), attention_mask=torch.ones_like(ids).to(self.model.device), max_new_tokens=self.judge.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id, eos_token_id=end_ids(self.model, self.tokenizer), output_scores=True, return_dict_in_generate=True, **sampling,
            )  # fmt: skip
        text = self.tokenizer.decode(out.sequences[0, ids.shape[1] :], skip_special_tokens=True)
        chances = out.scores[0][0].float().log_softmax(-1)
        tokens = {word: self.tokenizer.encode(word, add_special_tokens=False)[0] for word in ("m", "M")} if logprobs else {}
        return Reply(text, {word: chances[token].item() for word, token in tokens.items()})


class Memory:
    """Judgements by key, in a file that grows by one line per judgement and is read again after an interruption."""

    def __init__(self, path: Path):
        self.path, self._lock, self.known = path, threading.Lock(), {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").split("\n"):
                if line.endswith("}"):  # the last line of a killed job may be cut off
                    entry = json.loads(line)
                    self.known[entry["key"]] = Reply(entry["text"], entry["first"])

    def keep(self, key: str, reply: Reply) -> None:
        """Add a judgement, on disk before anything else happens."""
        line = json.dumps({"key": key, "text": reply.text, "first": reply.first}, ensure_ascii=False)
        with self._lock, open(self.path, "ab") as handle:
            if handle.tell() and not self.path.read_bytes().endswith(b"\n"):
                handle.write(b"\n")
            handle.write(line.encode() + b"\n")
            self.known[key] = reply


def ask_all(questions: dict[str, tuple], ask: Callable[..., Reply], memory: Memory, concurrency: int) -> tuple[dict, dict]:
    """Ask every question (key -> arguments of ``ask``) that is not in ``memory``; return the replies by key and counts for the provenance.

    A refused or unanswered question has a reply without text. Raises AtlasError where more than UNANSWERED of all questions got no answer:
    the answered ones are stored, and the next run asks only the others.
    """
    waiting = [key for key in questions if key not in memory.known]
    replies = {key: memory.known[key] for key in questions if key in memory.known}
    lost: dict[str, str] = {}
    LOG.info("judge: %d questions, %d already answered", len(questions), len(replies))

    def one(key: str) -> None:
        try:
            reply = ask(*questions[key])
        except Unanswered as error:
            lost[key] = str(error)
            return
        if reply.text is not None:
            memory.keep(key, reply)
        replies[key] = reply
        if len(replies) % 100 == 0:
            progress(f"judge: {len(replies)} of {len(questions)}")

    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        tasks = [pool.submit(one, key) for key in waiting]
        try:
            for task in tasks:
                task.result()
        except AtlasError:
            for task in tasks:
                task.cancel()
            raise
    if len(lost) > UNANSWERED * len(questions):
        raise AtlasError(
            f"the judge gave no answer to {len(lost)} of {len(questions)} questions (the last: {list(lost.values())[-1]}); "
            f"{len(replies)} judgements are kept in {memory.path}: run again to go on"
        )
    replies |= {key: Reply(None, {}, reason) for key, reason in lost.items()}
    counts = {"asked": len(waiting), "kept_before": len(questions) - len(waiting), "unanswered": len(lost)}
    return replies, counts | {"refused": sum(reply.text is None for reply in replies.values()) - len(lost)}
