"""Fixtures that several tests share: a tokenizer and a base model small enough to be made on the spot, offline."""

import gc
import json
import os

import pytest

import user_cache  # noqa: F401 (keeps bytecode where Python is told to keep none)
from helpers import skips
from helpers.tokenizer import make_tokenizer
from sft_atlas.core import job

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.pop("PYTHONUNBUFFERED", None)  # processes of the tests print as a user's do
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on models this small wait for each other: twice the CPU time


@pytest.fixture(scope="session")
def frozen_libraries():
    """The training libraries, imported and taken out of garbage collection, as in the warm server: accelerate collects after each training."""
    import peft  # noqa: F401
    import trl.trainer.sft_trainer  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """The tokenizer of :func:`make_tokenizer`."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_base(tiny_tokenizer, tmp_path_factory):
    """Path of the manifest ``model.json`` of a random Llama: 2 layers, hidden size 32, vocabulary 320, untied head, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base") / "tiny"
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=False, initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    manifest = folder.parent / "model.json"
    manifest.write_text(json.dumps({"name": "tiny", "path": str(folder), "dtype": "float32", "trust_remote_code": False}))
    return manifest


@pytest.fixture(scope="module")
def base(tiny_base):
    """:func:`tiny_base` as jobs read it."""
    from sft_atlas.models.base_model import ModelFolder

    return ModelFolder.read(tiny_base)


@pytest.fixture(scope="module")
def tokenizer(base):
    from sft_atlas.models.base_model import load_tokenizer

    return load_tokenizer(base)


@pytest.fixture(scope="module")
def model(base):
    from sft_atlas.models.base_model import load_model

    return load_model(base)


@pytest.fixture(scope="session")
def run_script():
    """Call a script's ``main`` with options as keywords: ``max_length=3`` is ``--max-length 3``, a list repeats its option, a tuple has its values."""

    def run(script, **options):
        words = []
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                words += ["--" + name.replace("_", "-"), *map(str, each if isinstance(each, tuple) else (each,))]
        script.main(job.parser(script).parse_args(words))

    return run


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` are skipped, by name, where there is no accelerator."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU; there is none here"))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    """With `CI` in the environment a test that is skipped fails the run, unless :mod:`helpers.skips` lists the reason."""
    if os.environ.get("CI") and skips.unexpected(skips.reports(session.config)) and session.exitstatus in (0, 5):
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter, config):
    if os.environ.get("CI") and (found := skips.unexpected(skips.reports(config))):
        terminalreporter.section("skipped without a listed reason")
        for line in found:
            terminalreporter.line(f"FAILED {line}")
