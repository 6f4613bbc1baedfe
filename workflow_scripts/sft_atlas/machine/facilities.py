"""What this machine has: one function per kind of thing, each of which returns findings and raises for nothing that is absent.

They import what they need inside, because the doctor must also run in a Python that has no package.
"""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from sft_atlas.core.disk import size_text
from sft_atlas.core.optional_packages import how_to_install
from sft_atlas.machine.needs import Needs

SECONDS = 5  # for each question to the hub or a program
ROOM = 5 * 2**30  # bytes below which a disk is called small
TYPED = {"1", "on", "yes", "true"}
HUB = "https://huggingface.co"


class Finding(NamedTuple):
    """A row of the doctor's table. ``needed``: the key or call that asks for it; nothing where the study does without."""

    thing: str
    here: str
    ok: bool
    remedy: str = ""
    needed: str = ""

    @property
    def verdict(self) -> str:
        return "ok" if self.ok else "missing" if self.needed else "absent"


def program(*call: str) -> str | None:
    """What a program prints; None where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# ---------------------------------------------------------------- Python


def python(root: Path) -> list[Finding]:
    """The interpreter, and the packages whose versions differ from their pins."""
    version, wanted = platform.python_version(), supported(root)
    fits = sys.implementation.name == "cpython" and all(_holds(version, each) for each in wanted.split(","))
    remedy = f"make env PYTHON=/path/to/python ({wanted})"
    found = [Finding("Python", f"{platform.python_implementation()} {version}", fits, remedy, f"CPython {wanted}")]
    absent, other = [], []
    for name, (pin, optional) in pins(root).items():
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent += [] if optional else [name]
            continue
        if have.split("+")[0] != pin.split("+")[0]:
            other.append(f"{name} {have} (pinned: {pin})")
    found.append(Finding("packages", f"{_some(absent)} not installed" if absent else "all installed", not absent, "make env", "every job"))
    if other:
        found.append(Finding("pins", _some(other), False, "make env, or go on: results state their versions"))
    return found


def supported(root: Path) -> str:
    """The versions of Python that pyproject.toml accepts: ``>=3.11,<3.14``."""
    stated = re.search(r'^requires-python *= *"([^"]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return stated[1].replace(" ", "") if stated else ">=3.11,<3.12"


def pins(root: Path) -> dict[str, tuple[str, bool]]:
    """Package -> its pinned version, and whether the lock has it for some machines only, such as those with CUDA."""
    text = (root / "envs/locks/sft-atlas.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)( *;)?", text, re.MULTILINE)
    return {name: (version, bool(marker)) for name, version, marker in lines}


def _holds(version: str, condition: str) -> bool:
    sign, bound = re.fullmatch(r"(>=|<|==|>|<=)([\d.]+)\*?", condition).groups()
    have, limit = (tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (version, bound))
    return {">=": have >= limit, "<": have < limit, "==": have == limit, ">": have > limit, "<=": have <= limit}[sign]


# ---------------------------------------------------------------- devices and kernels


def gpus(needs: Needs) -> list[Finding]:
    """GPUs with their driver, whether torch can use them, and bfloat16."""
    needed = "" if needs.slurm else needs.gpu  # on a cluster, the nodes have them
    listed = program("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    cards = [line.split(", ") for line in (listed or "").splitlines() if line.count(", ") == 2]
    if not cards:
        there = any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd")))
        here = "a GPU, but nvidia-smi does not answer" if there else "none"
        remedy = (
            "install NVIDIA's driver" if there else "run on a machine with a GPU, or with --profile slurm; on a CPU for tiny models only"
        )
        return [Finding("GPU", here, False, remedy, needed)]
    names = ", ".join(f"{name} ({float(memory) / 1024:.0f} GiB)" for name, memory, _ in cards)
    found = [Finding("GPU", names, True)]
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    driver = re.search(r"CUDA Version: *(\d+)\.(\d+)", program("nvidia-smi") or "")
    build, key = torch.version.cuda, needed or "GPU"
    if build is None:
        remedy = "install torch's CUDA build: make env on this machine, or https://pytorch.org/get-started"
        return [*found, Finding("CUDA", f"torch {torch.__version__} is built for the CPU", False, remedy, key)]
    newest = f", the driver {cards[0][2]} runs up to {driver[1]}.{driver[2]}" if driver else ""
    usable = torch.cuda.is_available()
    remedy = (
        "a newer driver, or a build of torch for an older CUDA"
        if driver and int(build.split(".")[0]) > int(driver[1])
        else "a driver that fits"
    )
    found.append(Finding("CUDA", f"torch is built for {build}{newest}", usable, remedy, key))
    if usable:
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        found.append(Finding("bfloat16", "yes" if bf16 else "emulated or none", bf16, "precision: float32, or a GPU from Ampere on"))
    return found


def kernels(needs: Needs) -> list[Finding]:
    """Optional packages that recipes, suites and trackers name."""
    known = {
        "flash_attn_interface": ("flash attention 3", "install it from https://github.com/Dao-AILab/flash-attention (hopper/)"),
        "flash_attn": ("flash attention 2", f"{how_to_install('flash-attn')}; without it, attention is torch's SDPA"),
        "liger_kernel": ("Liger kernels", how_to_install("liger-kernel")),
        "bitsandbytes": ("bitsandbytes", how_to_install("bitsandbytes")),
        "vllm": ("vLLM", "snakemake --sdm conda installs it for the suites that use it (envs/vllm.yaml)"),
        "tensorboard": ("tensorboard", how_to_install("tensorboard")),
        "trackio": ("trackio", how_to_install("trackio")),
        "wandb": ("wandb", how_to_install("wandb")),
    }
    found = []
    for module, (name, remedy) in known.items():
        there = importlib.util.find_spec(module) is not None
        found.append(Finding(name, _version(module) if there else "none", there, remedy, needs.modules.get(module, "")))
    return found


def _version(module: str) -> str:
    try:
        return metadata.version(module.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return "installed"


def compiler(needs: Needs) -> list[Finding]:
    """A C++ compiler, for `compile: true`."""
    path = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    return [Finding("C++ compiler", path or "none", bool(path), "apt-get install g++; only `compile: true` needs it", needs.compiler)]


# ---------------------------------------------------------------- disk


def disks(results: Path) -> list[Finding]:
    """Free space and write access where results, downloads and temporary files go."""
    cache = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface")
    found = []
    for name, folder, variable in (
        ("disk for results", results, "a link results -> a larger disk"),
        ("disk for the hub's cache", cache, "HF_HOME=/path/on/a/larger/disk"),
        ("disk for temporary files", Path(tempfile.gettempdir()), "TMPDIR=/path/on/a/larger/disk"),
    ):
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
        state = f"{size_text(free)} free in {folder}{'' if writable else ', which cannot be written to'}"
        needed = "" if writable and free >= 2**30 else "every job" if "cache" not in name else ""
        found.append(Finding(name, state, writable and free >= ROOM, f"`snakemake plan` says how much a study needs; {variable}", needed))
    return found


# ---------------------------------------------------------------- hub and keys


def hub(needs: Needs) -> list[Finding]:
    """Token (present, never shown) and access to what the study names. Only the hub is asked, and only if it names something of it."""
    token, where = hub_token()
    found = [
        Finding(
            "hub token", f"present ({where})" if token else "none", bool(token), "only gated or private repositories need one: HF_TOKEN"
        )
    ]
    if not needs.repositories:
        return [*found, Finding("hub", "not asked: nothing is to be fetched from it", True)]
    if variable := next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "").lower() in TYPED), None):
        return [
            *found,
            Finding("hub", f"not asked: {variable} is set", False, f"unset {variable} for fetch jobs, or give `path:` local copies"),
        ]
    address = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    refused = []
    for kind, repository in needs.repositories:
        status = _ask(f"{address}/api/{kind}s/{repository}/auth-check", token)
        if isinstance(status, str):
            remedy = "check network and proxy (HTTPS_PROXY), set HF_ENDPOINT to a mirror, or give `path:` local copies"
            return [*found, Finding("hub", f"{address} does not answer: {status}", False, remedy, f"{kind} {repository}")]
        if status != 200:
            refused.append(f"{kind} {repository} ({status})")
    if refused:
        remedy = f"accept its licence at {address}, and set HF_TOKEN to a token of that account; 404: correct the id"
        return [*found, Finding("hub", f"no access to {_some(refused)}", False, remedy, refused[0].rsplit(" ", 1)[0])]
    return [*found, Finding("hub", f"{address}: access to all {len(needs.repositories)} repositories that are not fetched yet", True)]


def hub_token() -> tuple[str | None, str]:
    """The token that the hub's library would use, and where it is."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return os.environ[name].strip(), name
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    try:
        return file.read_text(encoding="utf-8").strip() or None, str(file)
    except (OSError, UnicodeDecodeError):
        return None, ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another machine."""

    def redirect_request(self, *_):
        return None


def _ask(address: str, token: str | None) -> int | str:
    """The status of a reply, or why there is none."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def keys(needs: Needs) -> list[Finding]:
    """Keys of judges and servers; they are not asked."""
    return [
        Finding(f"key {name}", "set" if os.environ.get(name) else "not set", bool(os.environ.get(name)), f"export {name}=...", key)
        for name, key in needs.keys.items()
    ]


