"""Query a judge: an OpenAI-compatible endpoint over HTTP, or a local model. Every reply is stored at once, so no request is paid for twice."""

import asyncio
import functools
import hashlib
import json
import math
import os
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG, progress
from sft_atlas.core.retry import retry
from sft_atlas.models.base_model import end_ids
from sft_atlas.models.tokenization import prompt_ids
from sft_atlas.study.schema import Judge, is_loopback

if TYPE_CHECKING:
    import httpx2

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # HTTP statuses of failures that may pass
FATAL = {401: "the key is not accepted", 403: "the key may not use this model", 404: "there is no such model or address"}
MAX_WAIT = 60.0  # seconds between two tries
UNANSWERED = 0.05  # share of requests that may stay without an answer before the job fails
MAX_REPLY = 2**24  # bytes; see reply_limit
UNLIKELY = -9999.0  # the log-probability that OpenAI's API gives to a token outside the most likely ones
HIDDEN_KEY = 8  # shortest key, in characters, that is also hidden in judgements; a shorter one may be an ordinary word


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


class Malformed(Unanswered):
    """A request whose reply is no chat completion, or one with impossible values."""


class _Parsed(BaseModel):
    """Part of a reply. Types are strict, keys that are not used are ignored, and messages do not repeat the reply."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


# Above 0 only by rounding.
LogProbability = Annotated[float, Field(le=1e-3, allow_inf_nan=False)]


class _Candidate(_Parsed):
    token: str
    logprob: LogProbability


class _Token(_Parsed):
    top_logprobs: list[_Candidate] | None = None


class _LogProbabilities(_Parsed):
    content: list[_Token] | None = None


class _Message(_Parsed):
    content: str | None = None


class _Choice(_Parsed):
    message: _Message
    finish_reason: Any = None


class _Completion(_Parsed):
    choices: list[_Choice] = Field(min_length=1)


class _WeightedChoice(_Choice):
    logprobs: _LogProbabilities | None = None


class _WeightedCompletion(_Parsed):
    """A completion whose log-probabilities were requested."""

    choices: list[_WeightedChoice] = Field(min_length=1)


class _Kept(_Parsed):
    """A line of Memory's file."""

    key: str
    text: str
    first: dict[str, LogProbability]
    sha256: str | None = None  # of the others; none in lines of former versions

    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.key, self.text, self.first], sort_keys=True).encode()).hexdigest()


