"""The forecast of a study from known sizes and rates, which jobs count as done, and the page that shows it."""

import json
import re

import polars as pl
import pytest

from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.models import size
from sft_atlas.plan import cost, plan
from sft_atlas.plan.forecast import Forecast, correction_factor
from sft_atlas.plan.plan import page, plan_table, span
from sft_atlas.study import study as studies
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.schema import Device, Load
from sft_atlas.study.site import device

PAPER = strict_yaml(ROOT / "config/paper.yaml")
DEVICE = Device(
    label="Test",
    peak_tflops=100,
    float32_tflops=50,
    memory_gib=80,
    mfu_full=(0.2, 0.4, 0.5),
    mfu_lora=(0.2, 0.4, 0.5),
    mfu_score=(0.2, 0.4, 0.5),
    decode_tokens_per_second=(500, 1000, 2000),
    start_seconds=(0, 10, 20),
)
STUDY = {
    "study": "small",
    "keep_weights": "none",
    "models": {"ant": {"path": "models/ant", "parameters": 7e9}},
    "datasets": {"red": {"path": "red.jsonl"}, "blue": {"path": "blue.jsonl"}, "all": {"merge": "*"}},
    "benchmarks": {"quiz": {"path": "quiz.jsonl", "task": "quiz.yaml"}},
    "suites": {"short": {"benchmarks": ["quiz"]}},
    "recipes": {
        "full": {"method": "full", "rows": 1000, "epochs": 10, "save_epochs": [5, 10], "learning_rate": 1e-5, "batch_size": 32},
        "lora": {"method": "lora", "rows": 1000, "epochs": 10, "learning_rate": 2e-6, "batch_size": 128},
    },
    "blocks": {
        "single": {"models": "*", "datasets": "*", "recipes": ["full", "lora"]},
        "merged": {"models": "*", "datasets": ["all"], "recipes": ["full"]},
    },
    "plan": {
        "parallel": 1,
        "tokens": {"red": [100, 100, 100], "blue": [100, 200, 400]},
        "load": {"quiz": {"items": 1000, "prompt_tokens": [50, 100, 200], "generated_tokens": [10, 20, 40]}},
    },
}


@pytest.fixture
def forecast(tmp_path):
    return Forecast(studies.from_config(STUDY, "small.yaml"), DEVICE, tmp_path)


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def sharded(root, gpus, name="cpu"):
    """The forecast with full fine-tuning on several devices."""
    config = json.loads(json.dumps(STUDY))
    config["recipes"]["full"]["gpus"] = gpus
    config["plan"] |= {"parallel": 2, "device": name}
    return Forecast(studies.from_config(config, "small.yaml"), DEVICE, root)


def all_files(root, run, epochs):
    make(root, f"runs/{run}/train.json")
    for epoch in epochs:
        make(root, *(f"runs/{run}/epoch-{epoch}/{name}" for name in ("scores/short.parquet", "layers.parquet", "likelihood.parquet")))


# ---------------------------------------------------------------- cost


def test_training_costs_six_flop_per_parameter_and_token():
    tokens = (1e6, 1e6, 1e6)
    low, likely, high = cost.training_seconds(7e9, tokens, "full", DEVICE)
    assert likely == pytest.approx(10 + 6 * 7e9 * 1e6 / (0.4 * 100e12))
    assert low == pytest.approx(0 + 6 * 7e9 * 1e6 / (0.5 * 100e12)), "the low case is the fast device"
    assert high == pytest.approx(20 + 6 * 7e9 * 1e6 / (0.2 * 100e12))
    assert cost.training_seconds(7e9, tokens, "lora", DEVICE)[1] == pytest.approx(10 + (likely - 10) * 4 / 6)


def test_several_gpus_share_the_work_and_not_the_start():
    tokens = (1e6, 1e6, 1e6)
    one, four = (cost.training_seconds(7e9, tokens, "full", DEVICE, gpus)[1] for gpus in (1, 4))
    assert four - 10 == pytest.approx((one - 10) / 4)


def test_scoring_costs_reading_and_generating():
    load = Load(items=1000, prompt_tokens=(100, 100, 100), generated_tokens=(50, 50, 50), requests=2)
    likely = cost.scoring_seconds(7e9, [load], DEVICE)[1]
    assert likely == pytest.approx(10 + 2000 * 100 * 2 * 7e9 / (0.4 * 100e12) + 2000 * 50 / 1000)
    assert cost.scoring_seconds(14e9, [load], DEVICE)[1] == pytest.approx(10 + 2 * (likely - 10)), "twice the size, half the speed"


