"""Ask the judge about one checkpoint's answers to a judged suite (MT-Bench, AlpacaEval v2), and score them. May use the network."""

import argparse
import hashlib
import json
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.files import lock_folder, read_json, read_table, sha256, write_table
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import judge_client
from sft_atlas.evaluate.answers import former_results
from sft_atlas.evaluate.judge_client import Reply
from sft_atlas.evaluate.scores import SCORED_BY, samples_frame, score_row, scores_frame
from sft_atlas.evaluate.scoring_job import add_outputs, add_suite, with_keys, write_results
from sft_atlas.evaluate.tasks import SuiteFile
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.study import task_files
from sft_atlas.study.items import read_items
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.schema import Judge

NETWORK = True
PROMPTS = ROOT / "config/benchmarks/judge_prompts.yaml"
NEED_REFERENCE = ("math", "reasoning", "coding")  # as in FastChat
SCALE = {"mt_bench": 10.0, "alpaca_eval": 1.0}
RESAMPLES = 200
NO_ANSWER = "the model has no room for the question and an answer"


def main(args: argparse.Namespace) -> None:
    """Write judgements, scores and samples, and a JSON with provenance beside the scores."""
    with former_results(args.former, args.output_scores, args.output_samples, args.output_judgements):
        judge_answers(args)


def judge_answers(args: argparse.Namespace) -> None:
    """Ask what is not known yet, and write the results."""
    import polars as pl

    judge, suite = Judge.model_validate_json(args.judge), SuiteFile.read(args.suite)
    ask, identity, concurrency = make_judge(judge, args)
    answers = read_table(args.answers)
    record = read_json(args.answers.with_suffix(".json"))
    scored_by = {name: record.get(name) for name in SCORED_BY}
    benchmarks = [JudgedBenchmark.of(file, answers.filter(benchmark=file.name), judge.repeats) for file in suite.benchmarks]
    requests = {
        question.key(judge, identity): (question.system, question.user, judge.logprobs and benchmark.kind == "alpaca_eval", question.repeat)
        for benchmark in benchmarks
        for question in benchmark.questions
    }
    with lock_folder(args.state.with_suffix("")):
        replies, counts = judge_client.ask_all(requests, ask, judge_client.Memory(args.state), concurrency)
    scores, samples, judgements = [], [], []
    for benchmark in benchmarks:
        received = [replies[question.key(judge, identity)] for question in benchmark.questions]
        values = verdicts(benchmark.kind, benchmark.questions, received)
        rows, noise, lengths = item_rows(benchmark, values)
        scores.append(judged_score_row(benchmark.kind, benchmark.metric, rows, noise, lengths, identity, scored_by, args.seed))
        samples += rows
        judgements += [
            (question.benchmark, question.item, question.part, question.repeat, value, reply.text, reason_missing(value, reply))
            for question, value, reply in zip(benchmark.questions, values, received, strict=True)
        ]
        malformed = sum(value is None and reply.text is not None for value, reply in zip(values, received, strict=True))
        counts[f"{benchmark.name}: malformed"] = malformed
        LOG.info("%s: %s of %d judgements malformed; %s", benchmark.name, malformed, len(values), scores[-1])
    schema = dict.fromkeys(("benchmark", "item", "part", "repeat", "verdict", "text", "refused"), pl.String)
    schema |= dict.fromkeys(("item", "part", "repeat"), pl.Int64) | {"verdict": pl.Float64}
    write_table(args.output_judgements, with_keys(args, pl.DataFrame(judgements, schema, orient="row")))
    facts = {
        "judge": judge.model_dump(), "judge_identity": identity, "judgements": counts, "judge_prompts_sha256": sha256(PROMPTS),
        "generated": {name: record.get(name) for name in ("settings", "template_sha256", "weights", "device", "dtype")},
    }  # fmt: skip
    write_results(args, scores_frame(scores), samples_frame(samples), **scored_by, **facts)
    if missing := sum(row["n_missing"] for row in scores):
        checkpoint = f"{args.model}/{args.dataset}/{args.recipe}, {suite.name}"
        LOG.warning("%s: %d of %d items have no score; see %s", checkpoint, missing, len(samples), args.output_judgements)