# ---------------------------------------------------------------- Slurm


def slurm(needs: Needs, site) -> list[Finding]:
    """Slurm's clients, Snakemake's plugin, and the partitions and GPUs that the site file (or None) names."""
    listed = program("sinfo", "--noheader", "--format=%R|%G|%l|%D") if shutil.which("sinfo") else None
    if listed is None:
        here = "sinfo does not answer" if shutil.which("sinfo") else "none"
        return [Finding("Slurm", here, False, "run on a login node of the cluster, or without --profile slurm", needs.slurm)]
    rows = [line.split("|") for line in listed.splitlines() if line.count("|") == 3]
    partitions = {name for name, *_ in rows}
    texts = [f"{name} ({nodes} nodes, {limit}{'' if gres == '(null)' else f', {gres}'})" for name, gres, limit, nodes in rows]
    found = [Finding("Slurm", f"partitions {_some(texts)}", bool(rows), "ask for access to a partition", needs.slurm)]
    plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None
    found.append(Finding("Slurm plugin", "installed" if plugin else "none", plugin, "make env", needs.slurm))
    if site is not None:
        named = [each for each in (site.partitions.cpu, site.partitions.gpu, site.partitions.multi_gpu) if each]
        unknown = [name for name in named if name not in partitions]
        remedy = f"name one of {', '.join(sorted(partitions))} in slurm/site.yaml"
        found.append(Finding("partitions of slurm/site.yaml", _some(unknown or named) or "the default", not unknown, remedy, needs.slurm))
        gpu = any("gpu" in gres for name, gres, *_ in rows if not named or name in named)
        if needs.gpu and site.device != "cpu":
            found.append(
                Finding(
                    "GPUs in Slurm",
                    "yes" if gpu else "none",
                    gpu,
                    "name a partition with GPUs in slurm/site.yaml",
                    needs.slurm and needs.gpu,
                )
            )
    return found


