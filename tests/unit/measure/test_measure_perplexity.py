"""Likelihoods and perplexities: values against an explicit loop and by hand, batches, samples that are dropped, and the job."""

import json
import math

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.measure import measure_perplexity
from sft_atlas.measure.likelihood import token_log_likelihoods
from sft_atlas.models import prompt_template
from sft_atlas.models.base_model import ModelFolder, load_model
from sft_atlas.models.tokenization import encode
from sft_atlas.tables.perplexity import perplexity_summary

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [
    ("How many apples?", "There are 12."),
    ("Use braces {response} and {0}", "a {dict: {}} of\nlines, ünïcode 数"),
    ("Ends early", "done</s>"),
    ("", "x"),
]
RENDERED = [prompt_template.render(TEMPLATE, instruction, response) for instruction, response in ROWS]
PROMPTS, RESPONSES = [prompt for prompt, _ in RENDERED], [response for _, response in RENDERED]


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(ModelFolder.read(tiny_base))


def test_every_token_matches_an_explicit_loop(model, tiny_tokenizer):
    import torch

    frame, dropped = token_log_likelihoods(model, tiny_tokenizer, PROMPTS, RESPONSES, 3, 256)
    assert dropped == [] and frame["sample"].to_list() == [0, 1, 2, 3]
    for row, prompt, response in zip(frame.iter_rows(named=True), PROMPTS, RESPONSES, strict=True):
        ids = tiny_tokenizer(text=prompt + response.removesuffix("</s>") + "</s>")["input_ids"]
        first = len(tiny_tokenizer(text=prompt)["input_ids"])
        with torch.no_grad():
            nll = [-model(torch.tensor([ids[:end]])).logits[0, -1].log_softmax(-1)[ids[end]].item() for end in range(1, len(ids))]
        assert ids[-1] == tiny_tokenizer.eos_token_id
        assert (row["tokens_response"], row["tokens_full"]) == (len(ids) - first, len(ids) - 1)
        assert row["nll_full"] == pytest.approx(sum(nll), abs=1e-4)
        assert row["nll_response"] == pytest.approx(sum(nll[first - 1 :]), abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_uniform_model_gives_log_vocabulary_per_token_whatever_its_precision(tiny_base, tiny_tokenizer, dtype):
    uniform = load_model(ModelFolder.read(tiny_base), dtype=dtype)
    uniform.lm_head.weight.data.zero_()
    frame, _ = token_log_likelihoods(uniform, tiny_tokenizer, PROMPTS, RESPONSES, 4, 256)
    for scope in ("response", "full"):
        each = frame[f"nll_{scope}"] / frame[f"tokens_{scope}"]
        assert each.to_list() == pytest.approx([math.log(320)] * 4, abs=1e-5)


def test_a_perplexity_by_hand(tiny_base, tiny_tokenizer):
    """A model that gives the token after "a" to be "b" with odds 3 : 1 against each of the 319 others, and knows nothing else."""
    import torch

    hand = load_model(ModelFolder.read(tiny_base))
    a, b = (tiny_tokenizer(text=letter)["input_ids"] for letter in "ab")
    assert len(a) == len(b) == 1

    class Bigram(torch.nn.Module):
        device, config = torch.device("cpu"), hand.config

        def forward(self, input_ids, **_):
            logits = torch.zeros(*input_ids.shape, 320)
            logits[..., b[0]] = (input_ids == a[0]) * math.log(3)
            return type("Output", (), {"logits": logits})

    frame, _ = token_log_likelihoods(Bigram(), tiny_tokenizer, ["a"], ["bab"], 1, 9)
    # Tokens b, a, b, EOS after a, b, a, b: -log of 3/322, 1/320, 3/322, 1/320.
    nats = 2 * math.log(322 / 3) + 2 * math.log(320)
    assert (frame["nll_response"][0], frame["tokens_response"][0]) == (pytest.approx(nats, abs=1e-5), 4)
    sizes = pl.DataFrame({"bytes_response": [3], "bytes_full": [4], "model": ["m"], "dataset": ["d"], "rows": [1]})
    row = perplexity_summary(frame.hstack(sizes)).filter(scope="response").row(0, named=True)
    assert row["perplexity"] == pytest.approx(math.sqrt(322 / 3 * 320), rel=1e-5)  # 185.33
    assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / 3, rel=1e-5)


