"""How a result was made: settings, versions, code, machine, hashes of input files, resources used."""

import contextlib
import os
import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path

from sft_atlas.core.files import sha256

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "lm_eval", "accelerate", "safetensors", "polars", "numpy")


def record_provenance(settings: object, inputs: dict[str, Path] | None = None, **more: object) -> dict[str, object]:
    """The provenance of a result, as plain JSON values."""
    return {
        "settings": settings,
        "inputs": {name: {"path": str(path), "sha256": sha256(path)} for name, path in (inputs or {}).items()},
        "versions": {"python": platform.python_version(), **_versions()},
        "code": git_state(),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        **more,
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def git_state() -> dict[str, object]:
    """Commit and dirty flag of the checkout; nulls outside a git checkout."""
    if not (ROOT / ".git").exists():
        return {"commit": None, "dirty": None}
    call = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    head = subprocess.run([*call, "rev-parse", "--verify", "-q", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        [*call, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!slurm/site.yaml"], capture_output=True, text=True
    )
    return {"commit": head.stdout.strip() or None, "dirty": bool(changed.stdout.strip())}


def resource_usage() -> dict[str, float]:
    """CPU seconds and peak resident memory (MiB) of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": round(used.ru_utime + used.ru_stime, 2), "peak_memory_mib": round(used.ru_maxrss / 1024, 1)}
