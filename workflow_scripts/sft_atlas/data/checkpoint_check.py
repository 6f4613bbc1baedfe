"""Proof that a checkpoint that was trained elsewhere is one of its base model: files, architecture, shapes, vocabulary, tied head, types.

Nothing is repaired in silence. What differs and is accepted becomes a remark of the checkpoint's record: extra tokens at the end of the
vocabulary (the checkpoint is used with its own tokenizer), a stored head that equals the embedding it is tied to, another stored type (cast to the
base model's), another name of the base model in the adapter. Everything else is an error.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.integrity import safetensors_header
from sft_atlas.data.base_model_check import (
    INDEX,
    SAMPLE,
    WEIGHTS,
    check_finite,
    check_tensors,
    explained,
    read_json_file,
    refuse_pointers,
    weight_files,
)
from sft_atlas.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FACTOR, MAGNITUDE, name_in_base, not_plain
from sft_atlas.models.base_model import ModelFolder, load_tokenizer, own_tokenizer

ADAPTER_PICKLE = "adapter_model.bin"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"
# Settings of a configuration that change no weight's shape and yet make another model.
DECISIVE = ("model_type", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "hidden_size", "head_dim", "hidden_act")
# Settings that fine-tuning may change, or that only say how a folder was written.
COSMETIC = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id",
    "tie_word_embeddings", "architectures",
}  # fmt: skip


@dataclass
class Found:
    """What a checkpoint consists of: the ``files`` to publish, of which ``configuration`` are no weights; ``facts`` and ``remarks`` for its record;
    ``settings``, which its files say about the training."""

    files: list[Path]
    configuration: set[str]
    facts: dict[str, object]
    settings: dict[str, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def require_safetensors(names: Collection[str], where: str, key: str) -> None:
    """AtlasError unless among the file ``names`` of a checkpoint are weights as safetensors. Pickles are never read, whatever is in them."""
    adapter = ADAPTER_CONFIG in names
    if (adapter and ADAPTER_WEIGHTS in names) or WEIGHTS in names or INDEX in names:
        return
    pickles = sorted(name for name in names if name.endswith(PICKLES) and name != "training_args.bin" and not name.startswith("optimizer"))
    if not pickles:
        has = f"it has {', '.join(sorted(names)[:5])}" if names else "it is empty"
        raise AtlasError(
            f"{key}: {where} holds neither full weights ({WEIGHTS} or {INDEX}) nor a PEFT adapter ({ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}); {has}"
        )
    save = (
        f"PeftModel.from_pretrained(BASE, FOLDER).save_pretrained(NEW) of peft writes {ADAPTER_WEIGHTS}"
        if adapter
        else f"AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW) of transformers writes {WEIGHTS}"
    )
    raise AtlasError(
        f"{key}: {where} has its weights as {pickles[0]} alone. That is a pickle, which can run any program when it is loaded, and is never read "
        f"here. Convert it on a machine where you trust it: {save}. Then name the new folder with `path`"
    )


def check_checkpoint(folder: Path, base: ModelFolder, method: str, merged: bool, key: str) -> Found:
    """What is in ``folder``; AtlasError where it is no whole checkpoint of ``base`` of this ``method``. ``key``: of its entry, for messages."""
    if not folder.is_dir():
        raise AtlasError(f"{key}: there is no folder {folder}")
    refuse_pointers(folder, key)
    names = {path.name for path in folder.iterdir()}
    require_safetensors(names, str(folder), key)
    adapter, full = {ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= names, bool({WEIGHTS, INDEX} & names) and "config.json" in names
    wanted = method == "lora" and not merged
    if wanted and not adapter:
        raise AtlasError(
            f"{key}.method: is lora, but {folder} holds full weights; correct it to full, or add `merged: true` if an adapter was merged into them"
        )
    if not wanted and not full:
        what = f"an adapter ({ADAPTER_CONFIG})" if adapter else "weights without config.json"
        raise AtlasError(f"{key}.method: asks for full weights, but {folder} holds {what}; correct it, or complete the folder")
    found = _adapter(folder, base, key) if wanted else _full(folder, base, key)
    if adapter and full:
        found.remarks.append(f"the folder holds full weights and an adapter; used are the {'adapter' if wanted else 'full weights'}")
    return found


# ---------------------------------------------------------------- full weights


def _full(folder: Path, base: ModelFolder, key: str) -> Found:
    files = weight_files(folder, key)
    if odd := next((path.name for path in files if path.parent != folder), None):
        raise AtlasError(f"{key}: {INDEX} names {odd}, which is outside {folder}")
    config, own = (read_json_file(place / "config.json", key) for place in (base.path, folder))
    _check_config(config, own, folder, base, key)
    stored, before = _tensors(files), _tensors(weight_files(base.path, f"models.{base.name}"))
    remarks: list[str] = []
    tied = _tied(folder, key)
    _check_head(stored, tied, folder, key, remarks)
    checked = ModelFolder(base.name, folder, base.dtype, False)
    rows = check_tensors(checked, key)
    _check_shapes(before, stored, base, folder, key)
    check_finite(files, key)
    differing = {
        name: [config.get(name), own.get(name)] for name in sorted(config.keys() | own.keys()) if config.get(name) != own.get(name)
    }
    differing = {name: pair for name, pair in differing.items() if name not in COSMETIC}
    if differing:
        remarks.append(f"config.json differs from the base model's in {', '.join(differing)}")
    base_rows = _rows(before)
    tokenizer, vocabulary = _vocabulary(folder, base, base_rows, rows, key, remarks)
    types = _types(stored, folder, base.dtype, key, remarks)
    if tied != _tied(base.path, f"models.{base.name}"):
        remarks.append(f"the head is {'tied to' if tied else 'not tied to'} the embedding, unlike the base model's")
    small = [folder / name for name in ("config.json", "generation_config.json", INDEX) if (folder / name).is_file()]
    if len(files) == 1 and files[0].name == WEIGHTS:
        small = [path for path in small if path.name != INDEX]
    facts = {"kind": "full weights", "stored_dtype": types, "vocabulary": vocabulary, "tied_head": tied, "config_differences": differing}
    return Found([*files, *small, *tokenizer], {path.name for path in small}, facts, remarks=remarks)


def _check_config(config: dict, own: dict, folder: Path, base: ModelFolder, key: str) -> None:
    """AtlasError where a configuration is that of another architecture, of quantized weights, or names code of its own."""
    for name in DECISIVE:
        if config.get(name) != own.get(name) and not (name == "head_dim" and None in (config.get(name), own.get(name))):
            raise AtlasError(
                f"{key}: {folder / 'config.json'} has {name} {own.get(name)!r}, but {base.name} has {config.get(name)!r}: it is no checkpoint of this "
                "base model; correct `model`"
            )
    if own.get("quantization_config"):
        raise AtlasError(f"{key}: {folder} holds quantized weights; name the checkpoint before quantization, or save it dequantized")
    if own.get("auto_map"):
        raise AtlasError(
            f"{key}: {folder / 'config.json'} names code of its own (auto_map), which is not run; save it with a class of transformers"
        )


def _tensors(files: Collection[Path]) -> dict[str, dict]:
    """The headers of the stored tensors by name, without buffers, each with its ``file``."""
    stored = {name: entry | {"file": path} for path in files for name, entry in safetensors_header(path)[1].items()}
    return {name: entry for name, entry in stored.items() if not name.endswith("rotary_emb.inv_freq")}


def _tied(folder: Path, key: str) -> bool:
    from transformers import AutoConfig

    with explained(f"{key}: transformers cannot read {folder / 'config.json'}"):
        return bool(AutoConfig.from_pretrained(folder).get_text_config().tie_word_embeddings)


def _check_head(stored: dict[str, dict], tied: bool, folder: Path, key: str, remarks: list[str]) -> None:
    """AtlasError where head and embedding are not what config.json says: loading would replace the one by the other, or by random numbers."""
    import torch

    head, embedding = (next((name for name in stored if name.endswith(ending)), None) for ending in (HEAD, EMBEDDING))
    if not tied and head is None:
        raise AtlasError(
            f"{key}: {folder} stores no {HEAD}, but its config.json says that the head is not tied to the embedding (tie_word_embeddings): loading would "
            "fill it with random numbers; set tie_word_embeddings to true if the base model ties it, or save the model again"
        )
    if not tied or head is None or embedding is None:
        return
    if not torch.equal(_read(stored[head], head), _read(stored[embedding], embedding)):
        raise AtlasError(
            f"{key}: {folder} stores a {HEAD} that differs from the embedding, but its config.json says that they are tied (tie_word_embeddings): one of "
            "them would be lost; set tie_word_embeddings to false if the head was trained, or delete the head from the file"
        )
    remarks.append(f"{HEAD} is stored although it is tied to the embedding; the two are equal")


def _read(entry: dict, name: str):
    from safetensors import safe_open

    with safe_open(entry["file"], "pt") as file:
        return file.get_tensor(name)


def _check_shapes(before: dict[str, dict], stored: dict[str, dict], base: ModelFolder, folder: Path, key: str) -> None:
    """AtlasError where a tensor has no counterpart in the base model, or one of another shape, but for rows of the vocabulary."""
    lone = sorted(name for name in before.keys() ^ stored.keys() if not name.endswith(HEAD))
    if lone:
        where = folder if lone[0] in stored else base.path
        raise AtlasError(
            f"{key}: {folder} and {base.name} do not have the same tensors: {len(lone)} are in one alone, the first is {lone[0]} in {where}; correct `model`"
        )
    for name in sorted(before.keys() & stored.keys()):
        ours, theirs = before[name]["shape"], stored[name]["shape"]
        if ours != theirs and not (name.endswith((HEAD, EMBEDDING)) and ours[1:] == theirs[1:]):
            raise AtlasError(f"{key}: {name} has the shape {theirs} in {folder} and {ours} in {base.name}; correct `model`")


def _rows(stored: dict[str, dict]) -> int:
    return next(entry["shape"][0] for name, entry in stored.items() if name.endswith(EMBEDDING))


def _types(stored: dict[str, dict], folder: Path, used: str, key: str, remarks: list[str]) -> list[str]:
    """The types of the stored tensors; AtlasError for others than floating-point numbers of 16 and 32 bits."""
    odd = sorted({entry["dtype"] for entry in stored.values()} - TYPES.keys())
    if odd:
        raise AtlasError(
            f"{key}: {folder} holds tensors of the type {odd[0]}, as quantized weights have; supported are {', '.join(TYPES.values())}"
        )
    types = sorted({TYPES[entry["dtype"]] for entry in stored.values()})
    if types != [used]:
        remarks.append(f"stored in {' and '.join(types)}; scored in {used}, the type of the base model")
    return types


# ---------------------------------------------------------------- an adapter


def _adapter(folder: Path, base: ModelFolder, key: str) -> Found:
    config = read_json_file(folder / ADAPTER_CONFIG, key)
    if odd := not_plain(config):
        raise AtlasError(
            f"{key}: {folder} is no plain LoRA or DoRA adapter ({odd}); merge it into its base model and name the full weights"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise AtlasError(f"{key}: {folder} is an adapter for {config['task_type']}, not for causal language models (CAUSAL_LM)")
    stored, before = _tensors([folder / ADAPTER_WEIGHTS]), _tensors(weight_files(base.path, f"models.{base.name}"))
    _check_factors(stored, before, config, folder, base, key)
    check_finite([folder / ADAPTER_WEIGHTS], key)
    remarks: list[str] = []
    named = config.get("base_model_name_or_path")
    source = base_source(base)
    if named not in (base.name, str(base.path), source):
        remarks.append(f"{ADAPTER_CONFIG} names {named!r} as its base model; it was checked against {base.name} by its tensors")
    rows = _rows(before)
    tokenizer, vocabulary = _vocabulary(folder, base, rows, rows, key, remarks)
    types = _types(stored, folder, "float32", key, [])
    facts = {"kind": "adapter", "stored_dtype": types, "vocabulary": vocabulary, "base_model_name_or_path": named}
    lora = {
        "rank": config.get("r"), "alpha": config.get("lora_alpha"), "dropout": config.get("lora_dropout"), "targets": _sorted(config.get("target_modules")),
        "rslora": config.get("use_rslora", False), "dora": config.get("use_dora", False),
    }  # fmt: skip
    files = [folder / ADAPTER_WEIGHTS, folder / ADAPTER_CONFIG, *tokenizer]
    return Found(files, {ADAPTER_CONFIG}, facts, {"lora": lora}, remarks)


def _sorted(targets: object) -> object:
    """Target modules in one order: PEFT saves a set."""
    return sorted(targets) if isinstance(targets, list) else targets


def base_source(base: ModelFolder) -> str | None:
    """The hub id that a base model was fetched from."""
    if base.manifest is None or not Path(base.manifest).is_file():
        return None
    entry = json.loads(Path(base.manifest).read_text(encoding="utf-8"))
    return ((entry.get("provenance") or {}).get("settings") or {}).get("source", {}).get("hub")


def _check_factors(stored: dict[str, dict], before: dict[str, dict], config: dict, folder: Path, base: ModelFolder, key: str) -> None:
    """AtlasError where a factor does not fit the base model's weight of its name, or has no partner."""
    sides: dict[tuple[str, bool], dict[str, list[int]]] = {}
    for tensor, entry in stored.items():
        name, shape = name_in_base(tensor), entry["shape"]
        if factor := FACTOR.match(name):
            sides.setdefault((factor["path"], bool(factor["kind"])), {})[factor["side"]] = shape
        elif not MAGNITUDE.match(name):
            whole = before.get(name) or (_tied_embedding(before) if name.endswith(HEAD) else None)
            if whole is None:
                raise AtlasError(f"{key}: {tensor} in {folder} is neither a LoRA factor nor a weight of {base.name}; correct `model`")
            if whole["shape"] != shape:
                resized = name.endswith((HEAD, EMBEDDING)) and whole["shape"][1:] == shape[1:]
                remedy = (
                    "the vocabulary was resized for tokens of its own; merge the adapter into the resized base model (merge_and_unload) and name the full "
                    "weights with `method: lora` and `merged: true`"
                    if resized
                    else "correct `model`"
                )
                raise AtlasError(f"{key}: {name} has the shape {shape} in {folder} and {whole['shape']} in {base.name}; {remedy}")
    if not sides and not config.get("modules_to_save"):
        raise AtlasError(f"{key}: {folder / ADAPTER_WEIGHTS} holds no LoRA factor")
    for (path, embedding), pair in sides.items():
        weight = before.get(f"{path}.weight") or (_tied_embedding(before) if f"{path}.weight".endswith(HEAD) else None)
        if weight is None:
            raise AtlasError(f"{key}: the adapter in {folder} changes {path}, which {base.name} does not have; correct `model`")
        out, inner = weight["shape"] if not embedding else weight["shape"][::-1]
        if pair.keys() != {"A", "B"} or pair["A"] != [pair["B"][1], inner] or pair["B"][0] != out:
            shapes = " and ".join(f"{side} {shape}" for side, shape in sorted(pair.items()))
            raise AtlasError(
                f"{key}: the adapter in {folder} does not fit {base.name}: at {path} its factors are {shapes}, the weight is {weight['shape']}; correct `model`"
            )


