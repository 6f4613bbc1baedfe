"""Proof that a fetched folder loads as a base model: whole files, every tensor and no other, finite values, and a tokenizer that fits.

transformers fills tensors that it does not find with random numbers and ignores those it does not know, with no more than a line in the log.
"""

import contextlib
import json
import textwrap
from collections.abc import Collection
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import progress
from sft_atlas.models.base_model import ModelFolder, is_finite, load_tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec"
SAMPLE = "How many pears are there? 7 pears, in 2 baskets."
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def refuse_pointers(folder: Path, key: str) -> None:
    """AtlasError where a file of ``folder`` is a Git LFS pointer."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.open("rb").read(len(POINTER)) == POINTER:
            raise AtlasError(f"{key}: {path} is a Git LFS pointer, not the file itself; run `git lfs pull` in {folder}")


def check_files(folder: Path, key: str) -> list[Path]:
    """The files of weights that transformers reads from ``folder``. ``key``: of the entry in the study file, for messages.

    AtlasError where a file is missing, cut off, or not what its name says. Reads the files' heads only.
    """
    if not folder.is_dir():
        raise AtlasError(f"{key}: there is no folder {folder}")
    refuse_pointers(folder, key)
    if (folder / "adapter_config.json").exists():
        base = read_json_file(folder / "adapter_config.json", key).get("base_model_name_or_path")
        raise AtlasError(f"{key}: {folder} is an adapter of {base}; use its base model, or merge the adapter into it")
    if not (folder / "config.json").exists():
        raise AtlasError(f"{key}: {folder} has no config.json")
    if not any(folder.glob("tokenizer*")):
        raise AtlasError(f"{key}: {folder} has no tokenizer; copy its files (tokenizer.json, tokenizer_config.json) there")
    files = weight_files(folder, key)
    for path in files:
        with _open(path, key, "np"):  # not "pt", which loads torch
            pass
    return files


def weight_files(folder: Path, key: str) -> list[Path]:
    """The files of full weights, whole or in shards, that transformers reads."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        names = sorted(set(read_json_file(folder / INDEX, key).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).exists()]
        if missing or not names:
            what = (
                f"{len(missing)} of the {len(names)} files in {INDEX}, the first is {missing[0]}"
                if missing
                else f"weights: {INDEX} is empty"
            )
            raise AtlasError(f"{key}: {folder} lacks {what}; fetch the folder again")
        return [folder / name for name in names]
    other = sorted(path.name for pattern in ("*.safetensors", "*.bin", "*.pt*") for path in folder.glob(pattern))
    raise AtlasError(
        f"{key}: {folder} has no weights as safetensors under the names that transformers reads, {WEIGHTS} or {INDEX}; "
        f"it has {', '.join(other) or 'none at all'}. Pickles are not loaded. Convert with save_pretrained of transformers"
    )


def check_loads(base: ModelFolder, files: list[Path], key: str) -> None:
    """AtlasError unless ``files`` of :func:`check_files` hold each tensor of the model, of the right shape, and no other, all of them
    finite, and unless the tokenizer encodes and the embedding has a row for each of its ids.

    The model is built on the meta device; values are read one tensor at a time.
    """
    rows = check_tensors(base, key)
    _check_tokenizer(base, rows, key)
    check_finite(files, key)


