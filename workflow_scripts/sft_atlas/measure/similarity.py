"""How close a training set is to a benchmark, in words and in meaning.

Texts become vectors of length one: TF-IDF of words ("lexical"), or sentence embeddings ("semantic"). The measures need nothing but the
inner products within and between the two sets.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sft_atlas.measure.dataset_statistics import words

MEASURES = ("centroid", "nearest", "mmd")
ENOUGH = 1000  # texts from which the kernel's width is taken


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
    0 where the two are alike (it may be a little below), larger where they differ.
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
    chosen = np.random.default_rng(seed).permutation(vectors.shape[0])[:ENOUGH]
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
