"""Base models and checkpoints as Hugging Face folders: the manifest of a base model, and loading.

The manifest ``model.json`` says where a base model is, seen from its own folder; a checkpoint is a folder with full weights or a LoRA adapter.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import hash_weights, read_json, sha256, write_json
from sft_atlas.core.integrity import damage, require_whole_weights
from sft_atlas.core.log import LOG
from sft_atlas.core.optional_packages import how_to_install
from sft_atlas.core.provenance import record_provenance
from sft_atlas.study.paths import RECORD, epoch_of, name_folder, named_folder

WEIGHTS_ENDING = ".safetensors"
CHECKED = (WEIGHTS_ENDING, ".json", ".jinja", ".model", ".txt", ".py")  # endings of the files that loading reads


TRAIN_AGAIN = "delete it and run again: the run is trained again"


@dataclass(frozen=True)
class ModelFolder:
    """A base model on disk: its folder ``path``, the ``dtype`` it is used in, and whether code in the folder may run.

    ``hashes``: SHA-256 by file name, as recorded in ``manifest``; both are empty for a folder without a manifest.
    """

    name: str
    path: Path
    dtype: str
    trust_remote_code: bool
    hashes: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    manifest: Path | None = field(default=None, compare=False, repr=False)

    @classmethod
    def read(cls, manifest: Path) -> "ModelFolder":
        """Read a manifest. AtlasError where it is damaged, or where there is no model in the folder that it names."""
        entry = read_json(manifest)
        path = named_folder(entry["path"], Path(manifest))
        if not (path / "config.json").exists():
            raise AtlasError(f"{manifest} names {path}, where there is no config.json; delete {manifest} and run again")
        return cls(entry["name"], path, entry["dtype"], entry["trust_remote_code"], entry.get("sha256") or {}, Path(manifest))

    def verify(self, weights: bool = True) -> None:
        """AtlasError where a file that loading reads is not as the manifest recorded it, or weights are cut short.

        Without ``weights`` only the small files are looked at, such as the tokenizer's.
        """
        if self.manifest and self.path.resolve().parent == self.manifest.resolve().parent:
            remedy = f"delete {self.path} and {self.manifest} and run again: the model is fetched again"
        else:
            remedy = f"restore the file; if you changed it on purpose, delete {self.manifest or self.path} and run again"
        checked = [ending for ending in CHECKED if weights or ending != WEIGHTS_ENDING]
        if problem := damage(self.path, {name: digest for name, digest in self.hashes.items() if Path(name).suffix in checked}):
            raise AtlasError(f"{problem}; {remedy}")
        if weights:
            require_whole_weights(self.path, remedy)

    def write(self, manifest: Path, source: dict[str, object]) -> None:
        """Write the manifest, with the SHA-256 of each file of the folder and ``source``, what the folder was made from."""
        hashes = {path.name: sha256(path) for path in sorted(self.path.iterdir()) if path.is_file()}
        path = name_folder(self.path, manifest)
        entry = {"name": self.name, "path": path, "dtype": self.dtype, "trust_remote_code": self.trust_remote_code}
        write_json(manifest, entry | {"sha256": hashes, "provenance": record_provenance(source)})


def is_adapter(weights: Path) -> bool:
    """Whether a checkpoint folder holds a LoRA adapter rather than full weights."""
    return (Path(weights) / "adapter_config.json").exists()


def recorded_hashes(weights: Path) -> dict[str, str] | None:
    """SHA-256 of a checkpoint's weights by file name, as its run recorded them in train.json; None where it did not."""
    return _recorded(weights, "weights_sha256") or None


def _recorded(weights: Path, key: str) -> dict[str, str]:
    record = Path(weights).parent.parent / RECORD
    return read_json(record, TRAIN_AGAIN).get(key, {}).get(str(epoch_of(Path(weights).parent)), {}) if record.exists() else {}


def weights_identity(weights: Path) -> dict[str, str]:
    """SHA-256 of a checkpoint's weights by file name: recorded, else computed."""
    return recorded_hashes(weights) or hash_weights(weights)


def verify_checkpoint(weights: Path, contents: bool = True) -> None:
    """AtlasError where a checkpoint's weights or configuration are not as its run recorded them, or are cut short.

    Without ``contents`` only the configuration is looked at.
    """
    record = Path(weights).parent.parent / RECORD
    remedy = f"delete {record} and run again: the run is trained again" if record.exists() else "restore the file"
    recorded = _recorded(weights, "configuration_sha256") | ((recorded_hashes(weights) or {}) if contents else {})
    if problem := damage(Path(weights), recorded):
        raise AtlasError(f"{problem}; {remedy}")
    if contents:
        require_whole_weights(Path(weights), remedy)


def device() -> str:
    """The device type of the accelerator (such as ``cuda``) if there is one, else ``cpu``."""
    import torch

    return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"


