"""GPUs of this machine, in local runs: Snakemake starts no more jobs than there are GPUs, and each job takes GPUs that no other job has.

Standard library only, because the Snakefile imports it. On a cluster the scheduler assigns GPUs.
"""

import fcntl
import os
import re
import tempfile
import time
from pathlib import Path

from sft_atlas.core.errors import AtlasError

VARIABLE = "SFT_ATLAS_GPUS"  # names of the GPUs that jobs share; set by the workflow in local runs alone
_held: list[object] = []  # open lock files: the locks end with the process, however it ends


def list_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that jobs may use: those of CUDA_VISIBLE_DEVICES if it is set, otherwise all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.replace(" ", "").split(",") if name and name != "-1"]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in numbers if match), key=int)


def claim(count: int) -> list[str]:
    """Take ``count`` GPUs for this process and its children, waiting while other jobs of this user hold them; returns their names.

    Takes none outside a local run of the workflow. Raises AtlasError if the machine has fewer GPUs.
    """
    names = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
    if not names or not count:
        return []
    if count > len(names):
        raise AtlasError(f"the job needs {count} GPUs and this machine has {len(names)}; give its recipe fewer `gpus`, or run it elsewhere")
    folder = Path(tempfile.gettempdir()) / f"sft-atlas-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        taken = {}
        for name in names:
            handle = open(folder / f"{name}.lock", "w")  # noqa: SIM115 - stays open as long as the process lives
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                continue
            taken[name] = handle
            if len(taken) == count:
                _held.extend(taken.values())
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)  # read when CUDA starts, which is later
                return list(taken)
        for handle in taken.values():  # not kept while waiting: two jobs would wait for each other
            handle.close()
        time.sleep(1)
