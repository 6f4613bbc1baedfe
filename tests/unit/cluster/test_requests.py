"""What jobs and their retries request of a cluster, and what Slurm's answers mean."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sft_atlas.cluster import requests, slurm
from sft_atlas.cluster.inputs import OF_A_CHECKPOINT
from sft_atlas.cluster.requests import JobRequest, JobRequests, scaled_for_retry
from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.plan.forecast import Forecast
from sft_atlas.study import site as sites
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.site import Site, device
from sft_atlas.study.study import from_config, load

PAPER = load(ROOT / "config/paper.yaml")
FULL = {"model": "llama3-8b", "dataset": "magicoder", "recipe": "full"}
LORA = FULL | {"recipe": "lora"}


def forecast(name, study=PAPER):
    return Forecast(study, device(ROOT / "config/devices.yaml", name, "test"), Path("results"))


def job_requests(name, study=PAPER):
    return JobRequests(forecast(name, study), gpus=name != "cpu")


# ---------------------------------------------------------------- requests


def test_a_training_run_asks_for_its_model_and_its_tokens():
    request = job_requests("h100").of("train", FULL)
    parameters = PAPER.file.models["llama3-8b"].parameters
    high = 6 * parameters * 1000 * 10 * PAPER.file.plan.tokens["magicoder"][2] / (4 * 989e12 * 0.20) + 240
    assert request.gpus == 4 and request.partition == "multi_gpu"
    assert high * 1.25 / 60 <= request.minutes < high * 1.25 / 60 + 5
    assert 16 * parameters / 1e6 < request.mem_mb < 24 * parameters / 1e6  # float32 weights, read by each process, and some more
    assert job_requests("h100").of("train", LORA).gpus == job_requests("h100").of("evaluate", FULL | {"suite": "zero-shot"}).gpus == 1


def test_lora_needs_less_of_everything():
    full, lora = (job_requests("h100").of("train", run) for run in (FULL, LORA))
    assert lora.mem_mb < full.mem_mb and lora.minutes * lora.gpus <= full.minutes * full.gpus


def test_more_rows_and_a_slower_device_take_longer():
    short = FULL | {"model": "olmo-7b", "recipe": "constant-1k"}
    long = short | {"recipe": "constant-20k"}
    assert job_requests("h100").of("train", long).minutes > 5 * job_requests("h100").of("train", short).minutes
    assert job_requests("a100").of("train", long).minutes > job_requests("h100").of("train", long).minutes


def test_a_cpu_needs_no_gpu_and_holds_everything_in_the_nodes_memory():
    request = job_requests("cpu").of("train", FULL)
    held = 16 * PAPER.file.models["llama3-8b"].parameters  # weights, gradients and two moments
    assert request.gpus == 0 and request.partition == "cpu" and request.mem_mb > held / 1e6


def test_a_merged_adapter_is_held_and_scored_in_float32():
    checkpoint = {"suite": "zero-shot", "epoch": "10"}
    full, lora = (job_requests("h100").of("evaluate", run | checkpoint) for run in (FULL, LORA))
    assert lora.mem_mb > 1.4 * full.mem_mb and lora.minutes > 2 * full.minutes


@pytest.mark.parametrize("kind", ["prepare_dataset", "merge_datasets", "check_overlap", "collect", "plot", "write_findings", "write_atlas"])
def test_a_job_without_a_model_needs_no_gpu(kind):
    assert job_requests("h100").of(kind, {}).partition == "cpu"


def test_a_study_that_states_nothing_gets_upper_bounds():
    demo = load(ROOT / "config/demo.yaml")
    run = {"model": "qwen3-numbers", "dataset": "all", "recipe": "merged-full"}
    for name in ("h100", "cpu"):
        all_requests = job_requests(name, demo)
        for kind in ("pretrain_demo_model", "train", "evaluate", "measure_layers", "measure_representation", "measure_perplexity"):
            request = all_requests.of(kind, run | {"suite": "tasks", "epoch": "1"})
            assert request.minutes >= requests.SHORTEST and request.mem_mb >= 2000


def test_ranks_of_weight_changes_cost_time_and_memory_that_the_sums_do_not():
    config = strict_yaml(ROOT / "config/paper.yaml")
    ranks = from_config(config | {"measure": {"layers": {"ranks": True}}}, "ranks")
    plain, ranked = (job_requests("h100", study).of("measure_layers", FULL | {"epoch": "10"}) for study in (PAPER, ranks))
    assert plain.mem_mb < 4000 and plain.gpus == ranked.gpus == 0
    assert ranked.mem_mb > plain.mem_mb + 4000 and ranked.minutes > plain.minutes + 30


def test_several_gpus_make_another_class_of_partition():
    assert [JobRequest(gpus, 1, 1).partition for gpus in (0, 1, 2, 8)] == ["cpu", "gpu", "multi_gpu", "multi_gpu"]


def test_several_nodes_share_a_run():
    """GPUs and memory are those of each node, minutes those of the run."""
    config = strict_yaml(ROOT / "config/paper.yaml")
    config["recipes"]["full"] |= {"gpus": 8, "nodes": 2}
    one, two = job_requests("h100"), job_requests("h100", from_config(config, "two"))
    request = two.of("train", FULL)
    assert (request.gpus, request.nodes, request.partition) == (4, 2, "multi_gpu")
    assert request.mem_mb == one.of("train", FULL).mem_mb and request.minutes < one.of("train", FULL).minutes
    assert JobRequest(1, 1, 1, nodes=2).partition == "multi_gpu"


def test_the_shares_of_a_checkpoints_jobs_add_up():
    paper = job_requests("h100")
    place = FULL | {"epoch": "10"}
    parts = [paper.share("evaluate", place | {"suite": suite}) for suite in PAPER.file.suites]
    parts += [paper.share(kind, place) for kind in ("measure_layers", "measure_representation")]
    assert sum(parts) == pytest.approx(1)


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("lacking", "wanted"),
    [({}, (1000, 60)), ({"memory": 1}, (2000, 60)), ({"time": 1}, (1000, 120)), ({"memory": 2, "time": 1}, (4000, 120))],
)
def test_a_retry_asks_for_more_of_what_ran_out(lacking, wanted):
    request = scaled_for_retry(JobRequest(1, 1000, 60), lacking, Site())
    assert (request.mem_mb, request.minutes) == wanted and request.gpus == 1


def test_no_job_asks_for_more_than_the_site_has():
    request = scaled_for_retry(JobRequest(1, 400_000, 1000), {"memory": 1, "time": 1}, Site(max_minutes=1440, max_memory_gb=500))
    assert (request.mem_mb, request.minutes) == (500_000, 1440)
    assert scaled_for_retry(JobRequest(1, 1, 1000), {}, Site(max_minutes=1440), share=0.5).minutes == 720


@pytest.mark.parametrize(
    ("told", "lacking"),
    [
        ("COMPLETED|0:0\nCOMPLETED|0:0\n", set()),
        ("TIMEOUT|0:0\nCANCELLED|0:15\nCANCELLED|0:15\n", {"time"}),
        ("DEADLINE|0:0\n", {"time"}),
        ("OUT_OF_MEMORY|0:125\nOUT_OF_MEMORY|0:125\n", {"memory"}),
        ("FAILED|1:0\nFAILED|1:0\nOUT_OF_MEMORY|0:125\n", {"memory"}),  # control groups killed the job's own process only
        ("FAILED|0:9\nCANCELLED|0:9\n", {"memory"}),  # no control groups; seen on Slurm 22.05
        ("CANCELLED by 1000|0:0\nCANCELLED|0:9\n", set()),
        ("NODE_FAIL|1:0\nCANCELLED|0:9\n", set()),
        ("PREEMPTED|0:15\n", set()),
        ("FAILED|1:0\nFAILED|1:0\nFAILED|1:0\n", set()),
    ],
)
def test_what_a_job_ran_out_of(told, lacking):
    assert slurm.ran_out_of(slurm.read_sacct(told)) == lacking


def test_the_controller_is_asked_where_there_is_no_accounting():
    line = "JobId=2 JobName=a b UserId=root(0) JobState=TIMEOUT Reason=TimeLimit Restarts=0 ExitCode=0:15 RunTime=00:01:02"
    assert slurm.ran_out_of(slurm.read_scontrol(line)) == {"time"}


def test_only_the_failures_of_this_call_count(tmp_path, monkeypatch):
    ends = {"1": {"memory"}, "2": {"time"}, "3": {"time"}}
    monkeypatch.setattr(slurm, "shortage", ends.get)
    log = tmp_path / "job.log"
    assert not slurm.shortages(log, 2)
    (tmp_path / "job.log.slurm").write_text("1\n2\n2\n3\n")  # 2 was started again by Slurm itself
    assert slurm.shortages(log, 0) == {}
    assert slurm.shortages(log, 1) == {"time": 1}
    assert slurm.shortages(log, 3) == {"memory": 1, "time": 2}


def test_slurm_that_says_nothing_means_more_of_both(monkeypatch):
    monkeypatch.setenv("PATH", "")
    slurm.shortage.cache_clear()
    assert slurm.shortage("17") == {"memory", "time"}
    slurm.shortage.cache_clear()


# ---------------------------------------------------------------- site file and rules


def test_the_site_file_as_it_is_cloned_has_every_key_explained():
    path = ROOT / "slurm/site.yaml"
    entries = {**Site.model_fields, **sites.Partitions.model_fields}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") and line.strip():
            key, comment = re.match(r" *(\w+):[^#]*#\s*(\S.*)", line).groups()
            entries.pop(key)
            assert len(comment) > 8
    assert not entries
    assert sites.load(path).device in yaml.safe_load((ROOT / "config/devices.yaml").read_text())["devices"]


def test_a_mistake_in_the_site_file_is_explained(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("acount: me\npartitions: {cpus: x}\n")
    with pytest.raises(ConfigError, match=r"acount: unknown key; did you mean 'account'") as error:
        sites.load(path)
    assert "partitions.cpus: unknown key" in str(error.value)


def test_the_profile_names_the_site_file():
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    assert sites.site_file(SimpleNamespace(args=["tmpdir=system_tmpdir", *profile["default-resources"]])) == Path("slurm/site.yaml")
    assert sites.site_file(SimpleNamespace(args=["tmpdir=system_tmpdir"])) is None and sites.site_file(None) is None


@pytest.mark.parametrize("path", sorted((ROOT / "rules").glob("*.smk")), ids=lambda path: path.name)
def test_every_job_says_what_it_needs_or_runs_beside_snakemake(path):
    text = path.read_text(encoding="utf-8")
    local = re.findall(r"^    (\w+),$", "".join(re.findall(r"^localrules:\n(?:    \w+,\n)+", text, re.MULTILINE)), re.MULTILINE)
    for body in re.split(r"^ *rule ?\w*:$", text, flags=re.MULTILINE)[1:]:
        if "shell:" in body:
            rule = re.findall(r"workflow_scripts/run\.py (\w+)", body.split("shell:")[1])[-1]
            assert f'**cluster.resources("{rule}"' in body or rule in local, rule


def test_every_job_on_the_weights_of_a_checkpoint_is_in_its_group_and_takes_the_slot():
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    grouped = dict(entry.split("=") for entry in profile["groups"])
    of_checkpoint = set()
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text(encoding="utf-8")
        for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.M):
            if re.search(r"weights=(evaluate|paths)\.weights,", body):
                of_checkpoint |= {name, *re.findall(rf"^use rule {name} as (\w+) with", text, re.M)}
    assert set(grouped) == of_checkpoint == set(OF_A_CHECKPOINT) and len(set(grouped.values())) == 1
