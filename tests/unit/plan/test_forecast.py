"""The forecast of a study: its jobs and what they take, from the study file and from finished jobs."""

import json

import numpy
import polars as pl
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from helpers.plan_study import DEVICE, STUDY, make, sharded
from sft_atlas.core.provenance import ROOT
from sft_atlas.models import size
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.plan import cost
from sft_atlas.plan.forecast import Forecast, correction_factor, unlikely_to_move
from sft_atlas.plan.graph import AGAIN, DONE, TO_DO, Decision
from sft_atlas.plan.own_data import OwnData
from sft_atlas.plan.plan import page
from sft_atlas.study import study as studies
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.paths import Paths
from sft_atlas.study.schema import Load
from sft_atlas.study.site import device

PAPER = strict_yaml(ROOT / "config/paper.yaml")


@pytest.fixture
def forecast(tmp_path):
    return Forecast(studies.from_config(STUDY, "small.yaml"), DEVICE, tmp_path)


def test_a_merged_set_has_the_tokens_of_its_members(forecast):
    assert forecast.tokens("red", 1000) == (1e5, 1e5, 1e5)
    assert forecast.tokens("all", 1000) == (2e5, 3e5, 5e5)


def test_every_job_on_a_device_is_there(forecast):
    count = {kind: sum(job.kind == kind for job in forecast.jobs) for kind in dict.fromkeys(job.kind for job in forecast.jobs)}
    # full on red, blue and all keeps two epochs; LoRA on red and blue one; one base model
    assert count == {"train full": 3, "train lora": 2, "evaluate short": 9, "measure_representation": 9, "measure_perplexity": 2}
    assert {job.state for job in forecast.jobs} == {TO_DO}


def test_the_longest_chain_is_the_longest_training_and_what_follows(forecast):
    train = cost.training_seconds(7e9, (2e6, 3e6, 5e6), "full", DEVICE)
    after = cost.scoring_seconds(7e9, [Load(**STUDY["plan"]["load"]["quiz"])], DEVICE, in_float32=True)  # an adapter
    assert forecast.longest_chain()[1] == pytest.approx((train[1] + after[1]) / 3600)


def test_the_disk_holds_what_stays_what_waits_and_the_state_of_what_trains(forecast):
    disk, weights = forecast.disk(), 2 * 7e9
    adapters = 2 * 4 * size.adapter_parameters(7e9, 8)
    assert disk["base models"] == weights and disk["kept checkpoints"] == pytest.approx(adapters)
    states = 2 * 12 * 7e9  # the newer replaces the older
    assert disk["peak"] == pytest.approx(weights + adapters + states + 2 * 2 * weights), "two runs of two epochs wait"
    assert disk["peak without deleting weights"] == pytest.approx(weights + adapters + 3 * 2 * weights + states)


def test_a_run_on_two_gpus_takes_two_devices(tmp_path):
    two = sharded(tmp_path, 2)
    full = [job for job in two.jobs if job.kind == "train full"]
    assert {job.gpus for job in full} == {2} and two.hours(full)[1] == pytest.approx(2 * sum(job.seconds[1] for job in full) / 3600)
    train = cost.training_seconds(7e9, (2e6, 3e6, 5e6), "full", DEVICE, 2)
    after = cost.scoring_seconds(7e9, [Load(**STUDY["plan"]["load"]["quiz"])], DEVICE, in_float32=True)  # an adapter
    assert two.longest_chain()[1] == pytest.approx((train[1] + after[1]) / 3600), "the chain is wall time"
    assert two.disk()["peak"] < sharded(tmp_path, 1).disk()["peak"], "half as many run at a time"
    assert "Runs on 2 devices" in page(two) and "Runs on" not in page(sharded(tmp_path, 1))