@pytest.mark.parametrize(("parameters", "rank", "true"), [(8.03e9, 16, 41.9e6), (134.5e6, 8, 2.44e6), (70.6e9, 16, 207.1e6)])
def test_an_adapters_size_follows_from_the_models(parameters, rank, true):
    assert size.adapter_parameters(parameters, rank) == pytest.approx(true, rel=1 / 3)  # Llama 3 8B, SmolLM2 135M, Llama 3 70B


def test_the_size_of_a_tiny_model_is_about_right():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1024,
        tie_word_embeddings=True,
    )
    true = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    assert size.tiny_parameters(128, 6, 1024) == pytest.approx(true, rel=0.02)


def test_estimates_must_ascend():
    with pytest.raises(ValueError, match="low, likely and high"):
        Load(items=1, prompt_tokens=(3, 2, 1))


# ---------------------------------------------------------------- forecast


def test_a_merged_set_has_the_tokens_of_its_members(forecast):
    assert forecast.tokens("red", 1000) == (1e5, 1e5, 1e5)
    assert forecast.tokens("all", 1000) == (2e5, 3e5, 5e5)


def test_every_job_on_a_device_is_there(forecast):
    count = {kind: sum(job.kind == kind for job in forecast.jobs) for kind in dict.fromkeys(job.kind for job in forecast.jobs)}
    # full on red, blue and all keeps two epochs; LoRA on red and blue one; one base model
    assert count == {"train full": 3, "train lora": 2, "evaluate short": 9, "measure_representation": 9, "measure_perplexity": 2}
    assert not any(job.done or job.repeat for job in forecast.jobs)


def test_the_longest_chain_is_the_longest_training_and_what_follows(forecast):
    train = cost.training_seconds(7e9, (2e6, 3e6, 5e6), "full", DEVICE)
    after = cost.scoring_seconds(7e9, [Load(**STUDY["plan"]["load"]["quiz"])], DEVICE)
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
    after = cost.scoring_seconds(7e9, [Load(**STUDY["plan"]["load"]["quiz"])], DEVICE)
    assert two.longest_chain()[1] == pytest.approx((train[1] + after[1]) / 3600), "the chain is wall time"
    assert two.disk()["peak"] < sharded(tmp_path, 1).disk()["peak"], "half as many run at a time"
    assert "Runs on 2 devices" in page(two) and "Runs on" not in page(sharded(tmp_path, 1))


def test_runs_that_do_not_fit_are_listed_on_the_page_and_counted_in_the_table(tmp_path):
    one, two = sharded(tmp_path, 1, "h100"), sharded(tmp_path, 2, "h100")  # 16 bytes a parameter: 104 GiB
    assert "**3 runs do not fit into GPU memory** (Test)" in page(one) and "ant/red/full, ant/blue/full" in page(one)
    assert dict(plan_table(one).group_by("kind").agg(pl.sum("too_large")).rows())["train full"] == 3
    assert plan_table(one)["too_large"].sum() == 3 and plan_table(two)["too_large"].sum() == 0 and "do not fit" not in page(two)
    assert "do not fit" not in page(sharded(tmp_path, 1, "cpu")), "a CPU job has the machine's memory"


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


def test_what_is_there_is_done(forecast, tmp_path):
    all_files(tmp_path, "ant/red/lora", [10])
    done = [job for job in forecast.jobs if job.done]
    assert sorted(job.kind for job in done) == ["evaluate short", "measure_representation", "train lora"]
    assert not forecast.retrained, "the weights are gone, but nothing more is asked of them"


def test_a_new_suite_after_the_weights_are_gone_trains_again(forecast, tmp_path):
    all_files(tmp_path, "ant/red/full", [5, 10])
    (tmp_path / "runs/ant/red/full/epoch-5/scores/short.parquet").unlink()
    assert forecast.retrained == {("ant", "red", "full")}
    repeated = [job for job in forecast.jobs if job.repeat]
    assert sorted(job.kind for job in repeated) == ["evaluate short", "measure_representation", "measure_representation", "train full"]
    text = page(forecast)
    assert "**1 finished runs must be trained again**" in text and "ant/red/full" in text
    (tmp_path / "runs/ant/red/full/epoch-5/weights").mkdir()
    assert not Forecast(forecast.study, DEVICE, tmp_path).retrained, "these weights are still there"


