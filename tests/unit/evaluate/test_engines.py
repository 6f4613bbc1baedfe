"""Engines: the same answers and likelihoods whichever it is; a server in a process of its own; what vLLM is given; adapters on one base."""

import json
from types import SimpleNamespace

import polars as pl
import pytest

from helpers import fake_vllm
from helpers.chat import chat_tokenizer
from helpers.completions_server import VERSION, serving
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate, lm_eval_runner
from sft_atlas.evaluate.engines import hf, replicas
from sft_atlas.evaluate.engines.engine import Settings
from sft_atlas.evaluate.engines.factory import open_engine
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.study.schema import Endpoint, Template

TEMPLATE = Template().model_dump()
KEYS = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0}
WORDS = ("lemon", "quick brown fox", "a", "12 apples, that is a good deal longer than the others", "{{x}}", "red")


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("items")
    items = [{"instruction": f"Spell {word}.", "answer": word, "choices": [word, "a", "two b"], "label": 0} for word in WORDS]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    names = {"short": "generate.yaml", "pick": "choice.yaml"}
    return [BenchmarkFiles(name, ROOT / "config/benchmarks" / task, folder / "items.jsonl") for name, task in names.items()]


@pytest.fixture(scope="module")
def expected(model, tokenizer, benchmarks):
    """Scores and samples by `hf`, alone in its batch."""
    return lm_eval_runner.score(hf.transformers_adapter(model, tokenizer, 1, 256), tokenizer, benchmarks, TEMPLATE, 0)


def agree(samples, expected):
    """The samples of two engines say the same; likelihoods to rounding."""
    assert samples.drop("output").equals(expected.drop("output"))
    for one, other in zip(samples["output"], expected["output"], strict=True):
        if one != other:
            assert list(json.loads(one).values()) == pytest.approx(list(json.loads(other).values()), abs=1e-4)


def score(engine, weights, benchmarks, names=KEYS):
    return lm_eval_runner.score(engine.checkpoint(weights, names), engine.tokenizer, benchmarks, TEMPLATE, 0)[1]


# ---------------------------------------------------------------- stopping


def test_each_answer_of_a_batch_ends_at_its_own_stop_text(model, tokenizer, monkeypatch):
    """lm-eval's own criterion goes on until all answers of a batch have the same stop text."""
    adapter, steps = hf.transformers_adapter(model, tokenizer, 8, 256), []
    original = model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **settings: steps.append(1) or original(*args, **settings))
    prompts = [f"###Question: Spell {word}.\n###Answer:" for word in WORDS]

    def answers(until):
        request = [SimpleNamespace(args=(prompt, {"until": until, "max_gen_toks": 40}), task_name="x") for prompt in prompts]
        steps.clear()
        return adapter.generate_until(request), len(steps), [adapter.truncation.of(entry.args) for entry in request]

    whole, everything, truncated = answers(["never said"])
    assert everything == 40 and sum(truncated) >= len(WORDS) - 1  # one may write its end token
    firsts = [next(char for char in text[3:] if char.strip()) for text in whole]
    stops = sorted(set(firsts))  # different answers end at different texts
    cut, fewer, truncated = answers(stops)
    expected = [min((text.split(stop)[0] for stop in stops), key=len) for text in whole]
    assert len(stops) > 1 and cut == expected and fewer < 25 and not any(truncated)


@pytest.mark.parametrize("setting", ["num_beams", "repetition_penalty"])
def test_a_setting_that_continuous_batching_lacks_is_refused_by_name(model, tokenizer, setting):
    adapter = hf.adapter("hf-paged", model, tokenizer, 4, 256)
    request = SimpleNamespace(args=("a", {"until": [], "max_gen_toks": 4, setting: 2}), task_name="x")
    with pytest.raises(AtlasError, match=f"generation_kwargs.{setting}"):
        adapter.generate_until([request])


# ---------------------------------------------------------------- a server


@pytest.fixture
def by_server(base, tokenizer, benchmarks, tmp_path, run_script, tiny_base):
    """A function that scores the base model by a server, and gives samples and record."""

    def run(url, **changes):
        server = Endpoint(**{"url": url, "model": "served-{model}-{epoch}", "dtype": "float32", "retries": 2, "timeout": 20} | changes)
        SuiteFile("tasks", benchmarks).write(tmp_path / "tasks.json")
        outputs = {f"output_{kind}": tmp_path / f"{kind}/tasks.parquet" for kind in ("scores", "samples")}
        run_script(
            evaluate, **KEYS, suite=tmp_path / "tasks.json", backend="endpoint", endpoint=server.model_dump_json(), max_length=256,
            template=json.dumps(TEMPLATE), base=tiny_base, state=tmp_path / "state/tasks", **outputs,
        )  # fmt: skip
        return *(pl.read_parquet(path) for path in outputs.values()), json.loads((tmp_path / "scores/tasks.json").read_text())

    return run


@pytest.mark.parametrize("prompts", ["tokens", "text"])
def test_a_server_in_a_process_of_its_own_gives_the_same_answers_and_likelihoods(by_server, model, tokenizer, expected, prompts):
    with serving({"served-tiny-0": model}, tokenizer) as url:
        scores, samples, record = by_server(url, prompts=prompts)
    agree(samples.drop(*KEYS, "suite", "backend"), expected[1])
    assert samples.filter(benchmark="short")["truncated"].any() and not samples.filter(benchmark="short")["truncated"].all()
    assert scores.select("backend", "backend_version", "dtype").unique().row(0) == ("endpoint", f"tiny-server {VERSION}", "float32")
    assert record["endpoint"] == {
        "url": url, "version": f"tiny-server {VERSION}", "model": "served-tiny-0", "root": "/models/served-tiny-0",
    }  # fmt: skip


