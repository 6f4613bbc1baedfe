"""The doctor sees what is there and what is absent, asks nobody but the hub of the study, and fails only for what the study needs."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from helpers.waiting import HANG
from sft_atlas.core import disk
from sft_atlas.core.provenance import ROOT
from sft_atlas.machine import doctor, facilities
from sft_atlas.machine.needs import Needs, needs_of
from sft_atlas.study import study as studies

NOTHING = Needs()
SECRET = "hf_never-to-be-seen"


def named(found, thing):
    return next(finding for finding in found if finding.thing == thing)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without programs, tokens and settings; returns a function that adds a program."""
    for variable in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_ENDPOINT",
        "CHROMIUM",
        "CXX",
    ):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def add(name, prints="", code=0):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{prints}\nEND\nexit {code}\n")
        path.chmod(0o755)
        return str(path)

    return add


@pytest.fixture
def modules(monkeypatch):
    """Says which modules are installed."""
    installed = set()
    monkeypatch.setattr(facilities.importlib.util, "find_spec", lambda name: name if name in installed else None)
    return installed


# ---------------------------------------------------------------- Python


def test_an_unsupported_python_is_missing_with_the_versions_that_do(monkeypatch):
    assert named(facilities.python(ROOT), "Python").ok
    monkeypatch.setattr(facilities.platform, "python_version", lambda: "3.9.2")
    found = named(facilities.python(ROOT), "Python")
    assert found.verdict == "missing" and "make env PYTHON=" in found.remedy and ">=3.11" in found.needed
    assert not facilities._holds("3.14.0", "<3.14") and facilities._holds("3.13.9", "<3.14")


def test_packages_that_are_absent_or_differ_from_their_pins_are_named(tmp_path):
    (tmp_path / "pyproject.toml").write_text('requires-python = ">=3.11"\n')
    (tmp_path / "envs/locks").mkdir(parents=True)
    (tmp_path / "envs/locks/sft-atlas.txt").write_text(
        'absent-one==1.0 \\\n    --hash=sha256:0\npytest==0.1  # old\nelsewhere==1 ; sys_platform == "never"\n'
    )
    found = facilities.python(tmp_path)
    packages, pins = named(found, "packages"), named(found, "pins")
    assert packages.verdict == "missing" and packages.here == "absent-one not installed" and packages.remedy == "make env"
    assert pins.verdict == "absent" and "(pinned: 0.1)" in pins.here and "elsewhere" not in str(found)


# ---------------------------------------------------------------- GPUs, kernels, compiler


def test_without_a_gpu_only_a_study_that_needs_one_lacks_something(bare, monkeypatch):
    monkeypatch.setattr(facilities.os.path, "exists", lambda path: False)
    [found] = facilities.gpus(NOTHING)
    assert found.verdict == "absent" and found.here == "none"
    [found] = facilities.gpus(Needs(gpu="recipes.full.gpus"))
    assert found.verdict == "missing" and found.needed == "recipes.full.gpus" and "--profile slurm" in found.remedy
    [found] = facilities.gpus(Needs(gpu="recipes.full.gpus", slurm="--profile slurm"))
    assert found.verdict == "absent", "the nodes of the cluster have them"


def test_a_gpu_whose_driver_does_not_answer_is_seen(bare, monkeypatch):
    monkeypatch.setattr(facilities.os.path, "exists", lambda path: path == "/dev/nvidiactl")
    [found] = facilities.gpus(NOTHING)
    assert "nvidia-smi does not answer" in found.here and found.remedy == "install NVIDIA's driver"


@pytest.mark.parametrize(
    ("build", "usable", "words"), [(None, False, "built for the CPU"), ("13.0", False, "13.0, the driver 550.54 runs up to 12.4")]
)
def test_a_torch_that_cannot_use_the_gpu_is_explained(bare, monkeypatch, build, usable, words):
    import torch

    bare("nvidia-smi", "NVIDIA H100 80GB HBM3, 81559, 550.54\n| CUDA Version: 12.4 |")
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    found = facilities.gpus(NOTHING)
    assert named(found, "GPU").here == "NVIDIA H100 80GB HBM3 (80 GiB)"
    assert named(found, "CUDA").verdict == "missing" and words in named(found, "CUDA").here and "build" in named(found, "CUDA").remedy


@pytest.mark.parametrize("bf16", [True, False])
def test_bfloat16_is_asked_of_a_gpu_that_works(bare, monkeypatch, bf16):
    import torch

    bare("nvidia-smi", "Tesla V100, 16384, 580.1\n| CUDA Version: 13.1 |")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert named(facilities.gpus(NOTHING), "bfloat16").ok == bf16