def make_judge(judge: Judge, args: argparse.Namespace) -> tuple[Callable[..., Reply], str, int]:
    """(function that queries the judge, the judge's identity in scores and keys, number of concurrent requests)."""
    if judge.url:
        return judge_client.Endpoint(judge).ask, f"{judge.model} at {judge.url}", judge.concurrency
    import torch

    torch.set_num_threads(args.threads)
    base = ModelFolder.read(args.judge_base)
    weights = sha256(sorted(base.path.glob("*.safetensors"))[0])[:16]
    return judge_client.Local(judge, load_model(base), load_tokenizer(base)).ask, f"{judge.model} (local, {weights})", 1


@dataclass(frozen=True)
class Question:
    """One request to the judge. ``part``: the turn of MT-Bench (1, 2), or the position of the model's answer in a pair (1, 2)."""

    benchmark: str
    item: int
    part: int
    repeat: int
    system: str
    user: str
    answer: str

    def key(self, judge: Judge, identity: str) -> str:
        """Judge, prompt and answer as one hash, under which a judgement is stored."""
        settings = [identity, judge.temperature, judge.max_new_tokens, judge.logprobs]
        prompt = hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()
        return hashlib.sha256(json.dumps([settings, prompt, self.answer, self.repeat]).encode()).hexdigest()


@dataclass(frozen=True)
class JudgedBenchmark:
    """A benchmark with one checkpoint's answers and the questions about them.

    ``kind``: ``mt_bench`` or ``alpaca_eval``. ``answers``: (item, turn) -> text, None where there is none. ``truncated``: item -> whether
    one of its answers was.
    """

    name: str
    kind: str
    metric: str
    items: list[dict]
    answers: dict[tuple[int, int], str | None]
    truncated: dict[int, bool | None]
    questions: list[Question]

    @classmethod
    def of(cls, file, rows, repeats: int) -> "JudgedBenchmark":
        """From the files of a benchmark (BenchmarkFiles) and its rows of the answers (polars frame of rule generate)."""
        import polars as pl

        kind, items = task_files.judged(str(file.task)), read_items(file.items)
        answers = {(item, turn): output for item, turn, output in rows.select("item", "turn", "output").iter_rows()}
        truncated = dict(rows.group_by("item").agg(pl.col("truncated").any()).iter_rows())
        metric = task_files.task_file(str(file.task))["metric_list"][0]["metric"]
        return cls(file.name, kind, metric, items, answers, truncated, questions(kind, file.name, items, answers, repeats))


