"""Full weights die young: however many runs a study has, few full checkpoints are on disk at once; and none is made twice."""

import re
import subprocess
import time


def weights(folder):
    """Full checkpoints on disk, wherever a training run has them."""
    return len(list(folder.result("runs").glob("*/*/*/epoch-*/weights/model.safetensors")))


def test_few_full_checkpoints_are_alive_at_once_and_no_stage_loses_what_a_later_one_needs(empty):
    study = empty.study
    study["keep_weights"] = "none"
    del study["models"]["qwen3-numbers"]
    study["blocks"] = {name: study["blocks"][name] | {"models": "*"} for name in ("single", "merged", "trajectory")}
    study["blocks"]["single"]["recipes"], study["blocks"]["merged"]["recipes"] = ["full"], ["merged-full"]
    study["blocks"]["trajectory"]["datasets"] = ["arithmetic", "spelling"]
    study["recipes"] = {name: study["recipes"][name] for name in ("full", "merged-full", "constant-96", "constant-288")}
    empty.write(study)
    process = subprocess.Popen(
        empty.command("scores"),
        cwd=empty.path,
        env=empty.environment(CUDA_VISIBLE_DEVICES="0,1"),  # as on a machine with two GPUs, as far as Snakemake and the jobs can tell
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most = 0
    while process.poll() is None:
        most = max(most, weights(empty))
        time.sleep(0.02)
    assert process.returncode == 0
    # Twelve in all: two single ones and two of each of the five other runs. Two cores: two runs are used up while at most two train.
    # That is enough to see it: without the priorities in rules/ every run is trained first, and all twelve are on disk at once.
    assert len(list(empty.result("runs").glob("*/*/*/epoch-[1-9]*/scores/tasks.parquet"))) == 12
    assert 0 < most <= 6
    assert weights(empty) == 0
    # Only scores were asked for; what else is made of weights that are gone by now is there too.
    planned = empty.planned()
    assert planned["measure_representation"] == 1  # the base model's, whose weights stay
    assert "evaluate" not in planned and not [name for name in planned if name.startswith("train")]
    logs = [
        path.read_text() for kind in ("train", "evaluate", "measure_representation") for path in empty.result(f"logs/{kind}").rglob("*.log")
    ]
    assert {name for log in logs for name in re.findall(r"on GPU (.*)$", log, re.M)} == {"0", "1"}
    assert all("on GPU" in log for log in logs)
