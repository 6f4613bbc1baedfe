"""Change of the weights by training, per layer and component: by streaming safetensors, for LoRA from its factors alone, for DoRA from
its factors, its magnitudes and the base weights.

Needs numpy and numba only. Files are mapped a window at a time, so memory stays bounded by two windows and not by a tensor.
"""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.measure.weight_reader import WINDOW, StoredTensor, differences, tensors, widen, widened
from sft_atlas.models.adapter import FACTOR, MAGNITUDE, name_in_base, not_plain
from sft_atlas.models.base_model import is_adapter
from sft_atlas.models.layout import layer_and_component

BLOCK = 1 << 18  # elements of a matrix that its LoRA factors are applied to at a time
COMPONENTS = ("all", "q", "k", "v", "o", "gate", "up", "down", "norm", "other", "embedding", "head")
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"


@dataclass
class Change:
    """Sums over parameters from which every measure follows; they add up over tensors, as ratios would not.

    ``base``: ||W||^2, ``product``: <W, dW>, ``change``: ||dW||^2, ``absolute``: sum of |dW|, ``unchanged``: number of equal
    elements (the last two are None where dW is known by its factors only), ``skipped``: rows of a vocabulary that one side lacks.
    """

    base: float = 0.0
    product: float = 0.0
    change: float = 0.0
    absolute: float | None = 0.0
    unchanged: int | None = 0
    parameters: int = 0
    skipped: int = 0
    spectrum: np.ndarray | None = None  # singular values of one matrix's change, if requested; a sum of matrices has none

    def __add__(self, other: "Change") -> "Change":
        def total(left, right):
            return None if left is None or right is None else left + right

        names = [field for field in Change.__dataclass_fields__ if field != "spectrum"]
        return Change(*(total(getattr(self, name), getattr(other, name)) for name in names))

    def measures(self) -> dict[str, float | int | None]:
        """The columns of the table; null where a norm is zero or the parts are unknown."""
        tuned = self.base + 2 * self.product + self.change  # ||W + dW||^2; unlike a plain dot product this keeps 1 - cosine exact
        return {
            "relative_change": math.sqrt(max(self.change, 0.0) / self.base) if self.base > 0 else None,
            "mean_abs_change": None if self.absolute is None or not self.parameters else self.absolute / self.parameters,
            "cosine": (self.base + self.product) / math.sqrt(self.base * tuned) if self.base > 0 and tuned > 0 else None,
            "unchanged": None if self.unchanged is None or not self.parameters else self.unchanged / self.parameters,
            **ranks(self.spectrum),
            "parameters": self.parameters,
            "skipped_rows": self.skipped,
        }


def ranks(spectrum: np.ndarray | None) -> dict[str, float | None]:
    """Stable rank, ||dW||_F^2 / ||dW||_2^2 (Rudelson and Vershynin 2007), and effective rank, exp of the entropy of the normalised
    singular values (Roy and Vetterli 2007); null without singular values or without change."""
    if spectrum is None or not len(spectrum) or spectrum.max() <= 0:
        return {"stable_rank": None, "effective_rank": None}
    share = spectrum[spectrum > 0] / spectrum.sum()
    stable, effective = (spectrum**2).sum() / spectrum.max() ** 2, np.exp(-(share * np.log(share)).sum())
    return {"stable_rank": float(stable), "effective_rank": float(effective)}


