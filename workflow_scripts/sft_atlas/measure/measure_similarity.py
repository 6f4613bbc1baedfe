"""Measure the similarity of every training set and benchmark: of their words, and of their meaning where the study names a sentence encoder.

Texts become unit vectors: TF-IDF of words ("lexical"), or sentence embeddings ("semantic"). The measures need only the inner products
within and between the two sets.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sft_atlas.core.files import read_table, write_json, write_table
from sft_atlas.core.provenance import record_provenance
from sft_atlas.measure.measure_dataset import words
from sft_atlas.models.arguments import named_file
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.items import sample_items

MEASURES = ("centroid", "nearest", "mmd")
KERNEL_SAMPLE = 1000  # texts whose distances give the kernel's width


def main(args: argparse.Namespace) -> None:
    """Write one row per training set, benchmark and space (lexical, semantic), and a JSON with provenance beside them."""
    import polars as pl

    def text(instruction: str, answer: str) -> str:
        return instruction if args.text == "instruction" else f"{instruction}\n{answer}"

    training, benchmarks = {}, {}
    for name, path in args.dataset:
        frame = read_table(path, columns=["instruction", "response"])
        frame = frame.sample(min(args.rows, frame.height), seed=args.seed)
        training[name] = [text(*row) for row in frame.iter_rows()]
    for name, path in args.benchmark:
        benchmarks[name] = [text(item["instruction"], item["answer"]) for item in sample_items(name, path, args.rows, args.seed)]
    groups = [*training.values(), *benchmarks.values()]
    compared = bool(training and benchmarks)  # a study without training sets has nothing to compare
    spaces = {"lexical": lexical(groups)} if compared else {}
    if args.encoder and compared:
        encoder = ModelFolder.read(args.encoder)
        encoder.verify()
        folder = encoder.path
        spaces["semantic"] = semantic(groups, folder, args.pooling, args.batch_size, args.max_length)
    rows = []
    for space, vectors in spaces.items():
        sets, tests = dict(zip(training, vectors, strict=False)), dict(zip(benchmarks, vectors[len(training) :], strict=True))
        rows += [row | {"space": space} for row in similarities(sets, tests, args.seed)]
    schema = {"dataset": pl.String, "benchmark": pl.String, "space": pl.String} | dict.fromkeys(MEASURES, pl.Float64)
    frame = pl.DataFrame(rows, schema=schema | {"n_dataset": pl.Int64, "n_benchmark": pl.Int64})
    settings = {key: getattr(args, key) for key in ("rows", "text", "pooling", "batch_size", "max_length", "seed")}
    inputs = dict([*args.dataset, *args.benchmark]) | ({"encoder": args.encoder} if args.encoder else {})
    write_json(args.output.with_suffix(".json"), record_provenance(settings, inputs, spaces=list(spaces), rows=frame.height))
    write_table(args.output, frame)


@dataclass(frozen=True)
class Products:
    """Inner products of unit vectors: within the training set [n, n], within the benchmark [m, m], benchmark x training set [m, n]."""

    training: np.ndarray
    benchmark: np.ndarray
    between: np.ndarray


def measures(products: Products, width: float) -> dict[str, float]:
    """Similarities of two sets of unit vectors.

    centroid: cosine of the two mean vectors. nearest: mean over benchmark items of the cosine to the nearest training text.
    mmd: squared maximum mean discrepancy, unbiased, Gaussian kernel exp(-distance^2 / (2 width^2)) (Gretton et al. 2012, eq. 3);
    about 0 (possibly negative) for two samples of one distribution, larger where they differ.
    """
    n, m = len(products.training), len(products.benchmark)
    scale = np.sqrt(products.training.mean() * products.benchmark.mean())
    within_training, within_benchmark, across = (np.exp((each - 1) / width**2) for each in vars(products).values())
    return {
        "centroid": float(products.between.mean() / scale) if scale > 0 else np.nan,
        "nearest": float(products.between.max(axis=1).mean()),
        "mmd": float(_off_diagonal_mean(within_training, n) + _off_diagonal_mean(within_benchmark, m) - 2 * across.mean()),
    }


def _off_diagonal_mean(kernel: np.ndarray, n: int) -> float:
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1))) if n > 1 else np.nan


def median_distance(vectors, seed: int) -> float:
    """Median distance between unit vectors (rows), from at most 1,000 of them: one kernel width for all pairs of sets."""
    chosen = np.random.default_rng(seed).permutation(vectors.shape[0])[:KERNEL_SAMPLE]
    inner = _dense(vectors[chosen] @ vectors[chosen].T)[np.triu_indices(len(chosen), 1)]
    return float(np.median(np.sqrt(np.maximum(2 - 2 * inner, 0)))) or 1.0


def similarities(training: dict[str, object], benchmarks: dict[str, object], seed: int) -> list[dict[str, object]]:
    """Rows dataset, benchmark, centroid, nearest, mmd, n_dataset, n_benchmark for every pair; values are matrices of unit vectors."""
    stacked = _stack([*training.values(), *benchmarks.values()])
    width = median_distance(stacked, seed)
    within = {kind: {name: _dense(x @ x.T) for name, x in sets.items()} for kind, sets in (("t", training), ("b", benchmarks))}
    rows = []
    for dataset, x in training.items():
        for benchmark, y in benchmarks.items():
            products = Products(within["t"][dataset], within["b"][benchmark], _dense(y @ x.T))
            sizes = {"n_dataset": x.shape[0], "n_benchmark": y.shape[0]}
            rows.append({"dataset": dataset, "benchmark": benchmark, **measures(products, width), **sizes})
    return rows


def _dense(matrix) -> np.ndarray:
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)


def _stack(parts: list):
    from scipy import sparse

    return sparse.vstack(parts).tocsr() if sparse.issparse(parts[0]) else np.concatenate(parts)


def lexical(groups: list[list[str]]) -> list:
    """TF-IDF vectors (sparse, unit length) of the texts of each group; the weights come from all groups together."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer=words, sublinear_tf=True).fit_transform([text for group in groups for text in group])
    return _split(vectors, groups)