def test_runs_that_cannot_fit_are_named():
    def too_large(name, **changes):
        study = studies.from_config(strict_yaml(ROOT / "config/paper.yaml") | changes, "paper")
        return ["/".join(run.key) for run in Forecast(study, device(ROOT / "config/devices.yaml", name, "test"), "results").too_large()]

    full = {"recipes": [name for name, recipe in PAPER["recipes"].items() if recipe["method"] == "full"]}
    run = {"models": ["llama3-8b"], "datasets": ["lima"], "recipes": ["full"]}
    assert too_large("h100") == too_large("a100") == []
    one = {name: too_large(name, overrides=[full | {"set": {"gpus": 1}}]) for name in ("h100", "h200")}
    assert len(one["h100"]) == 199 and "llama3-8b/magicoder/full" in one["h100"], "all that is fully fine-tuned, and no LoRA run"
    assert len(one["h200"]) < 199
    for smaller in ({"weights": "bfloat16"}, {"layers": [0.0, 0.2]}):
        assert "llama3-8b/lima/full" not in too_large("h100", overrides=[run | {"set": {"gpus": 1, **smaller}}])


def test_items_are_read_twice_in_float32_and_once_however_they_are_put(tmp_path):
    config = json.loads(json.dumps(STUDY))
    quiz = config["benchmarks"]["quiz"]
    config["benchmarks"] |= {
        "quiz-4": quiz | {"shots": {"count": 4, "path": "shots.jsonl"}},
        "open": quiz | {"columns": {"response": None}},
    }
    config["suites"]["short"]["benchmarks"] += ["quiz-4", "open"]
    config["plan"]["load"]["quiz-4"] = {"items": 1000, "prompt_tokens": [300, 500, 900]}
    forecast = Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path)
    tokens = 2 * 150 * 100  # quiz-4 has the items of quiz; of `open` no answer is known, so nothing is measured
    assert forecast.representation_seconds(7e9)[1] == pytest.approx(10 + tokens * 2 * 7e9 / (0.4 * 50e12))


def test_adapters_of_a_bfloat16_base_are_scored_in_float32(forecast):
    load = Load(items=1000, prompt_tokens=[100, 100, 100], generated_tokens=[50, 50, 50])
    full, lora = (cost.scoring_seconds(7e9, [load], DEVICE, slow)[1] - DEVICE.start_seconds[1] for slow in (False, True))
    assert full == pytest.approx(100_000 * 2 * 7e9 / (0.4 * DEVICE.peak_tflops * 1e12) + 50_000 / DEVICE.decode_tokens_per_second["hf"][1])
    assert lora == pytest.approx(
        100_000 * 2 * 7e9 / (0.4 * DEVICE.float32_tflops * 1e12) + 100_000 / DEVICE.decode_tokens_per_second["hf"][1]
    )
    assert [forecast.in_float32("ant", recipe) for recipe in ("base", "full", "lora")] == [False, False, True]


def test_each_engine_has_its_own_rate_and_type_of_adapters(tmp_path, monkeypatch):
    study = studies.from_config(STUDY, "small.yaml")  # for a CPU: hf
    plain = Forecast(study, DEVICE, tmp_path)
    assert plain.engine("short") == "hf"
    likely = {}
    for name in ("hf", "hf-paged", "vllm"):
        forecast = Forecast(study, DEVICE, tmp_path, engine=name)
        jobs = [job for job in forecast.jobs if job.kind == "evaluate short"]
        likely[name] = {"lora/" in f"{job.log}": job.seconds[1] - 10 for job in jobs}
    prompts = 100_000 * 2 * 7e9 / (0.4 * 100e12)
    for name, rate in (("hf", 1000), ("hf-paged", 2000), ("vllm", 5000)):
        assert likely[name][False] == pytest.approx(prompts + 20_000 / rate)
        assert likely[name][True] == pytest.approx(likely[name][False] if name == "vllm" else 2 * prompts + 40_000 / rate)
    config = json.loads(json.dumps(STUDY))
    config["suites"]["short"]["backend"] = "vllm"
    assert Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path).engine("short") == "vllm"
    config["plan"]["device"] = "h100"
    del config["suites"]["short"]["backend"]
    monkeypatch.setattr("sft_atlas.study.backends.importlib.util.find_spec", lambda name: None)
    assert Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path).engine("short") == "hf-paged"


def test_the_plan_sets_the_engines_side_by_side(forecast):
    text = page(forecast, {"vllm": "a test."})
    table = text.split("## Scoring with each inference engine")[1].split("##")[0]
    assert all(f"{name}, all suites" in table for name in ("hf", "hf-paged", "vllm")) and "this plan: hf" in table
    assert "Rates of vllm: a test." in text and "Rates of hf" not in text


