"""Samples of a training set: what is too long, and what the preflight refuses."""

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.train import dataset as sampling

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [
    {"instruction": f"Spell the word backward: {word}.", "response": word[::-1]}
    for word in ("lemon", "apple", "dog", "fox", "quick", "brown", "lazy", "over")
]


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(ModelFolder.read(tiny_base))


def test_longer_samples_are_dropped_whole_and_counted(tokenizer):
    longest = max(len(sample.ids) for sample in sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256).kept)
    samples = sampling.tokenize(ROWS, tokenizer, TEMPLATE, longest - 1)
    assert samples.overlong and len(samples.kept) + len(samples.overlong) == len(ROWS)
    assert f"({len(samples.overlong)} dropped" in sampling.preflight(samples, tokenizer, "m/d/r")
    with pytest.raises(AtlasError, match="all 8 samples are longer than max_length"):
        sampling.preflight(sampling.tokenize(ROWS, tokenizer, TEMPLATE, 3), tokenizer, "m/d/r")


def test_the_preflight_refuses_samples_without_supervision_or_eos(tokenizer):
    sample = sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256).kept[0]
    blind = sampling.Sample(7, sample.ids, len(sample.ids))
    with pytest.raises(AtlasError, match="no supervised token, the first is row 7"):
        sampling.preflight(sampling.Samples([sample, blind], []), tokenizer, "m/d/r")
    endless = sampling.Sample(5, sample.ids[:-1], sample.first)
    with pytest.raises(AtlasError, match="supervised EOS, the first is row 5"):
        sampling.preflight(sampling.Samples([endless], []), tokenizer, "m/d/r")


def test_the_preflight_compares_the_scored_prompt_with_the_training_prefix(tokenizer):
    page = sampling.preflight(sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256), tokenizer, "m/d/r")
    assert page.count("scored prompt: the same tokens") == 3
    merging = {"prompt": "{instruction} There are ", "response": "12{response}"}  # " 1" is one token
    with pytest.raises(AtlasError, match=r"the prompt that is scored ends in ' ', where training has the token ' 1': .* move the end of"):
        sampling.preflight(sampling.tokenize(ROWS, tokenizer, merging, 256), tokenizer, "m/d/r")


def test_samples_are_the_same_after_writing_and_reading(tmp_path):
    kept = [sampling.Sample(0, [1, 5, 6, 2], 2), sampling.Sample(2, [1, 7, 2, 8, 9, 2], 1, ((3, 4),)), sampling.Sample(3, [1, 2], 1)]
    for samples in (sampling.Samples(kept, [1, 4], ([1, 5], [1])), sampling.Samples([], [])):
        sampling.write_samples(samples, tmp_path / "samples.parquet")
        assert sampling.read_samples(tmp_path / "samples.parquet") == samples