def semantic(groups: list[list[str]], folder: Path, pooling: str, batch_size: int, max_length: int) -> list[np.ndarray]:
    """Sentence embeddings (float32, unit length) of the texts of each group by the encoder in ``folder``; longer texts are cut.

    ``pooling``: ``mean`` over tokens, or ``cls``, the first token's state.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from sft_atlas.models.base_model import device
    from sft_atlas.models.tokenization import batches

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).to(device()).eval()
    texts = [text for group in groups for text in group]
    encoded = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
    for chosen, ids, mask in batches(encoded, batch_size, tokenizer.pad_token_id or 0, model.device):
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask[:, :, None].to(states.dtype)
            pooled = states[:, 0] if pooling == "cls" else (states * weights).sum(1) / weights.sum(1)
            vectors[chosen] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
    return _split(vectors, groups)


def _split(vectors, groups: list[list[str]]) -> list:
    ends = np.cumsum([len(group) for group in groups])
    return [vectors[end - len(group) : end] for end, group in zip(ends, groups, strict=True)]


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--dataset", type=named_file, action="append", default=[], help="NAME=FILE, repeatable; Parquet")
    p.add_argument("--benchmark", type=named_file, action="append", default=[], help="NAME=FILE, repeatable; JSON Lines")
    p.add_argument("--rows", type=int, default=1000, help="texts sampled from each")
    p.add_argument("--text", choices=("instruction", "full"), default="full", help="the instruction alone, or with its answer")
    p.add_argument("--encoder", type=Path, help="manifest of the sentence encoder (default: lexical similarity only)")
    p.add_argument("--pooling", choices=("mean", "cls"), default="mean")
    p.add_argument("--batch-size", type=int, default=64, help="texts per forward pass")
    p.add_argument("--max-length", type=int, default=256, help="tokens of a text that the encoder sees")
    p.add_argument("--seed", type=int, default=0, help="seed of the samples")
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row per training set, benchmark and space")


def gpus(args: argparse.Namespace) -> int:
    """GPUs that the job takes in a local run."""
    return 1 if args.encoder else 0
