"""Remove the lock that a killed Snakemake left in this folder; refuse while Snakemake is running here."""

import argparse
import subprocess
import sys
from pathlib import Path

from sft_atlas.core.errors import AtlasError


def running_here() -> list[int]:
    """Process ids of Snakemake in this folder, except those that started this process."""
    import psutil

    own = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    pids = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = [Path(word).name for word in process.info["cmdline"] or []]
        if "snakemake" not in words[:3] or process.info["pid"] in own:
            continue
        try:
            if Path(process.cwd()) == Path.cwd():
                pids.append(process.info["pid"])
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to another user
    return pids


def main(args: argparse.Namespace) -> None:
    if not any(Path(".snakemake/locks").glob("*")):
        return
    pids = running_here()
    if pids:
        raise AtlasError(
            f"Snakemake is already running in this folder (process {', '.join(map(str, pids))}); wait until it ends, or stop it"
        )
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock", "--quiet"], check=True)