def test_a_server_gets_the_bos_that_the_tokenizer_adds(base):
    prompt, tokenizer = "###Question: Spell a.\n###Answer:", chat_tokenizer("llama2", adds_bos=True)
    ids = tokenizer(prompt)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    with serving({"served": None}, tokenizer, said={tokenizer.decode(ids): "a"}) as url:  # the server knows this prompt and no other
        server = Endpoint(url=url, model="served", dtype="float32", retries=1, timeout=20).model_dump()
        adapter = open_engine(Settings("endpoint", 256, 1, endpoint=server), base, tokenizer).checkpoint(None, KEYS)
        assert adapter.generate_until([SimpleNamespace(args=(prompt, {"until": ["\n"], "max_gen_toks": 4}), task_name="x")]) == ["a"]


def test_a_server_gets_the_key_of_the_environment_and_a_request_is_repeated(by_server, model, tokenizer, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("SERVER_KEY", "secret-key")
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    monkeypatch.setattr("tenacity.wait_exponential.__call__", lambda self, retry_state: 0)
    with serving({"served-tiny-0": model}, tokenizer, key="secret-key", faults=[503, 500]) as url:
        agree(by_server(url, key_variable="SERVER_KEY", retries=3, concurrency=2)[1].drop(*KEYS, "suite", "backend"), expected[1])
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4 and not any(b"secret-key" in content for content in written)


def test_what_a_server_lacks_is_said(by_server, model, tokenizer, monkeypatch):
    monkeypatch.setattr("tenacity.wait_exponential.__call__", lambda self, retry_state: 0)
    with serving({"served-tiny-0": model}, tokenizer, echo=False) as url:
        with pytest.raises(AtlasError, match=r"serves no model 'other' \(it serves served-tiny-0\); serve it, or correct `endpoint.model`"):
            by_server(url, model="other")
        with pytest.raises(AtlasError, match="likelihoods need a server with `echo` and `logprobs` of prompts"):
            by_server(url)
        with pytest.raises(AtlasError, match="the environment variable SERVER_KEY is empty"):
            by_server(url, key_variable="SERVER_KEY")
    with pytest.raises(AtlasError, match=r"/models does not answer as a server of models should \(ConnectionError\)"):
        by_server(url)


def test_a_server_that_fails_every_time_is_an_error_and_not_an_empty_answer(by_server, model, tokenizer, monkeypatch):
    monkeypatch.setattr("tenacity.wait_exponential.__call__", lambda self, retry_state: 0)
    with (
        serving({"served-tiny-0": model}, tokenizer, faults=[503] * 99) as url,
        pytest.raises(AtlasError, match="no answer after 2 attempts: 503"),
    ):
        by_server(url)


# ---------------------------------------------------------------- vLLM


def test_vllm_is_given_what_its_pinned_version_knows_and_answers_alike(base, tokenizer, benchmarks, expected, monkeypatch):
    fake_vllm.install(monkeypatch)
    engine = open_engine(Settings("vllm", 256, memory=0.5, seed=3), base, tokenizer)
    agree(score(engine, None, benchmarks), expected[1])
    (arguments,) = fake_vllm.LLM.made
    assert arguments == {
        "model": str(base.path), "tokenizer": str(base.path), "dtype": "float32", "seed": 3, "trust_remote_code": False,
        "generation_config": "vllm", "max_model_len": 256, "gpu_memory_utilization": 0.5, "enable_prefix_caching": True,
    }  # fmt: skip
    assert engine.version == f"vllm {fake_vllm.SIGNATURES['version']}"
    assert f"vllm=={fake_vllm.SIGNATURES['version']}\n" in (ROOT / "envs/vllm.yaml").read_text()


def test_each_gpu_gets_an_engine_in_a_process_of_its_own_and_a_part_of_the_requests(tmp_path, monkeypatch):
    (tmp_path / "vllm/lora").mkdir(parents=True)
    (tmp_path / "vllm/__init__.py").write_text(
        "import os\nfrom types import SimpleNamespace as N\n"
        "class LLM:\n    def __init__(self, **given): self.given = given\n"
        "    def generate(self, prompts, sampling, use_tqdm, lora_request):\n"
        "        gpu = int(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "        return [N(outputs=[N(token_ids=[*prompt['prompt_token_ids'], gpu, self.given['seed']])]) for prompt in prompts]\n"
        "SamplingParams = TokensPrompt = dict\n"
    )
    (tmp_path / "vllm/lora/__init__.py").write_text("")
    (tmp_path / "vllm/lora/request.py").write_text("LoRARequest = tuple\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    engines = replicas.Replicas({"seed": 5}, 2)
    try:
        assert engines.ask("generate", [[1], [2], [3]], {"max_tokens": 1}, None) == [[1, 4, 5], [2, 6, 5], [3, 4, 5]]
        engines.workers[1][0].kill()
        with pytest.raises(AtlasError, match="vLLM on GPU 2 of 2 ended with exit code -9"):
            engines.ask("generate", [[1], [2]], {"max_tokens": 1}, None)
    finally:
        engines.close()


def test_vllm_that_is_not_installed_is_said_with_the_way_to_install_it(base, tokenizer):
    with pytest.raises(AtlasError, match=r"`snakemake --sdm conda` installs envs/vllm.yaml"):
        open_engine(Settings("vllm", 256), base, tokenizer)
