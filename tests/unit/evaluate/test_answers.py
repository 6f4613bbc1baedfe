"""Answers are kept by content: the model is asked for what is new, also after a kill, and former results outlive a failed job."""

import json

import polars as pl
import pytest
import yaml

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate
from sft_atlas.evaluate.answers import AnswerStore, answering_model, identity, sampled
from sft_atlas.evaluate.engines import hf
from sft_atlas.evaluate.engines.engine import Truncation
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.study.schema import Template

KEYS = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0}


class Job:
    """The scoring of a base model on a suite that a test changes between two runs of the job."""

    def __init__(self, folder, base, run_script):
        self.folder, self.base, self.run_script = folder, base, run_script
        self.suite, self.backend = "tasks", "hf"
        self.benchmarks = [self.benchmark("short", "generate.yaml", [("one", "1"), ("two", "2"), ("one", "1")])]
        self.benchmarks.append(self.benchmark("pick", "choice.yaml", [("red?", "red"), ("sky?", "blue")]))

    def benchmark(self, name, task, pairs):
        items = [{"instruction": text, "answer": answer, "choices": ["red", "blue"], "label": 0} for text, answer in pairs]
        (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        (self.folder / f"{name}.yaml").write_text((ROOT / "config/benchmarks" / task).read_text())
        return BenchmarkFiles(name, self.folder / f"{name}.yaml", self.folder / f"{name}.jsonl")

    def edit_task(self, name, **keys):
        """Change a task file, as a file of another name: a process reads each file once."""
        number = next(i for i, file in enumerate(self.benchmarks) if file.name == name)
        file = self.benchmarks[number]
        path = file.task.with_stem(f"{file.task.stem}-edited")
        path.write_text(yaml.safe_dump(yaml.safe_load(file.task.read_text()) | keys))
        self.benchmarks[number] = BenchmarkFiles(name, path, file.items)

    def output(self, kind):
        return self.folder / f"run/{kind}/{self.suite}.parquet"

    def run(self, **options):
        SuiteFile(self.suite, self.benchmarks).write(self.folder / "suite.json")
        outputs = {f"output_{kind}": self.output(kind) for kind in ("scores", "samples")}
        settings = {
            "template": Template().model_dump_json(),
            "max_length": 256,
            "max_new_tokens": 6,
            "state": self.folder / "state" / self.suite,
        }
        self.run_script(evaluate, **KEYS, suite=self.folder / "suite.json", base=self.base, **outputs, **settings | options)
        self.requests = json.loads(self.output("scores").with_suffix(".json").read_text())["requests"]
        return pl.read_parquet(self.output("scores")), pl.read_parquet(self.output("samples"))

    def kept(self):
        return sorted(path.stem for path in (self.folder / "state" / self.suite / "answers").glob("*"))


@pytest.fixture
def job(tmp_path, tiny_base, run_script):
    return Job(tmp_path, tiny_base, run_script)


@pytest.fixture
def no_model(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("the model was loaded")

    return lambda: monkeypatch.setattr(hf, "load_model", refuse)


def test_what_was_answered_is_taken_over_with_equal_scores_and_samples(job, no_model):
    before = job.run()
    assert job.requests == {"asked": 3 + 2 * 2, "taken_over": 0}
    record = json.loads(job.output("scores").with_suffix(".json").read_text())
    no_model()
    after = job.run(batch_size=1)
    assert all(one.equals(other) for one, other in zip(before, after, strict=True))
    assert job.requests == {"asked": 0, "taken_over": 7}
    again = json.loads(job.output("scores").with_suffix(".json").read_text())
    assert [again[key] for key in ("device", "dtype", "weights")] == [record[key] for key in ("device", "dtype", "weights")]


def test_an_added_or_changed_benchmark_is_answered_alone_and_a_removed_one_is_forgotten(job):
    before = job.run()[1]
    job.benchmarks.append(job.benchmark("more", "generate.yaml", [("three", "3")]))
    after = job.run()[1]
    assert job.requests == {"asked": 1, "taken_over": 7} and after.filter(pl.col("benchmark") != "more").equals(before)
    job.benchmark("more", "generate.yaml", [("three", "3"), ("four", "4")])
    job.run()
    assert job.requests == {"asked": 1, "taken_over": 8}
    assert job.kept() == ["more", "pick", "short"]
    del job.benchmarks[0]
    job.run()
    assert job.kept() == ["more", "pick"]


def test_a_corrected_filter_or_answer_needs_no_model(job, no_model):
    output = job.run()[1]["output"][0]
    no_model()
    job.benchmark("short", "generate.yaml", [("one", output[:2].strip()), ("two", "2"), ("one", "1")])
    job.edit_task(
        "short", filter_list=[{"name": "start", "filter": [{"function": "regex", "regex_pattern": "^(..)"}, {"function": "take_first"}]}]
    )
    _, samples = job.run()
    assert samples["extracted"][0].strip() == output[:2].strip() and samples["output"][0] == output
    assert job.requests["asked"] == 0


@pytest.mark.parametrize("options", [{"max_new_tokens": 5}, {"template": '{"prompt": "Q: {instruction}\\nA:", "response": " {response}"}'}])
def test_settings_that_change_requests_ask_again(job, options):
    job.run()
    if "template" in options:
        for name in ("short", "pick"):
            job.edit_task(name, doc_to_text="Q: {{instruction}}\nA:")
    job.run(**options)
    assert job.requests["asked"] == (3 if "max_new_tokens" in options else 7)


def test_a_renamed_suite_takes_its_answers_along(job, no_model):
    job.run()
    job.suite = "renamed"
    no_model()
    assert job.run()[0]["suite"].unique().to_list() == ["renamed"] and job.requests["asked"] == 0


def test_other_weights_type_or_backend_are_another_checkpoint(tmp_path, tiny_base):
    entry = json.loads(tiny_base.read_text())
    engine = ("hf", "transformers 5", "float32")
    others = [("vllm", "vllm 1", "float32"), ("hf-paged", *engine[1:]), ("hf", "transformers 6", "float32"), (*engine[:2], "bfloat16")]
    known = {identity(tiny_base, None, *way) for way in (engine, *others)}
    (tmp_path / "model.json").write_text(json.dumps(entry | {"sha256": {"model.safetensors": "0" * 64}}))
    known.add(identity(tmp_path / "model.json", None, *engine))
    for digest in ("1", "2"):
        (tmp_path / "epoch-2/weights").mkdir(parents=True, exist_ok=True)
        (tmp_path / "train.json").write_text(json.dumps({"weights_sha256": {"2": {"model.safetensors": digest}}}))
        known.add(identity(tiny_base, tmp_path / "epoch-2/weights", *engine))
    assert len(known) == 8
    (tmp_path / "copy.json").write_text(json.dumps(entry | {"name": "other", "path": "elsewhere"}))
    assert identity(tmp_path / "copy.json", None, *engine) in known


def test_edited_code_or_another_library_answers_again_and_a_comment_does_not(tmp_path, tiny_base, monkeypatch):
    from sft_atlas.evaluate import answers

    def known(code="x = 1", versions="1"):
        answers._code.cache_clear()
        for path in (*answers.CODE, *answers.CODE_OF["hf"]):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(code)
        monkeypatch.setattr(answers.metadata, "version", lambda name: versions)
        return identity(tiny_base, None, "hf", "transformers 5", "float32")

    with monkeypatch.context():
        monkeypatch.setattr(answers, "PACKAGE", tmp_path)
        same, edited, upgraded = known("x  =  1  # one") == known(), known("x = 2") == known(), known(versions="2") == known()
    answers._code.cache_clear()
    assert (same, edited, upgraded) == (True, False, False)


def test_a_kill_in_the_middle_keeps_the_finished_benchmarks(job, monkeypatch):
    def killed(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("lm_eval.models.huggingface.HFLM.loglikelihood", killed)
        job.run()
    assert job.kept() == ["short"] and not job.output("scores").exists()
    job.run()
    assert job.requests == {"asked": 4, "taken_over": 3}


def test_former_results_are_readable_while_a_job_runs_and_after_it_failed(job, monkeypatch):
    before, _ = job.run()
    for kind in ("scores", "samples"):
        job.output(kind).unlink()  # as Snakemake does before a job
    seen = []

    def fail(*args, **settings):
        seen.append(pl.read_parquet(job.output("scores")))
        raise AtlasError("out of luck")

    monkeypatch.setattr(hf, "load_model", fail)
    job.benchmarks.append(job.benchmark("more", "generate.yaml", [("three", "3")]))
    with pytest.raises(AtlasError, match="out of luck"):
        job.run()
    former = job.folder / "state/tasks/former"
    assert seen[0].equals(before) and pl.read_parquet(former / "scores.parquet").equals(before)
    assert pl.read_parquet(former / "samples.parquet").height == 5


def test_an_unreadable_file_of_answers_is_answered_again(job):
    job.run()
    (job.folder / "state/tasks/answers/short.parquet").write_bytes(b"PAR1")
    job.run()
    assert job.requests == {"asked": 3, "taken_over": 4}


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_sample": True}, True),
        ({"temperature": 0.7}, True),
        ({"temperature": 0.0, "do_sample": False}, False),
        ({}, False),
        (None, False),
    ],
)
def test_which_settings_sample(settings, expected):
    assert sampled(settings) is expected


def test_sampled_answers_are_those_of_their_seed_and_batch_and_never_mixed(tmp_path):
    store = AnswerStore(tmp_path / "suite", "weights")
    greedy, random = [("a", {"until": []}), ("a", {"until": []})], [("a", {"do_sample": True}), ("b", {"do_sample": True})]
    assert store.keys("generate_until", greedy, [0, 1]) == store.keys("generate_until", greedy, [1, 8])
    assert len(set(store.keys("generate_until", greedy, [0, 1]))) == 2
    keys = [store.keys("generate_until", random, sampling) for sampling in ([0, 1], [1, 1], [0, 8])]
    keys.append(store.keys("generate_until", random[:1], [0, 1]))
    assert len({key for listed in keys for key in listed}) == 7


def test_answers_come_back_as_they_were(tmp_path):
    from types import SimpleNamespace

    class Model:
        truncation = Truncation()

        def generate_until(self, requests):
            return ["\u2028 🙂 'x'" for _ in requests]

        def loglikelihood(self, requests):
            return [(-0.1234567890123456789, True) for _ in requests]

    def asked(load):
        model = answering_model(AnswerStore(tmp_path / "suite", "weights"), load, "tiny", 64, None)
        generated = [SimpleNamespace(args=("a", {"until": ["\n"]}), task_name="short")]
        return model.generate_until(generated), model.loglikelihood([SimpleNamespace(args=("a", " b"), task_name="pick")])

    first = asked(Model)
    assert asked(lambda: pytest.fail("the model was loaded")) == first == (["\u2028 🙂 'x'"], [(-0.1234567890123456789, True)])
