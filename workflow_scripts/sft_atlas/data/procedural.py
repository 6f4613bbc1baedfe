"""Procedural tasks for studies without a hub: reasoning-gym items with short prompts, and prose.

The hash of its instruction puts every item on one side, training or benchmark, so that the two never share an item, whatever the seeds
and sizes.
"""

import hashlib
import importlib.util
import itertools
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.optional_packages import pip_install
from sft_atlas.study.messages import nearest
from sft_atlas.study.schema import StudyFile

BENCHMARK_SHARE = 4  # one distinct item in four belongs to the benchmark side
Item = dict[str, object]  # instruction, response, task; choices and label where the answer is one of a few


@dataclass(frozen=True)
class ProceduralTask:
    """A reasoning-gym task, its settings, and how its item becomes a short instruction and a response."""

    settings: Mapping[str, object]
    rewrite: Callable[[dict], tuple[str, str]] = lambda item: (item["question"].strip(), item["answer"])
    choices: Callable[[str, random.Random], list[str]] | None = None
    balanced: int | None = None  # number of answers, each to an equal share of the items, so that a constant answer scores at chance


KIN = [
    "mother", "father", "sister", "brother", "aunt", "uncle", "grandmother", "grandfather", "daughter", "son", "wife", "husband",
    "mother-in-law", "father-in-law", "granddaughter", "grandson",
]  # fmt: skip


def _kin_choices(answer: str, rng: random.Random) -> list[str]:
    return sorted([answer, *rng.sample([word for word in KIN if word != answer], 3)])


def _sorting(item: dict) -> tuple[str, str]:
    numbers, ordered = (" ".join(str(int(float(x))) for x in item["metadata"][key]) for key in ("original_numbers", "sorted_numbers"))
    return f"Sort {item['metadata']['direction']} {numbers}", ordered


def _syllogism(item: dict) -> tuple[str, str]:
    first, second, conclusion = re.match(r".*1\. (.*)\n2\. (.*)\n\nDoes it logically follow that:\n(.*)\?", item["question"], re.S).groups()
    return f"{first}. {second}. So {conclusion.lower()}?", item["answer"]


def _kinship(item: dict) -> tuple[str, str]:
    story, question = item["question"].split("\n\n")
    # reasoning-gym 0.1.25 names some in-law relations the wrong way round: leave them all out.
    return ("", "") if item["answer"].endswith("-in-law") else (f"{story} {question.split('? ')[0]}?", item["answer"])


def _short_words(item: dict) -> tuple[str, str]:
    words = item["metadata"]["words"]
    short = all(word.isalpha() and len(word) <= 3 for word in words)
    return (f"Reverse {' '.join(words)}", " ".join(reversed(words))) if short else ("", "")


def _spelling(item: dict) -> tuple[str, str]:
    word = item["metadata"]["word"].lower()
    return f"Spell {' '.join(word)} backward", " ".join(reversed(word))