def test_kernels_are_needed_where_the_study_names_them(modules):
    modules.add("liger_kernel")
    found = facilities.kernels(Needs(modules={"flash_attn": "recipes.full.attention", "liger_kernel": "recipes.full.liger"}))
    assert {finding.thing: finding.verdict for finding in found if finding.needed} == {
        "flash attention 2": "missing",
        "Liger kernels": "ok",
    }
    assert named(found, "vLLM").verdict == "absent"


def test_a_compiler_and_a_browser_are_found_or_not(bare):
    assert facilities.compiler(Needs(compiler="recipes.full.compile"))[0].verdict == "missing"
    assert facilities.browser(NOTHING)[0].verdict == "absent"
    assert not any(finding.ok for finding in facilities.tools(NOTHING))
    assert facilities.compiler(NOTHING)[0].here != bare("g++") == facilities.compiler(NOTHING)[0].here
    assert bare("chromium") == facilities.browser(NOTHING)[0].here


# ---------------------------------------------------------------- disk


def test_a_small_disk_is_reported_and_a_full_one_is_missing(bare, tmp_path, monkeypatch):
    for free, verdict in {2**40: "ok", 2 * 2**30: "absent", 2**20: "missing"}.items():
        monkeypatch.setattr(facilities.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        found = named(facilities.disks(tmp_path / "results"), "disk for results")
        assert found.verdict == verdict and disk.size_text(free) in found.here


def test_a_folder_that_cannot_be_written_to_is_missing(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(facilities.os, "access", lambda path, mode: False)
    found = named(facilities.disks(tmp_path), "disk for results")
    assert found.verdict == "missing" and "cannot be written to" in found.here


# ---------------------------------------------------------------- the hub


@pytest.fixture
def server(bare, monkeypatch):
    """A hub on this machine with one open and one gated model; it notes what it is asked."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.asked.append((self.path, self.headers.get("Authorization")))
            status = 302 if "/moved/" in self.path else 403 if "/gated/" in self.path else 200
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    Hub.asked = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}")
    yield Hub
    running.shutdown()
    running.server_close()


def test_access_is_asked_for_each_repository_of_the_study_with_the_token_that_is_never_shown(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    found = facilities.hub(Needs(repositories=(("model", "team/open"), ("dataset", "team/set"))))
    assert named(found, "hub").ok and named(found, "hub token").here == "present (HF_TOKEN)"
    assert server.asked == [(f"/api/{path}/auth-check", f"Bearer {SECRET}") for path in ("models/team/open", "datasets/team/set")]
    assert SECRET not in str(found)


def test_a_gated_repository_is_missing_with_the_remedy_and_a_redirect_is_not_followed(server):
    found = named(facilities.hub(Needs(repositories=(("model", "gated/one"), ("model", "team/open"), ("model", "moved/two")))), "hub")
    assert found.verdict == "missing" and found.here == "no access to model gated/one (403), model moved/two (302)"
    assert "accept its licence" in found.remedy and found.needed == "model gated/one"


def test_a_hub_that_is_not_there_is_missing(bare, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    found = named(facilities.hub(Needs(repositories=(("model", "team/open"),))), "hub")
    assert found.verdict == "missing" and "does not answer" in found.here and "HTTPS_PROXY" in found.remedy


def test_the_hub_is_not_asked_without_need_or_offline(server, monkeypatch):
    assert named(facilities.hub(NOTHING), "hub").ok
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = named(facilities.hub(Needs(repositories=(("model", "team/open"),))), "hub")
    assert found.verdict == "absent" and "HF_HUB_OFFLINE is set" in found.here
    assert server.asked == []


def test_a_token_of_the_login_file_is_found(bare, tmp_path):
    assert named(facilities.hub(NOTHING), "hub token").here == "none"
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/token").write_text(SECRET)
    found = named(facilities.hub(NOTHING), "hub token")
    assert found.here == f"present ({tmp_path}/hub/token)" and SECRET not in str(found)


def test_a_key_of_a_judge_is_present_or_missing_and_never_shown(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    needs = Needs(keys={"JUDGE_KEY": "suites.judged.judge.key_variable"})
    assert facilities.keys(needs)[0].verdict == "missing"
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    assert facilities.keys(needs)[0].verdict == "ok" and SECRET not in str(facilities.keys(needs))


# ---------------------------------------------------------------- Slurm


def site(cpu=None, gpu=None, device="h100"):
    return SimpleNamespace(partitions=SimpleNamespace(cpu=cpu, gpu=gpu, multi_gpu=None), device=device)


def test_without_slurm_only_the_profile_lacks_it(bare, modules):
    assert facilities.slurm(NOTHING, site())[0].verdict == "absent"
    assert facilities.slurm(Needs(slurm="--profile slurm"), site())[0].verdict == "missing"
    bare("sinfo", code=1)
    assert facilities.slurm(NOTHING, None)[0].here == "sinfo does not answer"


def test_partitions_gpus_and_the_plugin_are_compared_with_the_site_file(bare, modules):
    bare("sinfo", "cpu|(null)|1-00:00:00|4\nlong|gpu:h100:8|3-00:00:00|2")
    needs = Needs(slurm="--profile slurm", gpu="recipes.full.gpus")
    found = facilities.slurm(needs, site(cpu="cpu", gpu="gpu"))
    assert named(found, "Slurm").here == "partitions cpu (4 nodes, 1-00:00:00), long (2 nodes, 3-00:00:00, gpu:h100:8)"
    assert named(found, "partitions of slurm/site.yaml").verdict == "missing"
    assert "name one of cpu, long" in named(found, "partitions of slurm/site.yaml").remedy
    assert named(found, "GPUs in Slurm").verdict == "missing" and named(found, "Slurm plugin").verdict == "missing"
    modules.add("snakemake_executor_plugin_slurm")
    assert all(finding.ok for finding in facilities.slurm(needs, site(cpu="cpu", gpu="long")))


# ---------------------------------------------------------------- fonts and sandbox


def test_characters_without_a_font_are_shown(monkeypatch):
    from sft_atlas.report.figures import labels

    monkeypatch.setattr(labels, "set_fonts", lambda texts: {"模"})
    [found] = facilities.fonts(Needs(labels="模型 one"))
    assert (
        found.verdict == "absent"
        and found.here == "none for 型"
        and "fonts-noto-cjk" in found.remedy
        and "~/.cache/matplotlib" in found.remedy
    )


def test_a_sandbox_without_a_protection_is_missing_where_code_runs(monkeypatch):
    from sft_atlas.evaluate import sandbox

    monkeypatch.setattr(sandbox, "missing", lambda: ("Landlock",))
    [found] = facilities.sandbox(Needs(sandbox="allow_code_execution"))
    assert found.verdict == "missing" and found.here == "without Landlock"
    assert facilities.sandbox(NOTHING)[0].verdict == "absent"


# ---------------------------------------------------------------- a study


def test_the_needs_of_a_study_name_their_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    demo = needs_of(studies.from_config(config, "demo"))
    assert not (demo.gpu or demo.modules or demo.compiler or demo.sandbox or demo.repositories or demo.keys)
    full = next(name for name, recipe in config["recipes"].items() if recipe["method"] == "full")
    config["recipes"][full] |= {"attention": "flash_attention_2", "liger": True, "optim": "adamw_8bit"}
    lora = next(name for name, recipe in config["recipes"].items() if recipe["method"] == "lora")
    config["recipes"][lora]["compile"] = True
    config["models"]["hub-one"] = {"hub": "team/one", "revision": "0" * 40, "family": "x", "language": "en", "dtype": "float32"}
    needs = needs_of(studies.from_config(config, "demo"), slurm=True)
    assert needs.gpu.startswith(f"recipes.{full}.") and needs.compiler == f"recipes.{lora}.compile" and needs.slurm == "--profile slurm"
    assert set(needs.modules) == {"flash_attn", "liger_kernel", "bitsandbytes"}
    assert needs.repositories == (("model", "team/one"),)
    fetched = Path("results/demo/models/hub-one/model.json")
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert needs_of(studies.from_config(config, "demo")).repositories == (), "what is fetched already needs no hub"


def test_the_table_says_what_is_missing_by_whom_it_is_needed_and_what_to_do():
    found = [
        facilities.Finding("GPU", "none", False, "get one", "recipes.full.gpus"),
        facilities.Finding("git", "/usr/bin/git", True, "install it"),
        facilities.Finding("browser", "none", False, "apt-get install chromium"),
    ]
    text = doctor.page(found, "demo")
    assert "| GPU     | none         | missing | recipes.full.gpus | get one                  |" in text
    assert "install it" not in text and text.endswith("demo lacks here: GPU.")
    assert doctor.page(found[1:], "demo").endswith("demo has here what it needs.")
    assert json.loads(facilities.as_json(found))[0]["verdict"] == "missing"


def test_a_python_without_packages_gets_the_table_too():
    call = [sys.executable, "-S", "workflow_scripts/run.py", "doctor", "--file", "config/demo.yaml"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 1 and done.stderr == ""
    assert "config/demo.yaml lacks here: study, packages." in done.stdout and "make env" in done.stdout


def test_a_study_with_a_mistake_is_a_row_of_the_table(tmp_path):
    (tmp_path / "mine.yaml").write_text("study: a\nseed: x\n")
    _, needs, [found] = doctor.study_needs(None, tmp_path / "mine.yaml", slurm=False)
    assert found.verdict == "missing" and "mine.yaml:2:1: seed" in found.here and needs == NOTHING