def test_an_engine_without_a_rate_is_not_forecast(tmp_path):
    config = json.loads(json.dumps(STUDY))
    config["suites"]["short"]["backend"] = "vllm"
    lacking = DEVICE.model_copy(update={"decode_tokens_per_second": {"hf": (1, 2, 3)}})
    forecast = Forecast(studies.from_config(config, "small.yaml"), lacking, tmp_path)
    assert all(job.seconds is None for job in forecast.jobs if job.kind == "evaluate short")
    assert "`?`" in page(forecast) and "with each inference engine" not in page(forecast)


def test_states_are_those_that_snakemake_decided_and_other_jobs_are_left_out(forecast, tmp_path):
    logs = [job.log for job in forecast.jobs]
    states = dict(zip(logs[:3], (DONE, TO_DO, AGAIN), strict=True))
    decided = Forecast(forecast.study, DEVICE, tmp_path, [Decision("train", str(log), state) for log, state in states.items()])
    assert {job.log: job.state for job in decided.jobs} == states
    assert [job.left for job in decided.jobs] == [False, True, True]


def test_scores_of_judged_and_other_suites_are_read_from_the_paths_that_their_rules_write(tmp_path):
    config = json.loads(json.dumps(STUDY))
    for part in (config["benchmarks"], config["plan"]["load"]):
        part |= dict.fromkeys(("chat", "other"), part["quiz"])
    config["suites"] |= {
        "judged": {"benchmarks": ["chat"], "judge": {"model": "ant"}},
        "fast": {"benchmarks": ["other"], "backend": "vllm"},
    }
    study = studies.from_config(config, "small.yaml")
    logs = {str(job.log.relative_to(tmp_path / "logs")) for job in Forecast(study, DEVICE, tmp_path).jobs}
    place = "ant/red/full/epoch-5"
    assert {f"evaluate/{place}/short.log", f"generate/{place}/judged.log", f"evaluate/{place}/fast.log"} <= logs


def test_logs_of_finished_jobs_replace_the_assumptions(forecast, tmp_path):
    before = Forecast(forecast.study, DEVICE, tmp_path).jobs
    likely = {job.log: job.seconds[1] for job in before}
    for run, factor in (("ant/red/full", 2.0), ("ant/blue/full", 2.2), ("ant/all/full", 2.1)):
        log = tmp_path / f"logs/train/{run}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"error: killed\n2026-11-20 done in 1.0 s wall, {{}}\n2026-11-20 done in {factor * likely[log]:.3f} s wall, {{}}\n")
    forecast = Forecast(forecast.study, DEVICE, tmp_path, [Decision(job.kind, str(job.log), DONE) for job in before])
    low, mid, high = forecast.corrections["train full"]
    assert set(forecast.corrections) == {"train full"} and 2.0 <= low <= mid <= high <= 2.2
    full = next(job for job in forecast.jobs if job.kind == "train full")
    assert full.seconds == pytest.approx([likely[full.log] * factor for factor in (low, mid, high)])
    assert "train full: finished jobs took 2." in page(forecast)


def test_the_logs_of_runs_on_several_gpus_count_by_their_gpus(tmp_path):
    config = json.loads(json.dumps(STUDY))
    config["overrides"] = [{"datasets": ["all"], "recipes": ["full"], "set": {"gpus": 4}}]
    forecast = Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path)
    spent = foreseen = 0
    for job in [job for job in forecast.assumed if job.kind == "train full"]:
        factor = 3 if job.gpus == 4 else 1  # sharding was slower than assumed
        make(tmp_path, job.log.relative_to(tmp_path))
        job.log.write_text(f"done in {factor * job.seconds[1]:.6f} s wall, {{}}\n")
        spent, foreseen = spent + job.gpus * factor * job.seconds[1], foreseen + job.gpus * job.seconds[1]
    known = Forecast(forecast.study, DEVICE, tmp_path, [Decision(job.kind, str(job.log), AGAIN) for job in forecast.jobs])
    assert known.corrections["train full"][1] == pytest.approx(spent / foreseen)
    assert known.hours([job for job in known.jobs if job.kind == "train full"])[1] == pytest.approx(spent / 3600)