TASKS: dict[str, ProceduralTask] = {
    "chain_sum": ProceduralTask(
        {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        lambda item: (f"Calculate {item['metadata']['expression']} =", item["answer"]),
    ),
    "number_sequence": ProceduralTask(
        # All of one length: a longer sequence would hold a shorter one of the other side, with its answer.
        {"min_terms": 4, "max_terms": 4, "min_value": -60, "max_value": 60, "max_complexity": 1},
        lambda item: (f"Continue {item['question'].replace(', ?', '')}", item["answer"]),
    ),
    "number_sorting": ProceduralTask(
        {"min_numbers": 3, "max_numbers": 3, "min_decimals": 0, "max_decimals": 0, "min_value": 1, "max_value": 19}, _sorting
    ),
    "word_sequence_reversal": ProceduralTask({"min_words": 3, "max_words": 3}, _short_words),
    "spell_backward": ProceduralTask({"min_word_len": 3, "max_word_len": 5}, _spelling),
    "syllogism": ProceduralTask({}, _syllogism, lambda answer, rng: ["No", "Yes"], balanced=2),
    "family_relationships": ProceduralTask({"min_family_size": 3, "max_family_size": 3}, _kinship, _kin_choices),
}
PROSE = "prose"
NAMES = (*TASKS, PROSE)
NO_BENCHMARK = "tasks.prose: open text has no single right answer and cannot be a benchmark; use it in datasets and mixtures"


def side_of(instruction: str) -> str:
    """``benchmark`` or ``train``, from the hash of the instruction alone."""
    digest = hashlib.blake2b(" ".join(instruction.lower().split()).encode(), digest_size=8).digest()
    return "benchmark" if int.from_bytes(digest, "big") % BENCHMARK_SHARE == 0 else "train"


def problems(file: StudyFile) -> list[str]:
    """Tasks of a study that are not known, or that cannot be a benchmark."""
    named = {f"{part}.{name}.tasks": entry.tasks for part in ("datasets", "benchmarks") for name, entry in getattr(file, part).items()}
    named |= {f"models.{name}.pretrain.mixture": entry.pretrain.mixture for name, entry in file.models.items() if entry.pretrain}
    unknown = [
        f"{key}: there is no task {task!r}{nearest(task, NAMES)} (known: {', '.join(NAMES)})"
        for key, tasks in named.items()
        for task in tasks or ()
        if task not in NAMES
    ]
    prose = [f"benchmarks.{name}.{NO_BENCHMARK}" for name, entry in file.benchmarks.items() if PROSE in (entry.tasks or ())]
    return unknown + prose


def generate(weights: Mapping[str, float], size: int, seed: int, side: str) -> list[Item]:
    """``size`` distinct items of one side (``train`` or ``benchmark``), tasks in proportion to their weights, shuffled.

    The same arguments give the same items on every machine (with PYTHONHASHSEED=0: some tasks iterate over sets). Raises AtlasError for an
    unknown task and where a task has too few items.
    """
    unknown = [name for name in weights if name not in NAMES]
    if unknown:
        raise AtlasError(f"tasks: there is no task {unknown[0]!r} (known: {', '.join(NAMES)})")
    rng = random.Random(seed)
    items: list[Item] = []
    for name, share in zip(weights, itertools.accumulate(weights.values()), strict=True):
        count = round(size * share / sum(weights.values())) - len(items)
        items += itertools.islice(_distinct(name, count, rng.randrange(2**31), side), count)
    rng.shuffle(items)
    return items


def _distinct(name: str, count: int, seed: int, side: str) -> Iterator[Item]:
    """Distinct items of one task and side. AtlasError where the task has too few."""
    if name == PROSE and side == "benchmark":
        raise AtlasError(NO_BENCHMARK)
    rng = random.Random(seed)
    seen: set[str] = set()
    answers: Counter[str] = Counter()
    share = math.ceil(count / TASKS[name].balanced) if name in TASKS and TASKS[name].balanced else count
    rejected = 0
    for instruction, response in _prose(rng) if name == PROSE else _gym(name, count, seed):
        key = " ".join(instruction.lower().split())
        if not response or key in seen or side_of(instruction) != side or answers[response] == share:
            rejected += 1
            if rejected > 20 * BENCHMARK_SHARE * max(count, 100):
                break
            continue
        seen.add(key)
        answers[response] += 1
        choices = TASKS[name].choices if name in TASKS else None
        options = choices(response, rng) if choices else None
        item = {"instruction": instruction, "response": response, "task": name}
        yield item | {"choices": options, "label": options.index(response)} if options else item
        if len(seen) == count:
            return
    raise AtlasError(f"tasks.{name}: has {len(seen)} distinct items for the {side} side, not {count}; lower `size` or mix in other tasks")


def _no_pycosat(*_) -> None:
    raise AtlasError(
        "tasks.zebra_puzzles: needs the package pycosat, which `make env` leaves out because it must be compiled; "
        f"install a C compiler, then run {pip_install('pycosat')}"
    )


def import_reasoning_gym() -> ModuleType:
    """The package reasoning_gym, also without pycosat, a C extension that it always imports but needs only for its zebra_puzzles."""
    missing = importlib.util.find_spec("pycosat") is None
    if missing:
        sys.modules["pycosat"] = SimpleNamespace(itersolve=_no_pycosat)
    try:
        import reasoning_gym
    finally:
        if missing:
            del sys.modules["pycosat"]  # sympy looks for it too
    return reasoning_gym


def _gym(name: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    reasoning_gym = import_reasoning_gym()
    task = TASKS[name]
    size = 2 * BENCHMARK_SHARE * max(count, 32)
    for part in itertools.count():  # item i of a dataset is made from seed + i: the parts must not share seeds
        for item in reasoning_gym.create_dataset(name, size=size, seed=seed + part * size, **task.settings):
            instruction, response = task.rewrite(item)
            yield instruction, response.strip()


def _prose(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Sentences of the public-domain story inside reasoning-gym, cut at every third word, in a seeded order."""
    story = import_reasoning_gym().data.read_data_file("in_the_year_2889.txt").split("*** START OF")[-1].split("*** END OF")[0]
    text = " ".join(story.split("***")[-1].split("End of Project")[0].split())
    sentences = [words for sentence in re.split(r"(?<=[.!?])\s+", text) if len(words := sentence.split()) >= 6]
    pieces = [(words[max(0, cut - 4) : cut], words[cut : cut + 4]) for words in sentences for cut in range(3, len(words) - 2, 3)]
    rng.shuffle(pieces)
    for start, rest in pieces:
        yield "Complete: " + " ".join(start), " ".join(rest)