def load_tokenizer(base: ModelFolder, weights: Path | None = None):
    """The base model's tokenizer; EOS is the pad token where it has none (padding is masked). AtlasError where it has no EOS or is damaged.

    A checkpoint that was trained elsewhere may have a tokenizer of its own beside its ``weights``, see :func:`tokenizer_folder`. It is
    used with the base model's chat template, so that both are asked the same.
    """
    from transformers import AutoTokenizer

    base.verify(weights=False)
    tokenizer = AutoTokenizer.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
    if tokenizer_folder(base, weights) != base.path:
        chat = tokenizer.chat_template
        tokenizer = own_tokenizer(weights)
        tokenizer.chat_template = chat
    if tokenizer.eos_token_id is None:
        raise AtlasError(f"the tokenizer of {base.name} in {base.path} has no EOS token; supervised fine-tuning needs one")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def own_tokenizer(folder: Path):
    """The tokenizer in the folder of a checkpoint; code in the folder is not run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def tokenizer_folder(base: ModelFolder, weights: Path | None) -> Path:
    """Where a checkpoint's tokenizer is: beside its weights, where rule ``fetch_checkpoint`` published one, else with the base model."""
    own = weights is not None and (Path(weights) / "tokenizer_config.json").exists()
    return Path(weights) if own else base.path


def load_model(base: ModelFolder, weights: Path | None = None, dtype: str | None = None, facts: dict[str, object] | None = None):
    """Load a base model, or a checkpoint of it, for inference in ``dtype`` (default: the base model's own) on the available device.

    Of the folder's generation settings only the token ids are kept, so that each job states its own decoding. A LoRA adapter is merged, see
    :class:`SharedBase`. ``facts`` receives the dtype that the model runs in, and with an adapter how it is applied. AtlasError where a file is
    not what was recorded when it was made, or where a weight or a logit is not finite: damaged and diverged weights would score what chance
    gives.
    """
    if weights is not None and is_adapter(weights):
        return SharedBase(base, weights, reusable=False).with_adapter(weights, facts)
    if weights is not None:
        verify_checkpoint(weights)
    else:
        base.verify()
    model = _from_folder(base.path if weights is None else weights, base, dtype or base.dtype)
    return _ready(model, weights or base.path, "base model" if weights is None else "full weights", facts)


class SharedBase:
    """A base model in float32 into which LoRA adapters are merged, one after another, each into the base model's own weights.

    A merged adapter is taken out by restoring the weights that it changed from a copy in the node's memory, bit for bit; subtracting it
    would leave rounding errors behind. Adapters are merged in float32, and the model stays in float32: in bfloat16 most of a small
    update is lost, also unmerged, where a layer's output is rounded after the adapter's part is added. The base of a QLoRA adapter is the
    one that it was trained on, rounded to four bits. ``weights``: the first adapter; without ``reusable`` the only one, and no copy is kept.
    """

    def __init__(self, base: ModelFolder, weights: Path, reusable: bool = True):
        base.verify()
        self.base, self.four_bits, self.reusable = base, trained_in_4bit(weights), reusable
        self.model = _from_folder(base.path, base, "float32", self.four_bits).to(device())
        self._changed: dict[str, object] = {}  # parameters of the base model that the last adapter changed

    def fits(self, weights: Path) -> bool:
        """Whether an adapter was trained on this base: with or without rounding to four bits."""
        return self.four_bits == trained_in_4bit(weights)

    def with_adapter(self, weights: Path, facts: dict[str, object] | None = None):
        """The model with this adapter merged, and no other; it is the same object as before, changed.

        ``facts`` receives its dtype, how the adapter is applied, and the largest difference to the logits of the unmerged adapter on a short
        probe. AtlasError as in :func:`load_model`.
        """
        from peft import PeftModel

        verify_checkpoint(weights)
        self._restore()
        adapted = PeftModel.from_pretrained(self.model, weights, torch_device=str(self.model.device)).eval()
        before = _probe(adapted) if facts is not None else None
        if self.reusable:
            self._changed = _changed_by_merging(adapted)
        self.model = adapted.merge_and_unload()
        if facts is not None:
            facts |= {
                "adapter": f"merged {'into the dequantized NF4 base ' if self.four_bits else ''}and run in float32",
                "merge_logit_difference": (_probe(self.model) - before).abs().max().item(),
            }
        return _ready(self.model, weights, "adapter, merged in float32", facts)

    def _restore(self) -> None:
        import torch

        own = dict(self.model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, tensor in self._changed.items():
                own[name].copy_(tensor)


def _changed_by_merging(adapted) -> dict[str, object]:
    """Copies of the parameters of a base model that merging a PeftModel changes, by their names in the base model."""
    kept = {}
    for place, module in adapted.base_model.model.named_modules():
        original = getattr(module, "base_layer", getattr(module, "original_module", None))  # of a matrix with an adapter; of a trained copy
        if original is not None:
            kept |= {f"{place}.{name}": tensor.detach().cpu().clone() for name, tensor in original.named_parameters()}
    return kept


def _from_folder(folder: Path, base: ModelFolder, dtype: str, four_bits: bool = False):
    """A model in a dtype; ``four_bits``: its matrices rounded to four bits first."""
    import torch
    from transformers import AutoModelForCausalLM

    target = getattr(torch, dtype)
    options = {"quantization_config": nf4(torch.float32)} if four_bits else {}
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=target, trust_remote_code=base.trust_remote_code, use_safetensors=True, **options
    )
    return model.dequantize().to(target) if four_bits else model


