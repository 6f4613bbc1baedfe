"""Measure how fast `snakemake --profile slurm` submits jobs, and count the submissions of a study.

    .venv/bin/python benchmarks/slurm_submission.py --study config/paper.yaml --jobs 200

Starts the test Slurm of tests/slurm on this machine with closed partitions, so that jobs only queue, submits trivial jobs through the
profile, and times the lines that Snakemake prints. The submissions of the study are counted in a dry run: every job that is not local,
with and without the profile's groups. Prints Markdown for benchmarks/README.md.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import ROOT, machine, print_table, run, snakemake

sys.path.insert(0, str(ROOT / "tests"))

SNAKEFILE = """
rule all:
    default_target: True
    input: expand("out/{i}", i=range(JOBS))
rule one:
    output: "out/{i}"
    resources: mem_mb=500, runtime=10, slurm_partition="cpu", slurm_account="lab"
    shell: "touch {output}"
"""


def submission_rate(jobs: int) -> tuple[float, float]:
    """Submissions per second, from the first to the last, and CPU seconds of Snakemake and sbatch per submission."""
    from helpers.lab import Lab, install

    if reason := install():
        sys.exit(f"no Slurm: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-rate-") as folder:
        work = Path(folder) / "work"
        shutil.copytree(ROOT / "slurm", work / "slurm")
        (work / "Snakefile").write_text(SNAKEFILE.replace("JOBS", str(jobs)))
        lab = Lab(Path(folder) / "lab", nodes=1)
        try:
            lab.up()
            for partition in ("cpu", "gpu"):
                lab.run("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
            command = snakemake("--profile", "slurm", "--jobs", str(jobs), "--workflow-profile", "none")
            process = subprocess.Popen(command, cwd=work, env=lab.client(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            times = []
            for line in process.stdout:
                if "has been submitted" in line:
                    times.append(time.perf_counter())
                    if len(times) == jobs:
                        process.send_signal(signal.SIGINT)
            _, _, used = os.wait4(process.pid, 0)
        finally:
            lab.down()
    return (len(times) - 1) / (times[-1] - times[0]), (used.ru_utime + used.ru_stime) / len(times)


def count_submissions(study: str) -> tuple[int, int]:
    """Cluster jobs of a study from nothing, and submissions once the profile has grouped them."""
    text = run(snakemake("--profile", "slurm", "-n", "--forceall", "--configfile", study), cwd=ROOT).text
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    local = {"all", *re.findall(r"\w+", "".join(re.findall(r"^localrules:\n((?:    \w+,\n)+)", rules, re.M)))}
    ungrouped = [name for name in re.findall(r"^rule (\S+):", text, re.M) if name not in local]
    grouped = re.findall(r"^ +rule (\S+):", text, re.M)
    return len(ungrouped) + len(grouped), len(ungrouped) + len(re.findall(r"Group job (\S+)", text))


def main(study: str, jobs: int) -> None:
    rate, cpu = submission_rate(jobs)
    ungrouped, grouped = count_submissions(study)
    print(f"{machine()}. {rate:.1f} submissions per second, {cpu:.3f} CPU seconds each ({jobs} jobs).\n")
    counts = {"with the profile's groups": grouped, "without groups": ungrouped}
    print_table([study, "submissions", "minutes to submit"], ((name, f"{n:,}", f"{n / rate / 60:.1f}") for name, n in counts.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="config/paper.yaml")
    parser.add_argument("--jobs", type=int, default=200)
    main(**vars(parser.parse_args()))