def test_what_a_judge_and_vllm_score_is_found_where_their_rules_write_it(tmp_path):
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
    assert {f"evaluate/{place}/short.log", f"generate/{place}/judged.log", f"evaluate_vllm/{place}/fast.log"} <= logs
    # The answers are there and the weights gone: what is left to a judge needs no weights.
    all_files(tmp_path, "ant/red/full", [5, 10])
    make(tmp_path, *(f"runs/ant/red/full/epoch-{e}/{name}.parquet" for e in (5, 10) for name in ("answers/judged", "scores/fast")))
    after = Forecast(study, DEVICE, tmp_path)
    assert not after.retrained and sum(job.done for job in after.jobs if job.kind == "evaluate judged") == 2


def test_logs_of_finished_jobs_replace_the_assumptions(forecast, tmp_path):
    before = Forecast(forecast.study, DEVICE, tmp_path).jobs
    likely = {job.log: job.seconds[1] for job in before}
    for run, factor in (("ant/red/full", 2.0), ("ant/blue/full", 2.2), ("ant/all/full", 2.1)):
        all_files(tmp_path, run, [5, 10])
        log = tmp_path / f"logs/train/{run}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"error: killed\n2026-11-20 done in 1.0 s wall, {{}}\n2026-11-20 done in {factor * likely[log]:.3f} s wall, {{}}\n")
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
        log = job.log.relative_to(tmp_path)
        make(tmp_path, str(log).replace("logs/train/", "runs/").replace(".log", "/train.json"), log)
        job.log.write_text(f"done in {factor * job.seconds[1]:.6f} s wall, {{}}\n")
        spent, foreseen = spent + job.gpus * factor * job.seconds[1], foreseen + job.gpus * job.seconds[1]
    known = Forecast(forecast.study, DEVICE, tmp_path)
    assert known.corrections["train full"][1] == pytest.approx(spent / foreseen)
    assert known.hours([job for job in known.jobs if job.kind == "train full"])[1] == pytest.approx(spent / 3600)


def test_two_logs_are_too_few_to_be_believed():
    assert correction_factor([(2.0, 1.0), (3.0, 1.0)]) is None
    assert correction_factor([(2.0, 1.0)] * 3) == (2.0, 2.0, 2.0)


def test_what_cannot_be_forecast_is_a_question_mark_and_no_number(tmp_path):
    config = json.loads(json.dumps(STUDY))
    del config["plan"]["tokens"]["blue"]
    text = page(Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path))
    assert "`?`: the study states too little to forecast measure_perplexity, train full, train lora" in text
    del config["models"]["ant"]["parameters"]
    forecast = Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path)
    assert forecast.disk()["peak"] is None and "base models ?" in page(forecast)
    assert plan_table(forecast)["hours"].null_count() == plan_table(forecast).height


def test_branches_are_named_and_commits_are_not(tmp_path):
    config = json.loads(json.dumps(STUDY))
    config["models"] = {"ant": {"hub": "a/b", "revision": "main"}, "bee": {"hub": "a/c", "revision": "0" * 40}}
    assert Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path).unpinned() == ["models.ant"]


@pytest.mark.parametrize(
    ("hours", "text"), [((0.5, 1.234, 20), "1.2 (0.5 to 20)"), ((1, 1, 1), "1"), ((0, 12345, 123456), "12,000 (0 to 120,000)")]
)
def test_hours_have_two_digits(hours, text):
    assert span(hours) == text


# ---------------------------------------------------------------- the command


def test_the_command_writes_page_and_table(tmp_path, run_script):
    config = json.dumps(
        STUDY | {"plan": STUDY["plan"] | {"device": "h100", "compare": [{"what": "train_gpu_hours", "value": 530, "source": "there"}]}}
    )
    run_script(plan, study=config, devices=ROOT / "config/devices.yaml", results=tmp_path / "results")
    text = (tmp_path / "results/plan.md").read_text()
    assert "# Plan of study small" in text and re.search(r"\| training, device-hours \| +\S+ .* \| +530 \| there +\|", text)
    table = pl.read_parquet(tmp_path / "results/plan.parquet")
    assert table["jobs"].sum() == 25 and (table["hours_low"] <= table["hours_high"]).all()


def test_a_device_that_is_not_listed_is_an_error_with_those_that_are():
    with pytest.raises(ConfigError, match=r"plan.device of the study is 'h900', which is not here \(there are h200"):
        device(ROOT / "config/devices.yaml", "h900", "plan.device of the study")
