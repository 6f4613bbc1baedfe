"""Likelihoods of texts that share their beginnings are those of the same texts read alone, and no token is read twice."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from lm_eval.api.model import TemplateLM

from helpers.tiny import FAMILIES, config
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate
from sft_atlas.evaluate.engines import hf, tokens
from sft_atlas.evaluate.engines.likelihoods import Likelihoods, PrefixTree
from sft_atlas.evaluate.tasks import BenchmarkFiles, LengthLimit, SuiteFile
from sft_atlas.models.tokenization import prompt_ids
from sft_atlas.study.schema import Template

STORIES = Path("/work/shared/weights/stories260K")
SHOTS = "###Question: Spell lemon.\n###Answer: nomel\n\n###Question: Spell fox.\n###Answer: xof\n\n"  # longer than the windows of tests
QUESTIONS = ("Spell the quick brown fox.", "Spell the quick dog.", "Count to 9.")
OPTIONS = (" nomel", " nomel nomel", " x", " A", " B", " 12 apples, that is more than one token")


def pairs_of(tokenizer):
    """Contexts and continuations of few-shot questions with several options, tokenised as lm-eval does."""
    model = SimpleNamespace(backend="causal", tok_encode=lambda text: tokens.encode(tokenizer, text))
    return [
        TemplateLM._encode_pair(model, f"{SHOTS}###Question: {question}\n###Answer:", option)
        for question in QUESTIONS
        for option in OPTIONS
    ]


def random_model(settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(settings).eval()


def by_hand(model, pairs):
    """Each text in a forward pass of its own."""
    found = []
    for context, continuation in pairs:
        with torch.inference_mode():
            logs = model(torch.tensor([context + continuation])).logits[0].double().log_softmax(-1)[len(context) - 1 : -1]
        targets = torch.tensor(continuation)
        found.append((logs.gather(1, targets[:, None]).sum().item(), bool((logs.argmax(-1) == targets).all())))
    return found


def same(found, expected):
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5, rel=1e-6)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def distinct_beginnings(pairs):
    """Tokens to read, counted in another way: every different beginning of a text is one."""
    reads = [tuple(context + continuation)[:-1] for context, continuation in pairs]
    return len({ids[:length] for ids in reads for length in range(1, len(ids) + 1)})


WAYS = [(family, "sdpa") for family in FAMILIES if family != "gemma2"] + [("gemma2", "eager"), ("mistral", "eager"), ("gemma3", "eager")]


@pytest.mark.parametrize(("family", "attention"), WAYS)
def test_shared_beginnings_change_no_likelihood_and_are_read_once(tiny_tokenizer, family, attention):
    model, pairs = random_model(config(family)), pairs_of(tiny_tokenizer)
    model.set_attn_implementation(attention)
    expected = by_hand(model, pairs)
    assert min(len(context) for context, _ in pairs) > 24  # the window of those that slide
    for pack in (10_000, 7):  # one forward pass; many, with keys and values that are kept
        read = Likelihoods(model, 250, 0, pack)
        same(read.of(pairs), expected)
        assert read.reason is None
        assert read.tokens == {"computed": distinct_beginnings(pairs), "without_sharing": sum(len(a + b) - 1 for a, b in pairs)}
        assert read.tokens["computed"] * 5 < read.tokens["without_sharing"]


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs /work/shared/weights")
def test_a_trained_model_with_its_own_tokenizer_gives_the_same():
    tokenizer = transformers.AutoTokenizer.from_pretrained(STORIES)
    model = transformers.AutoModelForCausalLM.from_pretrained(STORIES, dtype="float32").eval()
    pairs = pairs_of(tokenizer)
    expected = by_hand(model, pairs)
    for pack in (10_000, 50):
        read = Likelihoods(model, 500, 0, pack)
        same(read.of(pairs), expected)
        assert read.tokens["computed"] == distinct_beginnings(pairs)


def test_options_of_one_token_come_from_one_row_of_logits(tiny_tokenizer):
    context = prompt_ids(tiny_tokenizer, ["###Question: Which?\n###Answer:"])[0]
    tree = PrefixTree([(context, [token]) for token in (10, 11, 12, 13)], 250)
    assert tree.ids == context and {node for node, _, _ in tree.wanted} == {len(context) - 1} and len(tree.wanted) == 4


def test_what_exceeds_the_length_is_truncated_from_the_left_and_a_longer_option_refused(tiny_tokenizer):
    model, pairs = random_model(config("llama")), pairs_of(tiny_tokenizer)
    cut = [((context + continuation)[-41:][: -len(continuation)], continuation) for context, continuation in pairs]
    same(Likelihoods(model, 40, 0, 64).of(pairs), by_hand(model, cut))
    with pytest.raises(AtlasError, match="an option has 5 tokens, more than max_length"):
        Likelihoods(model, 4, 0).of([([5], [6, 7, 8, 9, 10])])


OTHERS = {
    "bloom": (transformers.BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=4), "does not take positions"),
    "mamba": (transformers.MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4), "layers of kind linear_attention"),
    "longrope": (
        transformers.Phi3Config(
            vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0,
            max_position_embeddings=512, original_max_position_embeddings=256,
            rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 256},
        ),
        "depend on the longest text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_without_such_masks_reads_each_text_alone_and_it_is_said(tiny_tokenizer, name, caplog):
    settings, reason = OTHERS[name]
    model, pairs = random_model(settings), pairs_of(tiny_tokenizer)
    read = Likelihoods(model, 250, 0, 400)
    same(read.of(pairs), by_hand(model, pairs))
    assert reason in read.reason and reason in caplog.text
    assert distinct_beginnings(pairs) < read.tokens["computed"] < read.tokens["without_sharing"]


@pytest.mark.parametrize("fault", ["raises", "ignores its mask"])
def test_a_model_that_does_not_obey_the_masks_is_found_out_by_a_probe(tiny_tokenizer, monkeypatch, fault):
    model, pairs = random_model(config("llama")), pairs_of(tiny_tokenizer)
    expected, forward = by_hand(model, pairs), type(model).forward

    @functools.wraps(forward)
    def faulty(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, logits_to_keep=0, **more):
        if attention_mask is not None and attention_mask.ndim == 4:
            if fault == "raises":
                raise ValueError("masks have two dimensions")
            attention_mask = None
        return forward(self, input_ids, attention_mask, position_ids, past_key_values, logits_to_keep=logits_to_keep, **more)

    monkeypatch.setattr(type(model), "forward", faulty)
    read = Likelihoods(model, 250, 0)
    same(read.of(pairs), expected)
    assert ("masks have two dimensions" if fault == "raises" else "a probe differs by") in read.reason


def test_less_is_read_at_a_time_where_memory_is_short(tiny_tokenizer, monkeypatch):
    model, pairs = random_model(config("mistral")), pairs_of(tiny_tokenizer)
    expected, forward, sizes = by_hand(model, pairs), type(model).forward, []

    @functools.wraps(forward)
    def small(self, input_ids=None, **more):
        sizes.append(input_ids.shape[1])
        found = forward(self, input_ids, **more)  # keys and values are there when memory runs out
        if input_ids.shape[1] > 100:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(type(model), "forward", small)
    read = Likelihoods(model, 250, 0, 256)
    same(read.of(pairs), expected)
    assert read.tokens["computed"] == distinct_beginnings(pairs) and max(sizes) > 100 and sizes.count(64) >= 2


# ---------------------------------------------------------------- through the engines


@pytest.mark.parametrize("backend", ["hf", "hf-paged"])
def test_engines_share_and_the_record_of_the_job_counts_it(tiny_base, tmp_path, run_script, backend):
    items = [{"instruction": text, "answer": "x", "choices": ["x", "two words", "two apples"], "label": 0} for text in QUESTIONS]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    SuiteFile("tasks", [BenchmarkFiles("pick", ROOT / "config/benchmarks/choice.yaml", tmp_path / "items.jsonl")]).write(
        tmp_path / "suite.json"
    )
    outputs = {f"output_{kind}": tmp_path / f"{kind}/tasks.parquet" for kind in ("scores", "samples")}
    keys = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": tmp_path / "suite.json", "base": tiny_base}
    options = {"template": Template().model_dump_json(), "max_length": 256, "state": tmp_path / "state/tasks", "backend": backend}
    run_script(evaluate, **keys, **options, **outputs)
    counted = json.loads((tmp_path / "scores/tasks.json").read_text())["likelihood_tokens"]
    assert 0 < counted["computed"] < counted["without_sharing"] / 2
    run_script(evaluate, **keys, **options, **outputs)
    assert "likelihood_tokens" not in json.loads((tmp_path / "scores/tasks.json").read_text())  # all answers were taken over


@pytest.mark.parametrize("backend", ["hf", "hf-paged"])
def test_a_prompt_of_two_benchmarks_is_tokenised_once_for_all_checkpoints(base, model, monkeypatch, backend):
    from sft_atlas.models.base_model import load_tokenizer

    tokenizer, seen = load_tokenizer(base), []
    call = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer), "__call__", lambda self, texts, *args, **more: seen.extend([texts] if isinstance(texts, str) else texts) or call(self, texts, *args, **more)
    )  # fmt: skip
    prompts = [f"###Question: {question}\n###Answer:" for question in QUESTIONS]
    limit = LengthLimit(tokenizer, 256, 16)
    for _checkpoint in range(2):
        adapter = hf.adapter(backend, model, tokenizer, 4, 256)
        limit.longest(prompts, [list(OPTIONS)] * 3)
        limit.longest(prompts, [[]] * 3)
        adapter.loglikelihood([SimpleNamespace(args=(prompt, option)) for prompt in prompts for option in OPTIONS])
        requests = [SimpleNamespace(args=(prompt, {"until": ["\n"], "max_gen_toks": 2}), task_name="x") for prompt in prompts]
        adapter.generate_until(requests)
    texts = [text for text in seen if text.startswith("###Question")]
    assert sorted(texts) == sorted({*prompts, *(prompt + option for prompt in prompts for option in OPTIONS)})
