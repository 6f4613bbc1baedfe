"""An endpoint that fails in every way, and the memory of what it answered."""

import gzip
import http.server
import json
import logging
import shutil
import ssl
import subprocess
import threading
import time
import tracemalloc

import pytest

from helpers.judge_server import KEY_VARIABLE, JudgeServer
from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate import judge as judging
from sft_atlas.evaluate import judge_client
from sft_atlas.evaluate.judge_client import Memory, Reply
from sft_atlas.study.schema import Judge


def asking(judge):
    return judge_client.Endpoint(judge, wait=0.01).ask


def questions(count):
    return {f"key {i}": ("system", f"question {i}", False, 0) for i in range(count)}


def test_the_endpoint_gets_the_prompt_and_the_settings(server, judge):
    reply = asking(judge)("be fair", "how good is it?", False, 3)
    assert judging.rating(reply) is not None
    body = server.bodies[-1]
    assert body["messages"] == [{"role": "system", "content": "be fair"}, {"role": "user", "content": "how good is it?"}]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("tiny-1", 0.0, 3, 1024)


@pytest.mark.parametrize("fault", [429, 500, 503, "hang", "garbage", "drop"])
def test_a_passing_failure_is_tried_again(server, judge, fault):
    server.faults += [fault, fault]
    assert asking(judge)("s", "u", False, 0).text.startswith("Rating: [[")
    assert len(server.bodies) == 3


def test_too_many_requests_wait_as_long_as_asked(server, judge):
    server.faults.append(429)  # with Retry-After: 0.05
    asking(judge)("s", "u", False, 0)
    assert server.times[-1] - server.times[-2] >= 0.05


def test_a_request_that_never_gets_an_answer_is_unanswered(server, judge):
    server.faults += [503] * judge.retries
    with pytest.raises(judge_client.Unanswered, match="status 503"):
        asking(judge)("s", "u", False, 0)


@pytest.mark.parametrize("fault", [400, 422, "null"])
def test_a_refused_request_is_missing_and_not_asked_again(server, judge, fault):
    server.faults.append(fault)
    reply = asking(judge)("s", "u", False, 0)
    assert reply.text is None and reply.refused
    assert len(server.bodies) == 1
    assert judging.rating(reply) is None


def test_a_wrong_key_ends_the_job_without_showing_it(server, judge, monkeypatch, caplog):
    monkeypatch.setenv(KEY_VARIABLE, "another-key")
    with caplog.at_level(logging.INFO), pytest.raises(AtlasError, match="answers 401 \\(the key is not accepted\\)") as caught:
        asking(judge)("s", "u", False, 0)
    assert "another-key" not in str(caught.value) + caplog.text
    assert "***" in str(caught.value)


def test_the_key_is_never_logged_nor_stored(server, judge, tmp_path, caplog):
    server.faults += [500, 400]  # the server repeats the key in its message
    with caplog.at_level(logging.DEBUG):
        replies, _ = judge_client.ask_all(questions(3), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    said = caplog.text + (tmp_path / "state.jsonl").read_text() + str(replies)
    assert server.key not in said


def test_an_empty_key_variable_is_an_error_that_names_it(judge, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(AtlasError, match=f"environment variable {KEY_VARIABLE} is empty"):
        judge_client.Endpoint(judge)


def test_requests_keep_the_rate(server, judge):
    limited = judge.model_copy(update={"requests_per_minute": 600, "concurrency": 4})
    server.times.clear()
    ask = asking(limited)
    with judge_client.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: ask("s", f"u{i}", False, 0), range(5)))
    assert max(server.times) - min(server.times) >= 4 * 0.1 * 0.9


def test_an_answered_question_is_not_asked_again(server, judge, tmp_path):
    first, counts = judge_client.ask_all(questions(5), asking(judge), Memory(tmp_path / "state.jsonl"), 3)
    assert counts == {"asked": 5, "kept_before": 0, "unanswered": 0, "malformed_replies": 0, "refused": 0}
    server.bodies.clear()
    again, counts = judge_client.ask_all(questions(6), asking(judge), Memory(tmp_path / "state.jsonl"), 3)
    assert [body["messages"][-1]["content"] for body in server.bodies] == ["question 5"]
    assert counts["kept_before"] == 5
    assert all(again[key] == first[key] for key in first)