def _tied_embedding(before: dict[str, dict]) -> dict | None:
    """The weight that a tied head is."""
    return next((entry for name, entry in before.items() if name.endswith(EMBEDDING)), None)


# ---------------------------------------------------------------- vocabulary


def _vocabulary(
    folder: Path, base: ModelFolder, base_rows: int, rows: int, key: str, remarks: list[str]
) -> tuple[list[Path], dict[str, object]]:
    """The files of the checkpoint's own tokenizer where it is used, and what is known of the vocabulary.

    It is used where it has tokens that the base model's lacks, another end of a text, or encodes a sample in another way.
    """
    ours = load_tokenizer(base)
    known = ours.get_vocab()
    facts = {"base_rows": base_rows, "rows": rows, "tokenizer": "base model's", "added_tokens": []}
    if rows != base_rows:
        remarks.append(
            f"the embedding has {rows:,} rows, that of {base.name} {base_rows:,}; weight change is measured on those that both have"
        )
    largest = max(known.values())
    files = [folder / name for name in TOKENIZER if (folder / name).is_file()]
    if not any(path.name in ("tokenizer.json", "tokenizer.model", "vocab.json") for path in files):
        if largest >= rows:
            raise AtlasError(
                f"{key}: the embedding in {folder} has {rows:,} rows, too few for the ids up to {largest:,} of {base.name}'s tokenizer"
            )
        return [], facts
    with explained(f"{key}: transformers cannot load the tokenizer in {folder}"):
        theirs = own_tokenizer(folder)
        vocabulary = theirs.get_vocab()
    moved = sorted(token for token, number in known.items() if vocabulary.get(token) != number)
    if moved:
        raise AtlasError(
            f"{key}: the tokenizer in {folder} is another than that of {base.name}: {len(moved):,} of {len(known):,} tokens have other ids or none, the first "
            f"is {moved[0]!r}; correct `model`, or delete the tokenizer if it is not the checkpoint's"
        )
    added = sorted(vocabulary.keys() - known.keys(), key=vocabulary.get)
    if vocabulary and max(vocabulary.values()) >= rows:
        token = max(vocabulary, key=vocabulary.get)
        raise AtlasError(
            f"{key}: the tokenizer in {folder} has ids up to {vocabulary[token]:,} ({token!r}), but the embedding has {rows:,} rows; save the model after "
            "resize_token_embeddings, or take the tokenizer that belongs to the weights"
        )
    why = [
        *([f"{len(added)} tokens of its own ({', '.join(added[:3])}{', ...' if len(added) > 3 else ''})"] if added else []),
        *([f"another end of a text ({theirs.eos_token} instead of {ours.eos_token})"] if theirs.eos_token != ours.eos_token else []),
        *(["another way to encode a sample"] if theirs(SAMPLE)["input_ids"] != ours(SAMPLE)["input_ids"] else []),
    ]
    if not why:
        return [], facts
    remarks.append(f"used with its own tokenizer, which has {' and '.join(why)}")
    return files, facts | {"tokenizer": "own", "added_tokens": added}