def fill(prompt: str, **values: str) -> str:
    """A prompt with its placeholders filled in; braces inside the values are kept."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), prompt)


def questions(kind: str, benchmark: str, items: list[dict], answers: dict[tuple[int, int], str | None], repeats: int) -> list[Question]:
    """Every question about the answers ((item, turn) -> text) of one benchmark; none about a missing answer."""
    prompts = strict_yaml(PROMPTS)[kind]
    listed = []
    for number, item in enumerate(items):
        for part in (1, 2):
            texts = (_rating if kind == "mt_bench" else _pair)(prompts, item, number, part, answers)
            if texts:
                listed += [Question(benchmark, number, part, repeat, *texts) for repeat in range(repeats)]
    return listed


def _rating(prompts: dict, item: dict, number: int, turn: int, answers: dict) -> tuple[str, str, str] | None:
    given = [answers.get((number, i)) for i in (1, 2)]
    if any(text is None for text in given[:turn]):
        return None
    references = item.get("reference_gpt4") or item.get("reference") or []
    needed = item.get("category") in NEED_REFERENCE and len(references) >= turn
    prompt = prompts[("single", "second")[turn - 1] + ("_reference" if needed else "")]
    values = {f"question_{i + 1}": text for i, text in enumerate(item["turns"])}
    values |= {f"answer_{i + 1}": text for i, text in enumerate(given) if text is not None}
    values |= {f"reference_{i + 1}": text for i, text in enumerate(references)} if needed else {}
    return prompt["system"], fill(prompt["user"], **values), given[turn - 1]


def _pair(prompts: dict, item: dict, number: int, position: int, answers: dict) -> tuple[str, str, str] | None:
    own = answers.get((number, 1))
    if own is None:
        return None
    first, second = (own, item["answer"]) if position == 1 else (item["answer"], own)
    return prompts["pair"]["system"], fill(prompts["pair"]["user"], question_1=item["instruction"], first=first, second=second), own


def rating(reply: Reply) -> float | None:
    """The number in the last ``[[...]]`` (or ``[...]``, as FastChat accepts), from 1 to 10; None for anything else."""
    text = reply.text or ""
    numbers = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", text) or re.findall(r"\[(\d+(?:\.\d+)?)\]", text)
    value = float(numbers[-1]) if numbers else None
    return value if value is not None and 1 <= value <= 10 else None


def preference(reply: Reply, position: int) -> float | None:
    """How far the judge prefers the model's answer (0 to 1), shown at ``position``: from the log-probabilities of the identifiers m and M
    where the endpoint gives them, else from the text, which must be `m` or `M`; None for anything else, and where both are too unlikely to compare."""
    odds = {name: max((value for token, value in reply.first.items() if token.strip() == name), default=None) for name in ("m", "M")}
    if any(value is not None for value in odds.values()):
        weight = {name: math.exp(value) if value is not None else 0.0 for name, value in odds.items()}
        if not any(weight.values()):
            return None
        first = weight["m"] / (weight["m"] + weight["M"])
    else:
        choice = (reply.text or "").strip().strip("\"'`.* ")
        if choice not in ("m", "M"):
            return None
        first = float(choice == "m")
    return first if position == 1 else 1.0 - first


def verdicts(kind: str, questions: list[Question], replies: list[Reply]) -> list[float | None]:
    """The value of each reply: a rating from 1 to 10, or a preference from 0 to 1; None where the reply is malformed or missing."""
    return [rating(r) if kind == "mt_bench" else preference(r, question.part) for question, r in zip(questions, replies, strict=True)]


def reason_missing(value: float | None, reply: Reply) -> str | None:
    """Why a question has no verdict; None where it has one (``value``)."""
    if value is not None or reply.text is None:
        return reply.refused
    return "both identifiers are too unlikely" if reply.first else "no verdict in the text"


def scored_items(kind: str, questions: list[Question], values: list[float | None]) -> dict[int, tuple[float | None, float | None]]:
    """Item -> (score as a fraction, variance of the judge's noise in it). An item without a verdict on one of its parts has no score.

    A part's value is the mean over its repeats, the item's the mean over its two parts (turns, or orders).
    """
    by_part: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question, value in zip(questions, values, strict=True):
        if value is not None:
            by_part[question.item][question.part].append(value / SCALE[kind])
    result = {}
    for item in {question.item for question in questions}:
        parts = [by_part[item][part] for part in (1, 2)]
        if not all(parts):
            result[item] = (None, None)
            continue
        means = [math.fsum(part) / len(part) for part in parts]
        noise = None
        if all(len(part) > 1 for part in parts):
            squares = [(math.fsum((value - mean) ** 2 for value in part), len(part)) for part, mean in zip(parts, means, strict=True)]
            noise = math.fsum(total / (n - 1) / n for total, n in squares) / 4
        result[item] = (math.fsum(means) / 2, noise)
    return result


def item_rows(benchmark: JudgedBenchmark, values: list[float | None]) -> tuple[list[dict], list[float | None], list[tuple[int, int]]]:
    """(rows of SAMPLES, variance of the judge's noise, characters of answer and baseline), each with one entry per item.

    ``values``: the verdicts on the benchmark's questions.
    """
    scored = scored_items(benchmark.kind, benchmark.questions, values)
    by_part: dict[int, dict[str, list]] = {}
    for question, value in zip(benchmark.questions, values, strict=True):
        by_part.setdefault(question.item, {}).setdefault(str(question.part), []).append(value)
    rows, noise, lengths = [], [], []
    for number, item in enumerate(benchmark.items):
        score, variance = scored.get(number, (None, None))
        outputs = [benchmark.answers[number, turn] for turn in (1, 2) if (number, turn) in benchmark.answers]
        rows.append({
            "benchmark": benchmark.name, "item": number, "prompt": item["instruction"], "target": item["answer"],
            "output": outputs[0] if len(outputs) == 1 else json.dumps(outputs, ensure_ascii=False), "extracted": json.dumps(by_part.get(number, {})),
            "score": score, "strict": None, "parsed": None, "formed": None, "truncated": benchmark.truncated.get(number), "shots": 0, "cluster": None,
            "missing": None if score is not None else NO_ANSWER if None in outputs else "no judgement of it can be read",
        })  # fmt: skip
        noise.append(variance)
        lengths.append((len(outputs[0] or "") if outputs else 0, len(item["answer"])))
    return rows, noise, lengths


def judged_score_row(kind: str, metric: str, rows: list[dict], noise: list, lengths: list, judge: str, scored_by: dict, seed: int) -> dict:
    """The score row of a judged benchmark. ``rows`` have the keys of SAMPLES; ``lengths``: characters of the answer and of the baseline.

    ``stderr`` is that of the mean over items and includes the judge's noise; ``judge_stderr`` is the noise alone, known with two repeats
    or more.
    """
    entry = score_row(rows, metric, scored_by, 0, judge=judge, scale=SCALE[kind])
    known = [value for value in noise if value is not None]
    if known:
        entry["judge_stderr"] = math.sqrt(math.fsum(known)) / len(known)
    if kind == "alpaca_eval" and entry["n"]:
        scored = [(row["score"], *length) for row, length in zip(rows, lengths, strict=True) if row["score"] is not None]
        entry["score_length_controlled"] = length_controlled(*map(list, zip(*scored, strict=True)))
        rng = random.Random(seed)
        draws = [length_controlled(*map(list, zip(*rng.choices(scored, k=len(scored)), strict=True))) for _ in range(RESAMPLES)]
        mean = math.fsum(draws) / len(draws)
        entry["stderr_length_controlled"] = math.sqrt(math.fsum((draw - mean) ** 2 for draw in draws) / (len(draws) - 1))
    return entry


def length_controlled(preferences: list[float], lengths: list[int], base_lengths: list[int]) -> float:
    """AlpacaEval's length-controlled win rate: that of a logistic model without its length term.

    The model is logit(p) = a + b tanh(difference in length / its standard deviation), fitted to the judge's preferences with a weak ridge
    (C = 100). The published model (arXiv 2404.04475) has a third term, an item difficulty that is fitted on other models' outputs.
    Lengths in characters.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    difference = np.asarray(lengths, float) - np.asarray(base_lengths, float)
    spread = difference.std()
    feature = np.tanh(difference / spread if spread > 0 else np.zeros_like(difference))[:, None]
    p = np.asarray(preferences, float)
    # A soft label is a win with weight p and a loss with weight 1 - p; clipping keeps the fit finite where all judgements agree.
    p = np.clip(p, 1e-3, 1 - 1e-3)
    both = np.concatenate([feature, feature])
    model = LogisticRegression(C=100.0).fit(both, np.repeat([1, 0], len(p)), sample_weight=np.concatenate([p, 1 - p]))
    return float(1 / (1 + math.exp(-model.intercept_[0])))


def add_options(p: argparse.ArgumentParser) -> None:
    add_suite(p)
    p.add_argument("--answers", type=Path, required=True, help="Parquet of rule generate")
    p.add_argument("--judge", required=True, help="the suite's judge of the study file, as JSON")
    p.add_argument("--judge-base", type=Path, nargs="?", help="model.json of the base model that judges, without an endpoint")
    p.add_argument("--state", type=Path, required=True, help="JSON lines of every judgement so far; kept")
    p.add_argument("--former", type=Path, required=True, help="folder of the last complete results; kept")
    p.add_argument("--threads", type=int, default=1)
    add_outputs(p)
    p.add_argument("--output-judgements", type=Path, required=True, help="Parquet, one row per question")


def gpus(args: argparse.Namespace) -> int:
    """GPUs that the job takes in a local run."""
    return 1 if args.judge_base else 0