def check_tensors(base: ModelFolder, key: str) -> int:
    """Rows of the embedding. AtlasError where the tensors of full weights are not those of the architecture in their config.json."""
    import torch
    from transformers import AutoModelForCausalLM

    _check_config_ids(base.path, key)
    with explained(f"{key}: transformers cannot load {base.path}"):
        model, info = AutoModelForCausalLM.from_pretrained(
            base.path, dtype=getattr(torch, base.dtype), trust_remote_code=base.trust_remote_code, use_safetensors=True,
            device_map="meta", ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    _check_names(info["missing_keys"], info["unexpected_keys"], f"{key}: {base.path}")
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise AtlasError(
            f"{key}: {base.path}: config.json and weights differ in the shape of {len(mismatched)} tensors, the first is {name}: "
            f"{list(stored)} in the file, {list(expected)} by config.json"
        )
    return model.get_input_embeddings().weight.shape[0]


def _check_config_ids(folder: Path, key: str) -> None:
    """Before the model is built, which fails without a reason where the padding has no row."""
    config = read_json_file(folder / "config.json", key)
    rows = config.get("vocab_size")
    generation = folder / "generation_config.json"
    for file, settings in (
        ("config.json", config),
        ("generation_config.json", read_json_file(generation, key) if generation.exists() else {}),
    ):
        for name in SPECIAL:
            value = settings.get(name)
            over = [token for token in (value if isinstance(value, list) else [value]) if isinstance(token, int) and rows and token >= rows]
            if over:
                raise AtlasError(f"{key}: {folder / file}: {name} is {over[0]}, but vocab_size is {rows}; correct it")


def _check_names(missing: Collection[str], unknown: Collection[str], where: str) -> None:
    if not missing and not unknown:
        return
    for name in sorted(unknown):
        prefix = next((name.removesuffix(other) for other in missing if name.endswith(f".{other}")), None)
        if prefix:
            raise AtlasError(
                f"{where}: tensors are named {name} and so on, with the prefix {prefix!r} of a wrapped or compiled model; "
                "save the model inside the wrapper"
            )
    parts = [
        f"{what} {len(names)} tensors: {', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''}"
        for names, what in ((missing, "the files lack"), (unknown, "the architecture does not have"))
        if names
    ]
    raise AtlasError(f"{where}: {'; '.join(parts)}. Fetch the folder again, or correct its config.json")


def _check_tokenizer(base: ModelFolder, rows: int, key: str) -> None:
    with explained(f"{key}: transformers cannot load the tokenizer in {base.path}; it needs tokenizer.json or tokenizer.model"):
        tokenizer = load_tokenizer(base)
        ids = tokenizer(SAMPLE)["input_ids"]
    if not set(ids) - {tokenizer.unk_token_id, *tokenizer.all_special_ids}:
        raise AtlasError(f"{key}: the tokenizer in {base.path} encodes {SAMPLE!r} as {ids}, without any word")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if largest >= rows:
        raise AtlasError(
            f"{key}: the tokenizer in {base.path} has ids up to {largest} ({token!r}), but the embedding has {rows} rows; "
            "take the tokenizer of this model, or resize the embedding (resize_token_embeddings) and save both"
        )


def check_finite(files: list[Path], key: str) -> None:
    for path in files:
        with _open(path, key) as tensors:
            broken = next((name for name in tensors.keys() if not is_finite(tensors.get_tensor(name))), None)  # noqa: SIM118 (no dictionary)
        if broken:
            raise AtlasError(f"{key}: {broken} in {path} has values that are not finite; take another copy or checkpoint of the model")
        progress(f"{path.name}: all values are finite")


def read_json_file(path: Path, key: str) -> dict:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{key}: {path} is not JSON: {error}; fetch it again") from None
    if not isinstance(entry, dict):
        raise AtlasError(f"{key}: {path} must hold a JSON object; fetch it again")
    return entry


def _open(path: Path, key: str, framework: str = "pt"):
    """An open safetensors file; AtlasError where it is cut off or no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework)
    except SafetensorError as error:
        raise AtlasError(
            f"{key}: {path} ({path.stat().st_size:,} bytes) is not a complete safetensors file: {error}; fetch it again"
        ) from None


@contextlib.contextmanager
def explained(what: str):
    """Turn whatever a folder's contents make transformers raise into one line."""
    try:
        yield
    except AtlasError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error) or "no message", 300)
        raise AtlasError(f"{what}: {type(error).__name__}: {reason}") from error