def test_a_job_that_gets_no_answers_fails_and_goes_on_from_there(server, judge, tmp_path):
    impatient = judge.model_copy(update={"retries": 1})
    server.faults += [None, None, 503, 503, 503]
    with pytest.raises(AtlasError, match=r"no answer to 3 of 5 questions \(the last: status 503\); 2 judgements are kept in .*run again"):
        judge_client.ask_all(questions(5), asking(impatient), Memory(tmp_path / "state.jsonl"), 1)
    server.bodies.clear()
    replies, _ = judge_client.ask_all(questions(5), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    assert len(server.bodies) == 3 and all(reply.text for reply in replies.values())


def test_a_few_time_outs_are_missing_and_asked_for_again_next_time(server, judge, tmp_path):
    impatient = judge.model_copy(update={"retries": 1})
    server.faults += [503]
    replies, counts = judge_client.ask_all(questions(30), asking(impatient), Memory(tmp_path / "state.jsonl"), 1)
    assert counts["unanswered"] == 1 and sum(reply.text is None for reply in replies.values()) == 1
    server.bodies.clear()
    _, counts = judge_client.ask_all(questions(30), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    assert (counts["asked"], counts["unanswered"]) == (1, 0)


def test_a_line_that_was_cut_off_is_asked_for_again(server, judge, tmp_path):
    path = tmp_path / "state.jsonl"
    judge_client.ask_all(questions(3), asking(judge), Memory(path), 1)
    path.write_bytes(path.read_bytes()[:-20])
    _, counts = judge_client.ask_all(questions(3), asking(judge), Memory(path), 1)
    assert counts["asked"] == 1
    assert len(Memory(path).known) == 3


# ---------------------------------------------------------------- replies that are wrong, on purpose or not


def completion(odds, text='"m"'):
    """A chat completion whose first token has the log-probabilities ``odds`` (JSON)."""
    content = f'[{{"token": "m", "top_logprobs": {odds}}}]'
    return f'{{"choices": [{{"message": {{"content": {text}}}, "logprobs": {{"content": {content}}}}}]}}'.encode()


def odds(value, token='"m"'):
    return completion(f'[{{"token": {token}, "logprob": {value}}}, {{"token": "M", "logprob": -1}}]')


MALFORMED = {
    "HTML": (b"<html>Sign in to the network</html>", "Invalid JSON"),
    "empty": (b"", "Invalid JSON"),
    "cut off": (completion("[]")[:-9], "Invalid JSON"),
    "not UTF-8": (completion("[]").replace(b"m", b"\xff"), "Invalid JSON"),
    "deep nesting": (b"[" * 100_000, "recursion limit"),
    "deep nesting in what is not used": (completion("[]")[:-1] + b', "x": ' + b"[" * 100_000, "recursion limit"),
    "a list": (b"[1]", "all of it: Input should be an object"),
    "no choices": (b"{}", "choices: Field required"),
    "empty choices": (b'{"choices": []}', "choices: List should have at least 1 item"),
    "null choices": (b'{"choices": null}', "choices: Input should be a valid array"),
    "a null choice": (b'{"choices": [null]}', "choices.0: Input should be an object"),
    "no message": (b'{"choices": [{}]}', "choices.0.message: Field required"),
    "a number as text": (completion("[]", "7"), "choices.0.message.content: Input should be a valid string"),
    "parts as text": (completion("[]", '[{"text": "m"}]'), "choices.0.message.content: Input should be a valid string"),
    "a lone surrogate": (completion("[]", r'"m \ud800 m"'), "Invalid JSON"),
    "a lone surrogate in a token": (odds(-1, r'"\udc00"'), "Invalid JSON"),
    "a null token": (odds(-1, "null"), "token: Input should be a valid string"),
    "a list as token": (odds(-1, "[]"), "token: Input should be a valid string"),
    "null odds": (odds("null"), "logprob: Input should be a valid number"),
    "odds as text": (odds('"-1"'), "logprob: Input should be a valid number"),
    "true as odds": (odds("true"), "logprob: Input should be a valid number"),
    "9999": (odds(9999), "logprob: Input should be less than"),
    "NaN": (odds("NaN"), "logprob: Input should be a finite number"),
    "-Infinity": (odds("-Infinity"), "logprob: Input should be a finite number"),
    "-1e999": (odds("-1e999"), "logprob: Input should be a finite number"),
    "a number of 6,000 digits": (odds("-" + "9" * 6000), "number out of range"),
    "a null candidate": (completion("[null]"), "top_logprobs.0: Input should be an object"),
    "odds that are no list": (completion("7"), "top_logprobs: Input should be a valid array"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_reply_is_a_missing_judgement_with_its_reason(server, judge, tmp_path, name):
    content, reason = MALFORMED[name]
    twice, path = judge.model_copy(update={"retries": 2}), tmp_path / "state.jsonl"
    server.faults += [content, content, completion("[]")]
    asked = {key: ("system", key, True, 0) for key in ("bad", "good")}
    replies, counts = judge_client.ask_all(asked, asking(twice), Memory(path), 1)
    assert replies["good"].text == "m"
    assert replies["bad"].text is None and reason in replies["bad"].refused
    assert counts["malformed_replies"] == 1 and counts["unanswered"] == counts["refused"] == 0
    assert list(Memory(path).known) == ["good"]  # and so the other is asked again
    assert judging.preference(replies["bad"], 1) is None
    assert json.loads(json.dumps(replies["bad"].refused, ensure_ascii=False).encode()) == replies["bad"].refused


def test_an_address_that_is_no_judge_is_an_error(server, judge, tmp_path):
    once = judge.model_copy(update={"retries": 1})
    server.faults += [b"<html>"] * 3
    with pytest.raises(AtlasError, match=r"none of the judge's 3 replies is a judgement \(the last: .*Invalid JSON.*is `url` its address"):
        judge_client.ask_all(questions(3), asking(once), Memory(tmp_path / "state.jsonl"), 1)


def test_log_probabilities_that_were_not_requested_are_not_read():
    assert judge_client.parse_reply(odds("NaN"), logprobs=False) == Reply("m", {})


@pytest.mark.parametrize(
    ("first", "preferred"),
    [({"m": -9999.0, "M": -9999.0}, None), ({"m": -9999.0}, None), ({"m": -0.1, "M": -9999.0}, 1.0), ({"m": -0.1}, 1.0)],
)
def test_a_token_outside_the_likely_ones_has_no_weight(first, preferred):
    pairs = json.dumps([{"token": token, "logprob": value} for token, value in first.items()])
    reply = judge_client.parse_reply(completion(pairs), logprobs=True)
    assert judging.preference(reply, 1) == preferred
    assert judging.reason_missing(preferred, reply) == ("both identifiers are too unlikely" if preferred is None else None)


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": "k", "text": "m", "first": {"m": -1}',
        b'{"key": "k", "text": "m", "first": {"m": NaN}}',
        b'{"key": "k", "text": "m", "first": {"m": 9999}}',
        b'{"key": "k", "text": null, "first": {}}',
        b'{"key": "k", "text": "\xc3',
        b"{}",
        b"[" * 100_000 + b"}",
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_damaged_line_of_the_memory_is_asked_for_again(tmp_path, caplog, line, last):
    path = tmp_path / "state.jsonl"
    Memory(path).keep("whole", Reply("m \u2028 \r", {"m": -1.0}))
    with open(path, "ab") as handle:
        handle.write(line if last else line + b"\n")
    memory = Memory(path)
    assert memory.known == {"whole": Reply("m \u2028 \r", {"m": -1.0})}
    assert "1 judgements cannot be read and are asked for again (the first: line 2)" in caplog.text
    memory.keep("k", Reply("M", {}))
    assert list(Memory(path).known) == ["whole", "k"]


def flood(handler):
    """Sends 600 MB, or as much of it as is taken."""
    handler.send_response(200)
    handler.end_headers()
    block = b" " * 2**20
    for _ in range(600):
        handler.wfile.write(block)


def test_a_reply_that_does_not_end_is_cut_off(server, judge):
    judge = judge.model_copy(update={"retries": 1, "timeout": 10})
    ask = asking(judge)
    server.faults.append(flood)
    tracemalloc.start()
    try:
        with pytest.raises(judge_client.Malformed, match=f"longer than {judge_client.reply_limit(judge)} bytes"):
            ask("s", "u", False, 0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 40 * 2**20


def test_a_reply_has_a_largest_size_for_any_number_of_tokens(judge):
    assert judge_client.reply_limit(judge) == 5 * 2**20
    assert judge_client.reply_limit(judge.model_copy(update={"max_new_tokens": 10**9})) == 2**24


def test_a_compressed_reply_is_not_unpacked(server, judge):
    server.faults.append(lambda handler: handler.answer(200, gzip.compress(bytes(2**20)), {"Content-Encoding": "gzip"}))
    with pytest.raises(judge_client.Malformed, match="compressed"):
        asking(judge.model_copy(update={"retries": 1}))("s", "u", False, 0)


def drip_content(handler):
    handler.send_response(200)
    handler.end_headers()
    drip(handler, b" " * 100)


def drip_headers(handler):
    drip(handler, b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 100)


def drip(handler, data):
    for byte in data:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("fault", [drip_content, drip_headers, "hang"])
def test_the_total_time_of_a_reply_is_bounded(server, judge, fault):
    ask = asking(judge.model_copy(update={"retries": 1, "timeout": 0.3}))
    server.faults.append(fault)
    start = time.monotonic()
    with pytest.raises(judge_client.Unanswered, match=r"no complete reply within 0\.3 s"):
        ask("s", "u", False, 0)
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("pause", ["nan", "inf", "-5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_pause_that_is_no_number_of_seconds_is_ignored(server, judge, pause):
    server.faults += [lambda handler: handler.answer(429, {}, {"Retry-After": pause}), completion("[]")]
    assert asking(judge)("s", "u", False, 0).text == "m"


# ---------------------------------------------------------------- where the key goes


@pytest.fixture
def stranger():
    """Another host: (its address, the request lines and headers that it received). It answers nothing but errors."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            received.append(f"{self.requestline}\n{self.headers}")
            self.send_error(502)

        do_GET = do_POST = do_CONNECT = answer

        def log_message(self, *_):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", received
        running.shutdown()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_the_key_stays(server, judge, stranger, status):
    address, received = stranger
    server.faults.append(lambda handler: handler.answer(status, {}, {"Location": f"{address}/v1?key={server.key}"}))
    with pytest.raises(AtlasError, match=f"redirects \\(status {status}\\) to {address}; redirects are not followed") as caught:
        asking(judge)("s", "u", False, 0)
    assert received == [] and server.key not in str(caught.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_an_unencrypted_request_takes_no_proxy(server, judge, stranger, monkeypatch, variable):
    monkeypatch.setenv(variable, stranger[0])
    server.faults.append(completion("[]"))
    assert asking(judge)("s", "u", False, 0).text == "m"
    assert stranger[1] == []


def test_an_encrypted_request_takes_the_proxy_of_the_environment_which_does_not_see_the_key(judge, stranger, monkeypatch, caplog):
    address, received = stranger
    monkeypatch.setenv("HTTPS_PROXY", address.replace("//", "//user:proxy-password@"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    far = judge.model_copy(update={"url": "https://judge.invalid/v1", "retries": 1})
    with caplog.at_level(logging.DEBUG), pytest.raises(judge_client.Unanswered, match="ProxyError: 502"):
        asking(far)("s", "u", False, 0)
    assert len(received) == 1 and received[0].startswith("CONNECT judge.invalid:443 ")
    assert "secret-key" not in received[0] + caplog.text and "proxy-password" not in caplog.text
    assert "https://judge.invalid/v1 is reached through the proxy 127.0.0.1 (HTTPS_PROXY)" in caplog.text
    monkeypatch.setenv("NO_PROXY", "judge.invalid")
    with pytest.raises(judge_client.Unanswered, match="ConnectError"):
        asking(far)("s", "u", False, 0)
    assert len(received) == 1


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) of a server named localhost that no authority has signed."""
    if not shutil.which("openssl"):
        pytest.skip("needs the program openssl")
    files = [tmp_path_factory.mktemp("tls") / name for name in ("certificate.pem", "key.pem")]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", "req", *kind, *names], check=True, capture_output=True)
    return files


@pytest.mark.parametrize("trusted", [True, False])
def test_the_key_goes_only_to_a_server_whose_certificate_is_trusted(judge, certificate, monkeypatch, trusted):
    running = JudgeServer(None, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    running.socket = context.wrap_socket(running.socket, server_side=True)
    running.faults.append(completion("[]"))
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # this machine is never reached through a proxy
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    near = judge.model_copy(update={"url": running.url.replace("http://127.0.0.1", "https://localhost"), "retries": 1, "timeout": 5})
    try:
        if trusted:
            assert asking(near)("s", "u", False, 0).text == "m"
        else:
            with pytest.raises(judge_client.Unanswered, match="certificate"):
                asking(near)("s", "u", False, 0)
            assert running.bodies == []
    finally:
        running.shutdown()
        running.server_close()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://secret@x", "http://", "http://x:port/secret"])
def test_a_proxy_that_cannot_be_used_is_an_error(judge, monkeypatch, proxy):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(
        AtlasError, match=r"HTTPS_PROXY is no http:// or https:// address; correct it, or add judge\.invalid to NO_PROXY"
    ) as caught:
        asking(judge.model_copy(update={"url": "https://judge.invalid/v1"}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["secret\n", "secret\r\nX-Other: 1", "two secrets", "sécret"])
def test_a_key_that_no_header_can_hold_is_an_error_without_it(judge, monkeypatch, key):
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(AtlasError, match=f"{KEY_VARIABLE} has a space, a line break or a non-ASCII character") as caught:
        asking(judge)
    assert "cret" not in str(caught.value)


def test_a_key_that_the_endpoint_repeats_is_not_stored(server, judge, tmp_path):
    server.faults += [completion("[]", f'"m {server.key}"'), lambda handler: handler.answer(400, ("x" * 190 + server.key).encode())]
    replies, _ = judge_client.ask_all(questions(2), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    assert replies["key 0"].text == "m ***"
    assert replies["key 1"].refused.endswith("x***")
    assert "secret" not in str(replies) + (tmp_path / "state.jsonl").read_text()


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]:8000/v1", "https://api.openai.com/v1"])
def test_a_key_goes_to_this_machine_or_encrypted(url):
    Judge(model="m", url=url, key_variable="KEY")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://judge.example/v1", "unencrypted"),
        ("http://127.0.0.1.example/v1", "unencrypted"),
        ("http://localhost.example/v1", "unencrypted"),
        ("http://0.0.0.0/v1", "unencrypted"),
        ("http://127.0.0.1@judge.example/v1", "no password"),
        ("https://me:secret@judge.example/v1", "no password"),
        ("https://judge.example/v1?key=secret", "query"),
        ("https://judge.example/v1#x", "fragment"),
        ("http://127.0.0.1\\.judge.example/v1", "backslashes"),
        ("https://judge.example/a b", "spaces"),
        ("https://judge.example/v1\n", "control"),
        ("https://[judge/v1", "and a host"),
        ("https://judge.example:port/v1", "and a host"),
        ("https://", "and a host"),
        ("file:///etc/passwd", "and a host"),
    ],
)
def test_an_address_that_would_give_the_key_away_is_refused(url, reason):
    with pytest.raises(ValueError, match=reason):
        Judge(model="m", url=url, key_variable="KEY")


def test_without_a_key_the_judge_may_be_on_another_machine():
    assert Judge(model="m", url="http://node12:8000/v1").url