def compare(before: StoredTensor, after: StoredTensor, spectra: bool = False) -> Change:
    """Exact change between two stored tensors; a vocabulary that was resized is compared on its common rows.

    ``spectra``: also the singular values of a matrix's change, which holds the matrix and its change in memory.
    """
    skipped = 0
    if before.shape != after.shape:
        if layer_and_component(before.name)[1] not in ("embedding", "head") or before.shape[1:] != after.shape[1:]:
            raise AtlasError(f"{after.file}: {after.name} has shape {after.shape}, the base model has {before.shape}")
        skipped = abs(before.shape[0] - after.shape[0])
    size = min(before.size, after.size)  # rows are stored one after the other, so the common rows come first
    step = max(1, WINDOW // max(tensor.stored_as().itemsize for tensor in (before, after)))
    plain = before.dtype == after.dtype != "F16"  # can be compared as they are stored
    sums = np.zeros(5)
    for pair in zip(before.windows(size, step), after.windows(size, step), strict=True):
        sums += differences(*(pair if plain else map(widened, pair)))
    base, product, moved, absolute, changed = sums.tolist()
    change = Change(base, product, moved, absolute, size - int(changed), size, skipped)
    if spectra and layer_and_component(before.name)[0] is not None and len(before.shape) == 2:  # not the vocabulary's, which are too large
        change.spectrum = np.linalg.svd(after.read() - before.read(), compute_uv=False)
    return change


def unchanged(before: StoredTensor) -> Change:
    """The change of a tensor that the adapter does not touch."""
    return compare(before, before)


def compare_factors(before: StoredTensor, down: np.ndarray, up: np.ndarray, scale: float, spectra: bool = False) -> Change:
    """Change by dW = scale * up @ down without forming it: W is [out, in], ``down`` [r, in], ``up`` [out, r].

    ||up down||^2 = trace(up^T up down down^T) = sum((up^T up) * (down down^T)) and <W, up down> = sum((W down^T) * up).
    The singular values of up @ down are those of the r x r product of the triangular factors of up and of down^T.
    """
    if before.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
        raise AtlasError(f"{before.name} has shape {before.shape}, its LoRA factors have {up.shape} and {down.shape}")
    change = Change(absolute=None, unchanged=None, parameters=before.size)
    inputs, project = before.shape[1], down.T.astype(np.float32)
    rows = max(1, BLOCK // inputs)
    block = np.empty(rows * inputs, np.float32)
    for index, stored in enumerate(before.windows(before.size, rows * inputs)):
        weight = block[: stored.size]
        change.base += widen(stored if before.dtype != "F16" else widened(stored), weight)
        change.product += float(((weight.reshape(-1, inputs) @ project) * up[index * rows : (index + 1) * rows]).sum())
    change.product *= scale
    change.change = scale**2 * float(((up.T @ up) * (down @ down.T)).sum())
    if spectra and layer_and_component(before.name)[0] is not None:
        inner = np.linalg.qr(up, mode="r") @ np.linalg.qr(down.T, mode="r").T
        change.spectrum = abs(scale) * np.linalg.svd(inner, compute_uv=False)
    return change


def compare_dora(
    before: StoredTensor, down: np.ndarray, up: np.ndarray, scale: float, magnitude: np.ndarray, spectra: bool = False
) -> Change:
    """Change by DoRA (arXiv 2402.09353), whose weight is row i of V = W + scale * up @ down with its norm replaced by ``magnitude[i]``.

    Shapes as in :func:`compare_factors`; ``magnitude`` [out]. V is formed a block of rows at a time.
    """
    if before.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0] or magnitude.shape != before.shape[:1]:
        shapes = f"its DoRA factors have {up.shape} and {down.shape}, its magnitudes {magnitude.shape}"
        raise AtlasError(f"{before.name} has shape {before.shape}, {shapes}")
    change = Change(unchanged=None, parameters=before.size)
    spectra = spectra and layer_and_component(before.name)[0] is not None
    inputs, deltas = before.shape[1], []
    rows = max(1, BLOCK // inputs)
    for index, stored in enumerate(before.windows(before.size, rows * inputs)):
        block = slice(index * rows, (index + 1) * rows)
        weight = widened(stored).reshape(-1, inputs).astype(float)
        direction = weight + scale * (up[block] @ down)
        delta = direction * (magnitude[block] / np.linalg.norm(direction, axis=1))[:, None] - weight
        change.base += float((weight**2).sum())
        change.product += float((weight * delta).sum())
        change.change += float((delta**2).sum())
        change.absolute += float(np.abs(delta).sum())
        if spectra:
            deltas.append(delta)
    if spectra:
        change.spectrum = np.linalg.svd(np.concatenate(deltas), compute_uv=False)
    return change


def full_changes(base: Path, weights: Path, spectra: bool = False, workers: int = 1) -> dict[str, Change]:
    """Change of every parameter between two folders of full weights; a tied head that one side does not store is its embedding."""
    before, after = tensors(base), tensors(weights)
    names = sorted(before.keys() | after.keys())
    sides = {name: (_tied(before, name), _tied(after, name)) for name in names}
    lost = [name for name, pair in sides.items() if None in pair]
    if lost:
        raise AtlasError(f"{base} and {weights} do not hold the same parameters: {len(lost)} have no counterpart, e.g. {lost[0]}")
    return _measured({name: (compare, *both, spectra) for name, both in sides.items()}, workers)


def _measured(tasks: dict[str, tuple], workers: int) -> dict[str, Change]:
    """Results of (function, tensor, further arguments ...) by name, in the order of the base model's files, which is how disks read fast.
    Workers are threads: the compiled loops of :mod:`sft_atlas.measure.weight_reader` release the GIL."""
    ordered = sorted(tasks, key=lambda name: (tasks[name][1].file, tasks[name][1].start))
    with ThreadPoolExecutor(workers) as pool:
        futures = {name: pool.submit(*tasks[name]) for name in ordered}
        return {name: futures[name].result() for name in tasks}


def _tied(stored: dict[str, StoredTensor], name: str) -> StoredTensor | None:
    if name in stored or not name.endswith(HEAD):
        return stored.get(name)
    return next((tensor for key, tensor in stored.items() if key.endswith(EMBEDDING)), None)


def adapter_changes(base: Path, weights: Path, spectra: bool = False, workers: int = 1) -> dict[str, Change]:
    """Change of every parameter of the base model under a LoRA or DoRA adapter; modules saved whole are compared exactly.

    Raises :class:`AtlasError` for adapters with another effect: biases, initialisations that alter the base.
    """
    config = read_json(weights / "adapter_config.json", "train the run again")
    if odd := not_plain(config):
        raise AtlasError(f"{weights} is no plain LoRA adapter ({odd})")
    before, factors, magnitudes, tasks = tensors(base), {}, {}, {}
    for key, tensor in tensors(weights, "adapter_model").items():
        name = name_in_base(key)
        if factor := FACTOR.match(name):
            factors.setdefault((factor["path"], factor["kind"]), {})[factor["side"]] = tensor.read().astype(float)
        elif magnitude := MAGNITUDE.match(name):
            magnitudes[magnitude["path"]] = tensor.read().astype(float).ravel()
        elif (original := _tied(before, name)) is not None:
            tasks[name] = (compare, original, tensor, spectra)
        else:
            raise AtlasError(f"{weights}: {key} is neither a LoRA factor nor a parameter of the base model in {base}")
    for (path, kind), pair in factors.items():
        original = _tied(before, f"{path}.weight")
        if original is None or set(pair) != {"A", "B"} or (bool(config.get("use_dora")) != (path in magnitudes)) or (kind and magnitudes):
            raise AtlasError(f"{weights}: {path} lacks a factor or a magnitude, or is no parameter of the base model in {base}")
        scale = scaling(config, path, len(pair["A"]))
        down, up = (pair["B"].T, pair["A"].T) if kind else (pair["A"], pair["B"])  # an embedding is stored as [vocabulary, hidden]
        if path in magnitudes:
            tasks[f"{path}.weight"] = (compare_dora, original, down, up, scale, magnitudes[path], spectra)
        else:
            tasks[f"{path}.weight"] = (compare_factors, original, down, up, scale, spectra)
    rest = {name: (unchanged, tensor) for name, tensor in before.items() if name not in tasks}
    return _measured(tasks | rest, workers)


def scaling(config: dict, path: str, rank: int) -> float:
    """PEFT's scale of one module: alpha / r, or alpha / sqrt(r) with ``use_rslora``; ``alpha_pattern`` may set its own alpha."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def layer_changes(base: Path, weights: Path, spectra: bool = False, workers: int = 1) -> list[dict]:
    """Rows of the table, one per layer x component, plus the component "all" of each layer; layer is None outside the layers.

    Fields: layer, depth (layer / (layers - 1)), component, relative_change (||dW|| / ||W||, Frobenius), mean_abs_change,
    cosine (of W and W + dW), unchanged (fraction of equal elements), stable_rank
    and effective_rank (with ``spectra``, where a row is one matrix), parameters (compared), skipped_rows (of a resized vocabulary).
    """
    changes = (adapter_changes if is_adapter(weights) else full_changes)(base, weights, spectra, workers)
    if broken := [name for name, change in changes.items() if not math.isfinite(change.base + change.change)]:
        raise AtlasError(f"{weights}: {broken[0]} (of {len(broken)} such) holds values that are not finite; see the losses of its training")
    groups: dict[tuple[int | None, str], Change] = {}
    for name, change in changes.items():
        layer, component = layer_and_component(name)
        for group in {(layer, component), (layer, "all")} if layer is not None else {(layer, component)}:
            groups[group] = groups[group] + change if group in groups else change
    last = max((layer for layer, _ in groups if layer is not None), default=0)
    ordered = sorted(groups, key=lambda group: (group[0] is None, group[0] or 0, COMPONENTS.index(group[1])))
    rows = []
    for layer, component in ordered:
        depth = None if layer is None else layer / max(last, 1)
        rows.append({"layer": layer, "depth": depth, "component": component, **groups[layer, component].measures()})
    return rows
