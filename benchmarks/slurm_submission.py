"""Measure how fast `snakemake --profile slurm` submits jobs, and how many submissions a study makes.

    .venv/bin/python benchmarks/slurm_submission.py --study config/paper.yaml --jobs 200

Brings up the test Slurm of tests/slurm on this machine, closes its partitions so that jobs only queue, submits jobs of one trivial rule
through the profile, and reads the time of each off Snakemake's own lines. Submissions of the study are counted from a dry run: every
job that is not local, with and without the profile's groups. Prints Markdown for benchmarks/README.md.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/slurm"))

RULES = """
rule all:
    default_target: True
    input: expand("out/{i}", i=range(JOBS))
rule one:
    output: "out/{i}"
    resources: mem_mb=500, runtime=10, slurm_partition="cpu", slurm_account="lab"
    shell: "touch {output}"
"""


def rate(jobs: int) -> tuple[float, float]:
    """Submissions a second, and CPU seconds of Snakemake and sbatch for each, from the second submission to the last."""
    from helpers.lab import Lab, install

    if reason := install():
        sys.exit(f"no Slurm: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-rate-"))
    lab = Lab(folder / "lab", nodes=1)
    try:
        lab.up()
        for partition in ("cpu", "gpu"):
            lab.run("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
        work = folder / "work"
        work.mkdir()
        shutil.copytree(ROOT / "slurm", work / "slurm")
        (work / "Snakefile").write_text(RULES.replace("JOBS", str(jobs)))
        call = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--jobs", str(jobs), "--workflow-profile", "none"]
        process = subprocess.Popen(call, cwd=work, env=lab.client(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        before, times = os.times(), []
        for line in process.stdout:
            if "has been submitted" in line:
                times.append(time.perf_counter())
                if len(times) == jobs:
                    process.send_signal(signal.SIGINT)
        process.wait()
        after = os.times()
    finally:
        lab.down()
        shutil.rmtree(folder)
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return (len(times) - 1) / (times[-1] - times[0]), cpu / len(times)


def submissions(study: str) -> tuple[int, int]:
    """Cluster jobs of a study from nothing, and the submissions that the profile's groups make of them."""
    call = [sys.executable, "-m", "snakemake", "--profile", "slurm", "-n", "--forceall", "--configfile", study]
    text = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    local = set(re.findall(r"^    (\w+),$", "".join(_local_rules()), re.MULTILINE)) | {"all"}
    single = [name for name in re.findall(r"^rule (\S+):", text, re.MULTILINE) if name not in local]
    grouped = re.findall(r"^ +rule (\S+):", text, re.MULTILINE)
    return len(single) + len(grouped), len(single) + len(re.findall(r"Group job (\S+)", text))


def _local_rules() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk")]
    return [block for text in texts for block in re.findall(r"^localrules:\n(?:    \w+,\n)+", text, re.MULTILINE)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="config/paper.yaml")
    parser.add_argument("--jobs", type=int, default=200)
    args = parser.parse_args()
    per_second, cpu = rate(args.jobs)
    jobs, grouped = submissions(args.study)
    print(f"submission: {per_second:.1f} a second, {cpu:.3f} CPU-s each ({args.jobs} jobs)\n")
    print(f"| {args.study} | submissions | time to submit |\n|---|---|---|")
    for label, count in (("as the profile groups", grouped), ("without groups", jobs)):
        print(f"| {label} | {count:,} | {count / per_second / 60:.1f} min |")


if __name__ == "__main__":
    main()
