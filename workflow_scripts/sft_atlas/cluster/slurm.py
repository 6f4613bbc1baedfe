"""Questions to Slurm: why a job ended, and which jobs are in the queue."""

import functools
import getpass
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.job import ATTEMPTS
from sft_atlas.core.log import LOG

EVERYTHING = frozenset({"memory", "time"})


def shortages(log: Path, failures: int) -> Counter:
    """How often "memory" and "time" ran out in the last ``failures`` Slurm jobs of a job, whose numbers stand in a file beside its log."""
    attempts = Path(f"{log}{ATTEMPTS}")
    if not failures or not attempts.exists():
        return Counter()  # it failed before it opened its log
    numbers = dict.fromkeys(attempts.read_text().split())  # Slurm starts a job again under the same number
    return Counter(kind for job in list(numbers)[-failures:] for kind in shortage(job))


@functools.cache
def shortage(job: str) -> frozenset[str]:
    """What an ended Slurm job ran out of: nothing, "memory" or "time"; both if Slurm has forgotten it."""
    for call, read in (
        (["sacct", "--noheader", "--parsable2", "--jobs", job, "--format=State,ExitCode"], read_sacct),
        (["scontrol", "--oneliner", "show", "job", job], read_scontrol),
    ):
        try:
            answer = subprocess.run(call, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            LOG.warning("%s: %s", call[0], error)
            continue
        if answer.returncode == 0 and answer.stdout.strip():
            return ran_out_of(read(answer.stdout))
    LOG.warning("Slurm no longer knows why its job %s ended; the retry gets more memory and more time", job)
    return EVERYTHING


def read_sacct(text: str) -> list[tuple[str, str]]:
    """State and exit code of a job and its steps, the job first, from lines ``STATE|CODE:SIGNAL``."""
    return [tuple(line.split("|")) for line in text.strip().splitlines()]


def read_scontrol(text: str) -> list[tuple[str, str]]:
    """State and exit code of a job from ``scontrol --oneliner show job``."""
    fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
    return [(fields["JobState"], fields["ExitCode"])]


def ran_out_of(ends: list[tuple[str, str]]) -> frozenset[str]:
    """What a job ran out of, from states and exit codes of itself (first) and its steps.

    With control groups Slurm says OUT_OF_MEMORY. Without them it ends the job by signal 9 and calls it FAILED; whatever else ends a
    job by that signal has a state of its own (CANCELLED, NODE_FAIL, PREEMPTED).
    """
    states = [state.split()[0] for state, _ in ends]
    if "TIMEOUT" in states or "DEADLINE" in states:
        return frozenset({"time"})
    killed = states[0] == "FAILED" and any(code.endswith(":9") for _, code in ends)
    return frozenset({"memory"}) if killed or "OUT_OF_MEMORY" in states else frozenset()


def queued(folder: Path) -> dict[str, list[str]]:
    """Slurm ids, by job comment, of this user's waiting and running jobs that work in ``folder``."""
    call = ["squeue", "--noheader", "--user", getpass.getuser(), "--format=%i|%k|%Z"]
    answer = subprocess.run(call, capture_output=True, text=True)
    if answer.returncode:
        raise AtlasError(f"squeue failed: {answer.stderr.strip()}; is Slurm up?")
    ids = defaultdict(list)
    for line in answer.stdout.splitlines():
        job, comment, where = line.split("|", 2)
        if where == str(folder):
            ids[comment].append(job)
    return dict(ids)