def _ready(model, source: Path, kind: str, facts: dict[str, object] | None):
    """A model on the device, checked and with no decoding settings of its own."""
    model = model.to(device()).eval()
    model.name_or_path = str(source)  # for messages
    _check_finite(model)
    model.generation_config = token_ids_only(model.generation_config)
    if facts is not None:
        facts["dtype"] = str(model.dtype).removeprefix("torch.")
    LOG.info("loaded %s (%s): device %s, dtype %s", source, kind, model.device, model.dtype)
    return model


def nf4(compute):
    """The quantization of QLoRA, NF4 with double quantization, for layers that compute in the torch dtype ``compute``."""
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise AtlasError(
            f"load_in_4bit needs bitsandbytes, which is not installed; {how_to_install('bitsandbytes')}, or remove load_in_4bit"
        )
    form = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": compute}
    return BitsAndBytesConfig(load_in_4bit=True, **form)


def trained_in_4bit(weights: Path) -> bool:
    """Whether the run that a checkpoint belongs to trained on a base in four bits."""
    record = Path(weights).parent.parent / RECORD
    return record.exists() and bool(read_json(record).get("settings", {}).get("load_in_4bit"))


def token_ids_only(config):
    """A GenerationConfig with the ids of BOS, padding and EOS (one or a list) of ``config``, and the library's defaults: greedy decoding.

    A negative id, which stands for none in some older folders, is left out.
    """
    from transformers import GenerationConfig

    ids = {name: getattr(config, name) for name in ("bos_token_id", "pad_token_id", "eos_token_id")}
    return GenerationConfig(**{name: value for name, value in ids.items() if not isinstance(value, int) or value >= 0})


def savable_generation_config(config, name: str):
    """``config``, or only its token ids where transformers would refuse to save it; ``name``: of the run, for the log."""
    try:
        config.validate(strict=True)
    except ValueError as error:
        reason = " ".join(str(error).split())
        LOG.warning("%s: checkpoints get the base model's token ids, but not the rest of its generation_config.json: %s", name, reason)
        return token_ids_only(config)
    return config


def end_ids(model, tokenizer) -> list[int]:
    """Ids of the tokens that end an answer: the tokenizer's EOS, and those of the model's generation config."""
    own = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [] if own is None else [own])})


def end_ids_of_folder(folder: Path, tokenizer) -> list[int]:
    """:func:`end_ids` of a model that is not loaded, from its folder."""
    from transformers import GenerationConfig

    path = Path(folder) / "generation_config.json"
    own = (token_ids_only(GenerationConfig.from_pretrained(folder)) if path.exists() else GenerationConfig()).eos_token_id
    return sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [] if own is None else [own])})


def require_finite_weights(weights: Path) -> None:
    """AtlasError where a checkpoint that is not loaded here has a value that is not finite; its files are read one tensor at a time."""
    from safetensors import safe_open

    for path in sorted(Path(weights).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no dictionary)
                if not is_finite(file.get_tensor(name)):
                    raise AtlasError(_diverged(weights, f"{name} has values that are not finite"))


def is_finite(tensor) -> bool:
    """Whether all values of a floating-point tensor are finite. Makes no copy of the tensor's size, unless its elements have eight bits."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # torch has no minimum of eight bits
    return bool(torch.stack(torch.aminmax(wide.detach())).isfinite().all())


def _check_finite(model) -> None:
    broken = next((name for name, parameter in model.named_parameters() if not is_finite(parameter)), None)
    if broken or not is_finite(_probe(model)):
        what = f"{broken} has values that are not finite" if broken else "its logits are not finite"
        raise AtlasError(_diverged(model.name_or_path, what))


def _diverged(name: object, what: str) -> str:
    return f"{name}: {what}; if a run made these weights, it diverged: train it with a lower learning rate"


def _probe(model):
    """Logits [16, vocabulary] in float32 of the sequence of token ids 0 to 15, to compare a model before and after a change."""
    import torch

    with torch.inference_mode():
        return model(torch.arange(16, device=model.device)[None]).logits[0].float()