# ---------------------------------------------------------------- the rest


def fonts(needs: Needs) -> list[Finding]:
    """A font with Chinese, Japanese and Korean characters."""
    wide = sorted({sign for sign in needs.labels if "\u2e80" <= sign <= "\u9fff" or "\uac00" <= sign <= "\ud7af"})
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from sft_atlas.report.figures import labels

    lacking = sorted(set(wide or "模かハ한") - labels.set_fonts(wide or "模かハ한"))
    here = f"none for {''.join(lacking[:8])}" if lacking else "found"
    return [
        Finding(
            "fonts for Chinese, Japanese, Korean",
            here,
            not lacking,
            "apt-get install fonts-noto-cjk, and delete ~/.cache/matplotlib, which lists the fonts of before; figures transliterate without it",
        )
    ]


def sandbox(needs: Needs) -> list[Finding]:
    """The protections around code that models write, as an empty program in the sandbox reports them."""
    if sys.platform != "linux":
        return [Finding("sandbox", "not on Linux", False, "score suites with code on Linux", needs.sandbox)]
    from sft_atlas.evaluate import sandbox as jail

    lacking = jail.missing()
    here = f"without {', '.join(lacking)}" if lacking else "namespaces, seccomp and Landlock"
    remedy = "a newer kernel (Landlock: 5.13), or a container that allows user namespaces and seccomp"
    return [Finding("sandbox", here, not lacking, remedy, needs.sandbox)]


def browser(needs: Needs) -> list[Finding]:
    """A browser that tests can drive."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    return [Finding("browser", path or "none", bool(path), "apt-get install chromium; only tests of the atlas need it")]


def tools(needs: Needs) -> list[Finding]:
    """Programs around the workflow."""
    found = []
    for name, purpose in {
        "git": "results state the commit",
        "conda": "snakemake --sdm conda",
        "apptainer": "snakemake --sdm apptainer",
    }.items():
        path = shutil.which(name)
        found.append(Finding(name, path or "none", bool(path), f"install it, if wanted: {purpose}"))
    return found


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def as_json(found: list[Finding]) -> str:
    """Findings for programs."""
    return json.dumps([{**each._asdict(), "verdict": each.verdict} for each in found], indent=1, ensure_ascii=False)