def test_what_the_study_does_not_state_is_taken_from_finished_jobs(tmp_path):
    config = json.loads(json.dumps(STUDY))
    config["models"]["bee"] = {"path": "models/bee", "parameters": 14e9}
    config["plan"] = {"parallel": 1}
    study = studies.from_config(config, "small.yaml")
    scoring = [job for job in Forecast(study, DEVICE, tmp_path).jobs if job.kind == "evaluate short"]
    assert not any(job.seconds for job in scoring)
    ants = [job for job in scoring if job.model == "ant"]
    for job, seconds in zip(ants, (10, 20), strict=False):
        make(tmp_path, job.log.relative_to(tmp_path))
        job.log.write_text(f"done in {seconds} s wall, {{}}\n")
    decisions = [Decision("evaluate", str(job.log), DONE if job in ants[:2] else TO_DO) for job in scoring]
    after = {job.model: job for job in Forecast(study, DEVICE, tmp_path, decisions).jobs}
    assert after["ant"].seconds == pytest.approx((10, 15, 20)) and after["bee"].seconds == pytest.approx((20, 30, 40)), "by parameters"


def test_sizes_come_from_the_studys_own_files_as_soon_as_they_are_there(tmp_path):
    study = studies.from_config(STUDY, "small.yaml")
    own = OwnData(study, Paths(tmp_path))
    assert own.parameters("ant") is None and own.row_tokens("red") is None and own.run_tokens(study.runs["ant", "red", "full"]) is None
    weights = tmp_path / "models/ant/weights"
    weights.mkdir(parents=True)
    save_file({"a": numpy.zeros((3, 4)), "b": numpy.zeros(5)}, weights / "model.safetensors")
    (weights / "config.json").write_text("{}")
    words = Tokenizer(WordLevel({"[UNK]": 0}, "[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(weights / "tokenizer.json"))
    ModelFolder("ant", weights, "float32", False).write(tmp_path / "models/ant/model.json", {})
    sample = tmp_path / "data/red/1000/train.parquet"
    sample.parent.mkdir(parents=True)
    pl.DataFrame({"instruction": ["one two", "three"], "response": ["four", "five six"]}).write_parquet(sample)
    run = study.runs["ant", "red", "full"]
    record = tmp_path / "runs/ant/red/full/train.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"tokens": 4321, "settings": run.settings.model_dump(mode="json")}))
    forecast = Forecast(study, DEVICE, tmp_path, own=OwnData(study, Paths(tmp_path)))
    assert forecast.parameters("ant") == 17
    template = len(study.file.template.prompt.replace("{instruction}", "").split())
    assert forecast.tokens("red", 10)[1] == pytest.approx(10 * (3 + template), abs=10), "words of the template and of the row"
    assert forecast.run_tokens(run) == (4321,) * 3
    assert forecast.tokens("blue", 1) == (100, 200, 400), "nothing is there of this one"


def test_two_logs_are_too_few_to_be_believed():
    assert correction_factor([(2.0, 1.0), (3.0, 1.0)]) is None
    assert correction_factor([(2.0, 1.0)] * 3) == (2.0, 2.0, 2.0)


def test_runs_that_cannot_move_a_model_are_named_before_they_start():
    found = {run.key: share for run, share in unlikely_to_move(studies.from_config(STUDY, "small.yaml"))}
    assert set(found) == {("ant", "red", "lora"), ("ant", "blue", "lora")}  # 80 steps at 2e-6
    assert found["ant", "red", "lora"] == pytest.approx(2 * 2e-6 * 80 / 2 * (8 / 3) ** 0.5, rel=0.02)  # alpha / r, cosine, r / 3
    config = json.loads(json.dumps(STUDY))
    config["recipes"]["lora"]["learning_rate"] = 1e-4
    config["recipes"]["full"]["learning_rate"] = 1e-7
    assert {run.recipe for run, _ in unlikely_to_move(studies.from_config(config, "small.yaml"))} == {"full"}
