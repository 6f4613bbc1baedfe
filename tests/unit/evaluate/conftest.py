"""A judge that runs on this machine, the answers that are judged, and a run of lm-eval."""

import pytest

from helpers import imported, judged
from helpers.judge_server import KEY_VARIABLE, serving
from sft_atlas.evaluate import generate
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.study.schema import Judge, Template


@pytest.fixture(scope="session")
def answered(tmp_path_factory, tiny_base, run_script):
    """The folder with a base model's answers, and the options that name its checkpoint and suite."""
    folder = tmp_path_factory.mktemp("answered")
    checkpoint = judged.suite(folder)
    settings = {"template": Template().model_dump_json(), "max_length": 256, "max_new_tokens": 12, "batch_size": 2}
    run_script(generate, **checkpoint, base=tiny_base, **settings, state=folder / "state", output=folder / "answers.parquet")
    return folder, checkpoint


@pytest.fixture(scope="session")
def server(tiny_base):
    base = ModelFolder.read(tiny_base)
    with serving(load_model(base), load_tokenizer(base)) as running:
        yield running


@pytest.fixture
def judge(server, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, server.key)
    server.faults.clear()
    server.bodies.clear()
    return Judge(model="tiny-1", url=server.url, key_variable=KEY_VARIABLE, requests_per_minute=60_000, timeout=1, retries=4)


@pytest.fixture(scope="session")
def lm_eval_run(tmp_path_factory, tiny_base):
    """The folder of :func:`helpers.imported.lm_eval_run`."""
    return imported.lm_eval_run(tmp_path_factory.mktemp("run"), tiny_base)