class Endpoint:
    """An OpenAI-compatible chat endpoint. ``wait`` is the first pause in seconds after a failure; it doubles each time.

    The key goes to the judge's address only: a redirect is an error. Of the proxy variables only HTTPS_PROXY and NO_PROXY are read, and
    only for an https:// address, where the proxy passes on what it cannot read.
    """

    def __init__(self, judge: Judge, wait: float = 1.0):
        import httpx2

        self.judge, self.wait = judge, wait
        self.key = os.environ.get(judge.key_variable, "") if judge.key_variable else ""
        if judge.key_variable and not self.key:
            raise AtlasError(f"the environment variable {judge.key_variable} is empty; set it to the key for {judge.url}")
        if not all("!" <= character <= "~" for character in self.key):
            raise AtlasError(
                f"the environment variable {judge.key_variable} has a space, a line break or a non-ASCII character in it; "
                f"set it to the key for {judge.url} and nothing else"
            )
        self._tls, self._proxy = httpx2.create_ssl_context(), _proxy(judge.url)
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
        import httpx2

        self._take_turn()
        try:
            status, headers, content = asyncio.run(asyncio.wait_for(self._send(body), self.judge.timeout))
        except TimeoutError:
            raise Unanswered(f"no complete reply within {self.judge.timeout} s") from None
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Unanswered(self._hidden(f"{type(error).__name__}: {error}")) from None
        if status == 200:
            return self._without_key(parse_reply(content, logprobs="logprobs" in body))
        message = self._hidden(content.decode("utf-8", "replace"))[:200]  # hidden first: a key that is cut is not recognised
        if 300 <= status < 400:
            target = urlsplit(self._hidden(headers.get("Location", "")))
            raise AtlasError(
                f"{self.judge.url} redirects (status {status}) to {target.scheme}://{target.netloc.rpartition('@')[2]}; "
                "redirects are not followed, because the key would go with them: set `url` to the judge's own address"
            )
        if status in FATAL:
            raise AtlasError(f"{self.judge.url} answers {status} ({FATAL[status]}) for the model {self.judge.model!r}: {message}")
        if status not in RETRIED:
            return Reply(None, {}, f"status {status}: {message}")
        raise Unanswered(f"status {status}", _seconds(headers.get("Retry-After")))

    def _take_turn(self) -> None:
        """Wait until the rate limit allows one more request."""
        with self._lock:
            now = time.monotonic()
            start, self._next = max(now, self._next), max(now, self._next) + 60.0 / self.judge.requests_per_minute
        time.sleep(max(0.0, start - now))

    async def _send(self, body: dict) -> tuple[int, "httpx2.Headers", bytes]:
        """(status, headers, content). Asynchronous because only so the total time has a limit: a socket's time-out begins anew with each byte."""
        import httpx2

        # Uncompressed, so that the size on the wire is the size in memory.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "sft-atlas"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        client = httpx2.AsyncClient(verify=self._tls, proxy=self._proxy, trust_env=False, follow_redirects=False, timeout=None)
        address, limit, content = f"{self.judge.url.rstrip('/')}/chat/completions", reply_limit(self.judge), bytearray()
        async with client, client.stream("POST", address, content=json.dumps(body).encode(), headers=headers) as answer:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise Malformed("the reply is compressed, which was not asked for")
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > limit:
                    raise Malformed(f"the reply is longer than {limit} bytes")
        return answer.status_code, answer.headers, bytes(content)

    def _hidden(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text

    def _without_key(self, reply: Reply) -> Reply:
        """The reply, without the key in it: an endpoint may repeat what it was sent, and replies are written to files."""
        if len(self.key) < HIDDEN_KEY or reply.text is None:
            return reply
        return Reply(self._hidden(reply.text), {self._hidden(token): value for token, value in reply.first.items()})


def reply_limit(judge: Judge) -> int:
    """Largest accepted reply in bytes: 1 MiB, and 4 KiB for each token with its log-probabilities, but at most MAX_REPLY."""
    return min(MAX_REPLY, 2**20 + 2**12 * judge.max_new_tokens)


def parse_reply(content: bytes, logprobs: bool) -> Reply:
    """A chat completion (JSON) as a Reply. Raises Malformed with the first thing that is wrong."""
    try:
        choice = (_WeightedCompletion if logprobs else _Completion).model_validate_json(content).choices[0]
    except ValidationError as error:
        raise Malformed(_complaint(error)) from None
    if choice.message.content is None:
        return Reply(None, {}, f"no text (finish_reason {str(choice.finish_reason)[:40]})")
    tokens = (choice.logprobs.content if logprobs and choice.logprobs else None) or [_Token()]
    # Two tokens may have the same text; the likelier one counts.
    return Reply(choice.message.content, {it.token: it.logprob for it in sorted(tokens[0].top_logprobs or [], key=lambda it: it.logprob)})


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong, without the reply's own words."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"the reply is no chat completion: {'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"


def _proxy(url: str) -> "httpx2.Proxy | None":
    """The proxy of HTTPS_PROXY for an https:// address that is neither on this machine nor listed in NO_PROXY."""
    import httpx2

    host = urlsplit(url).hostname or ""
    named = urllib.request.getproxies_environment().get("https")
    if not named or not url.startswith("https://") or is_loopback(host) or urllib.request.proxy_bypass_environment(host):
        return None
    try:
        proxy = httpx2.Proxy(named if "://" in named else f"http://{named}")
        usable = proxy.url.scheme in ("http", "https") and proxy.url.host
    except (ValueError, httpx2.InvalidURL):
        usable = False
    if not usable:  # the value is not repeated: it may hold a password
        raise AtlasError(f"the environment variable HTTPS_PROXY is no http:// or https:// address; correct it, or add {host} to NO_PROXY")
    LOG.info("judge: %s is reached through the proxy %s (HTTPS_PROXY)", url, proxy.url.host)
    return proxy


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


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
        first = {word: chances[token].item() for word, token in tokens.items()}
        if any(math.isnan(value) for value in first.values()):
            return Reply(None, {}, "the judge's log-probabilities are not numbers")
        return Reply(text, {word: max(value, UNLIKELY) for word, value in first.items()})


class Memory:
    """Judgements by key, in a file that grows by one line per judgement and is read again after an interruption.

    A line that cannot be read (cut off, damaged, or with impossible values) is left out, so that its question is asked again.
    """

    def __init__(self, path: Path):
        self.path, self._lock, self.known = path, threading.Lock(), {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        self._torn = lines[-1] != b""  # the last line of a killed job may be cut off
        damaged = []
        for number, line in enumerate(lines, 1):
            try:
                if line:
                    entry = _Kept.model_validate_json(line)
                    if entry.sha256 not in (None, entry.digest()):
                        raise ValueError("damaged")
                    self.known[entry.key] = Reply(entry.text, entry.first)
            except ValueError:
                damaged.append(number)
        if damaged:
            LOG.warning("%s: %d judgements cannot be read and are asked for again (the first: line %d)", path, len(damaged), damaged[0])

    def keep(self, key: str, reply: Reply) -> None:
        """Add a judgement, on disk before anything else happens."""
        entry = _Kept(key=key, text=reply.text, first=reply.first)
        entry.sha256 = entry.digest()
        line = json.dumps(entry.model_dump(), ensure_ascii=False).encode() + b"\n"
        with self._lock, open(self.path, "ab") as handle:
            handle.write(b"\n" + line if self._torn else line)
            handle.flush()
            os.fsync(handle.fileno())
            self._torn = False
            self.known[key] = reply


def ask_all(questions: dict[str, tuple], ask: Callable[..., Reply], memory: Memory, concurrency: int) -> tuple[dict, dict]:
    """Ask every question (key -> arguments of ``ask``) that is not in ``memory``; return the replies by key and counts for the provenance.

    A question that was refused, unanswered or answered by a malformed reply has a reply without text, with the reason. Raises AtlasError
    where more than UNANSWERED of all questions got no answer, or every reply was malformed: the judgements are stored, and the next run
    asks only the other questions.
    """
    waiting = [key for key in questions if key not in memory.known]
    replies = {key: memory.known[key] for key in questions if key in memory.known}
    lost: dict[str, str] = {}
    malformed: dict[str, str] = {}
    LOG.info("judge: %d questions, %d already answered", len(questions), len(replies))

    def one(key: str) -> None:
        try:
            reply = ask(*questions[key])
        except Malformed as error:
            malformed[key] = str(error)
            return
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
    if malformed and len(malformed) + len(lost) == len(questions):  # not a judge at all, such as a web page
        reason = list(malformed.values())[-1]
        raise AtlasError(f"none of the judge's {len(malformed)} replies is a judgement (the last: {reason}); is `url` its address?")
    refused = sum(reply.text is None for reply in replies.values())
    replies |= {key: Reply(None, {}, reason) for key, reason in (lost | malformed).items()}
    counts = {"asked": len(waiting), "kept_before": len(questions) - len(waiting), "unanswered": len(lost)}
    return replies, counts | {"malformed_replies": len(malformed), "refused": refused}
