"""MT-Bench and AlpacaEval v2: what a judge is asked about each answer, what its words mean, and the scores that follow."""

import hashlib
import json
import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass

from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate.judge_client import Reply
from sft_atlas.evaluate.scores import summarise
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.schema import Judge

PROMPTS = ROOT / "config/benchmarks/judge_prompts.yaml"
NEED_REFERENCE = ("math", "reasoning", "coding")  # as in FastChat
SCALE = {"mt_bench": 10.0, "alpaca_eval": 1.0}
RESAMPLES = 200


@dataclass(frozen=True)
class Question:
    """One thing that a judge is asked. ``part``: the turn of MT-Bench (1, 2), or the place of the model's answer in a pair (1, 2)."""

    benchmark: str
    item: int
    part: int
    repeat: int
    system: str
    user: str
    answer: str

    def key(self, judge: Judge, identity: str) -> str:
        """Judge, prompt and answer as one hash: what a judgement is remembered by."""
        who = [identity, judge.temperature, judge.max_new_tokens, judge.logprobs]
        prompt = hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()
        return hashlib.sha256(json.dumps([who, prompt, self.answer, self.repeat]).encode()).hexdigest()


def fill(prompt: str, **values: str) -> str:
    """A prompt with its places filled in; braces of the values stay what they are."""
    return re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), prompt)


def questions(kind: str, benchmark: str, items: list[dict], answers: dict[tuple[int, int], str | None], repeats: int) -> list[Question]:
    """Every question about the answers ((item, turn) -> text) of one benchmark; none about an answer that is not there."""
    prompts = strict_yaml(PROMPTS)[kind]
    asked = []
    for number, item in enumerate(items):
        for part in (1, 2):
            made = _rating(prompts, item, number, part, answers) if kind == "mt_bench" else _pair(prompts, item, number, part, answers)
            if made:
                asked += [Question(benchmark, number, part, repeat, *made) for repeat in range(repeats)]
    return asked


def _rating(prompts: dict, item: dict, number: int, turn: int, answers: dict) -> tuple[str, str, str] | None:
    said = [answers.get((number, i)) for i in (1, 2)]
    if any(text is None for text in said[:turn]):
        return None
    references = item.get("reference_gpt4") or item.get("reference") or []
    needed = item.get("category") in NEED_REFERENCE and len(references) >= turn
    prompt = prompts[("single", "second")[turn - 1] + ("_reference" if needed else "")]
    values = {f"question_{i + 1}": text for i, text in enumerate(item["turns"])}
    values |= {f"answer_{i + 1}": text for i, text in enumerate(said) if text is not None}
    values |= {f"reference_{i + 1}": text for i, text in enumerate(references)} if needed else {}
    return prompt["system"], fill(prompt["user"], **values), said[turn - 1]


def _pair(prompts: dict, item: dict, number: int, place: int, answers: dict) -> tuple[str, str, str] | None:
    own = answers.get((number, 1))
    if own is None:
        return None
    first, second = (own, item["answer"]) if place == 1 else (item["answer"], own)
    return prompts["pair"]["system"], fill(prompts["pair"]["user"], question_1=item["instruction"], first=first, second=second), own


def rating(reply: Reply) -> float | None:
    """The number in the last ``[[...]]`` (or ``[...]``, as FastChat accepts), from 1 to 10; None for anything else."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", reply.text or "") or re.findall(r"\[(\d+(?:\.\d+)?)\]", reply.text or "")
    value = float(found[-1]) if found else None
    return value if value is not None and 1 <= value <= 10 else None


def preference(reply: Reply, place: int) -> float | None:
    """How far the judge prefers the model's answer (0 to 1), which stood at ``place``: by the log-probabilities of the identifiers where
    they are there, else by the identifier that the text is; None for anything else."""
    odds = {name: max((value for token, value in reply.first.items() if token.strip() == name), default=None) for name in ("m", "M")}
    if any(value is not None for value in odds.values()):
        weight = {name: math.exp(value) if value is not None else 0.0 for name, value in odds.items()}
        first = weight["m"] / (weight["m"] + weight["M"])
    else:
        said = (reply.text or "").strip().strip("\"'`.* ")
        if said not in ("m", "M"):
            return None
        first = float(said == "m")
    return first if place == 1 else 1.0 - first


def length_controlled(preferences: list[float], lengths: list[int], base_lengths: list[int]) -> float:
    """AlpacaEval's length-controlled win rate: that of a logistic model without its length term.

    The model is logit(p) = a + b tanh(difference in length / its standard deviation), fitted to the judge's preferences with a weak ridge
    (C = 100); the published one has a third term, an item difficulty fitted on other models' outputs, which needs those (arXiv
    2404.04475). Lengths in characters.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    difference = np.asarray(lengths, float) - np.asarray(base_lengths, float)
    spread = difference.std()
    feature = np.tanh(difference / spread if spread > 0 else np.zeros_like(difference))[:, None]
    p = np.asarray(preferences, float)
    # A soft label is a win with weight p and a loss with weight 1 - p; a little of each keeps one-sided judgements finite.
    p = np.clip(p, 1e-3, 1 - 1e-3)
    both = np.concatenate([feature, feature])
    model = LogisticRegression(C=100.0).fit(both, np.repeat([1, 0], len(p)), sample_weight=np.concatenate([p, 1 - p]))
    return float(1 / (1 + math.exp(-model.intercept_[0])))


def verdicts(kind: str, asked: list[Question], replies: list[Reply]) -> list[float | None]:
    """What each reply means: a rating from 1 to 10, or a preference from 0 to 1; None where it means nothing."""
    return [
        rating(reply) if kind == "mt_bench" else preference(reply, question.part) for question, reply in zip(asked, replies, strict=True)
    ]


def scored_items(kind: str, asked: list[Question], values: list[float | None]) -> dict[int, tuple[float | None, float | None]]:
    """Item -> (score as a fraction, variance of the judge's noise in it). An item of which one part has no judgement has no score.

    A part's value is the mean over its repeats, the item's the mean over its two parts (turns, or orders).
    """
    found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question, value in zip(asked, values, strict=True):
        if value is not None:
            found[question.item][question.part].append(value / SCALE[kind])
    result = {}
    for item in {question.item for question in asked}:
        parts = [found[item][part] for part in (1, 2)]
        if not all(parts):
            result[item] = (None, None)
            continue
        means = [math.fsum(part) / len(part) for part in parts]
        noise = None
        if all(len(part) > 1 for part in parts):
            spreads = [
                math.fsum((value - mean) ** 2 for value in part) / (len(part) - 1) / len(part)
                for part, mean in zip(parts, means, strict=True)
            ]
            noise = math.fsum(spreads) / 4
        result[item] = (math.fsum(means) / 2, noise)
    return result


def score_row(
    kind: str, metric: str, rows: list[dict], noise: list[float | None], lengths: list[tuple[int, int]], judge: str, backend: str, seed: int
):
    """The score row of a judged benchmark. ``rows`` have the keys of SAMPLES; ``lengths``: characters of the answer and of the baseline.

    ``stderr`` is that of the mean of the items as judged: it holds the judge's noise, whose own part is ``judge_stderr`` (known from two
    repeats on).
    """
    entry = summarise(rows, metric, backend, 0, judge=judge, scale=SCALE[kind])
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