def test_batch_size_and_order_do_not_matter(model, tiny_tokenizer):
    one, _ = token_log_likelihoods(model, tiny_tokenizer, PROMPTS, RESPONSES, 1, 256)
    many, _ = token_log_likelihoods(model, tiny_tokenizer, PROMPTS[::-1], RESPONSES[::-1], 4, 256)
    for column in ("nll_response", "nll_full", "tokens_response", "tokens_full"):
        assert many[column].to_list()[::-1] == pytest.approx(one[column].to_list(), abs=1e-4)


def test_what_is_too_long_or_empty_is_dropped_and_listed(model, tiny_tokenizer):
    lengths = [len(encode(tiny_tokenizer, prompt, response)[0]) for prompt, response in RENDERED]
    limit = max(lengths) - 1
    assert token_log_likelihoods(model, tiny_tokenizer, PROMPTS, RESPONSES, 2, limit + 1)[1] == []
    frame, dropped = token_log_likelihoods(model, tiny_tokenizer, PROMPTS, RESPONSES, 2, limit)
    assert dropped == [lengths.index(max(lengths))] == [1]
    assert frame["sample"].to_list() == [0, 2, 3]
    assert token_log_likelihoods(model, tiny_tokenizer, ["prompt"], [""], 1, 99, with_eos=False)[1] == [0]


def test_broken_logits_are_an_error(tiny_base, tiny_tokenizer):
    broken = load_model(ModelFolder.read(tiny_base))
    broken.lm_head.weight.data[5] = float("nan")
    with pytest.raises(AtlasError, match="not finite for 4 samples"):
        token_log_likelihoods(broken, tiny_tokenizer, PROMPTS, RESPONSES, 4, 256)


def test_summary_of_perplexities_by_hand():
    columns = ["sample", "nll_response", "tokens_response", "bytes_response", "nll_full", "tokens_full", "bytes_full"]
    frame = pl.DataFrame([(0, 2.0, 1, 4, 6.0, 4, 8), (1, 3.0, 4, 6, 9.0, 8, 9)], schema=columns, orient="row")
    frame = frame.with_columns(model=pl.lit("m"), dataset=pl.lit("d"), rows=pl.lit(2))
    full, response = perplexity_summary(frame).sort("scope").iter_rows(named=True)
    assert (response["n"], response["tokens"], response["tokens_mean"]) == (2, 5, 2.5)
    assert response["perplexity"] == pytest.approx(math.exp(5 / 5))
    assert response["perplexity_sample_mean"] == pytest.approx(math.exp((2 / 1 + 3 / 4) / 2))
    assert response["bits_per_byte"] == pytest.approx(5 / 10 / math.log(2))
    assert full["perplexity"] == pytest.approx(math.exp(15 / 12))


def test_measure_perplexity_writes_samples_and_provenance(run_script, tiny_base, tmp_path):
    data, output = tmp_path / "train.parquet", tmp_path / "out" / "tiny.parquet"
    rows = [*ROWS, ("too long", "word " * 300)]
    pl.DataFrame([{"instruction": q, "response": a, "source": "s"} for q, a in [*rows, ("beyond the limit", "x")]]).write_parquet(data)
    names = {"base": tiny_base, "data": data, "model": "tiny", "dataset": "d", "rows": 6, "limit": 5}
    run_script(measure_perplexity, **names, template=json.dumps(TEMPLATE), batch_size=2, max_length=200, output=output)
    frame, record = pl.read_parquet(output), json.loads(output.with_suffix(".json").read_text())
    assert frame.columns == [
        "model", "dataset", "rows", "sample", "nll_response", "tokens_response", "bytes_response", "nll_full", "tokens_full", "bytes_full",
    ]  # fmt: skip
    assert frame["sample"].to_list() == [0, 1, 2, 3]
    assert (record["dropped"], record["n_scored"], record["n_dropped"]) == ([4], 4, 1)
    assert frame["bytes_response"].to_list() == [len(response.encode()) for response in RESPONSES]
    assert (record["dtype"], record["device"]) == ("float32", "cpu") or record["device"] != "cpu"
    assert record["tokens_per_second"] > 0 and set(record["inputs"]) == {"base", "data"}
