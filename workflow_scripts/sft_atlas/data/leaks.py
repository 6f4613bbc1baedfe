"""Benchmark items in training sets, and sources that are one under two names, found by their content.

Texts are compared as words and marks after Unicode normalization (NFKC), without case, white space and quotation marks: other names, files,
formats and spacings hide nothing. The thresholds:

* A question is in a training set where a row's instruction is that question, or where a question of WHOLE_WORDS words or more stands as a
  whole in a row's instruction or response, as in another prompt or a list.
* An answer is in a training set where a right answer of ANSWER_WORDS words or more stands as a whole in a response: solutions that leaked
  without their question. 13 words are those of GPT-3's contamination analysis (Brown et al. 2020, appendix C).
* Two training sets are one where SAME_ROWS of the rows of the smaller source are rows of the other. Collections that share some rows are usual.

Paraphrases and translations are not found.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import combinations

from sft_atlas.study.items import words

WHOLE_WORDS = 8
ANSWER_WORDS = 13
SAME_ROWS = 0.5
QUOTES = re.compile("[\"'`´‘’‚‛“”„«»]")


def plain(text: str) -> tuple[str, ...]:
    """A text in the form in which it is compared."""
    return words(QUOTES.sub("", unicodedata.normalize("NFKC", text)))


class Passages:
    """Texts to look for, by key, of at least ``size`` words each; shorter ones are left out."""

    def __init__(self, texts: Iterable[tuple[tuple, str]], size: int):
        self.size = size
        self._by_start: dict[tuple[str, ...], list[tuple[tuple[str, ...], tuple]]] = {}
        for key, text in texts:
            if len(tokens := plain(text)) >= size:
                self._by_start.setdefault(tokens[:size], []).append((tokens, key))

    def inside(self, tokens: tuple[str, ...]) -> set[tuple]:
        """Keys of the passages that stand as a whole in a text, which is given by :func:`plain`."""
        if not self._by_start:
            return set()
        return {
            key
            for start in range(len(tokens) - self.size + 1)
            for passage, key in self._by_start.get(tokens[start : start + self.size], ())
            if tokens[start : start + len(passage)] == passage
        }


class Items:
    """The questions and right answers of benchmarks, to be found in training sets. ``items``: rows with instruction and answer, by name."""

    def __init__(self, items: dict[str, list[dict]]):
        rows = [((name, number), row) for name, listed in items.items() for number, row in enumerate(listed)]
        self._exact: dict[tuple[str, ...], list[tuple]] = {}
        for key, row in rows:
            self._exact.setdefault(plain(row["instruction"]), []).append(key)
        self._questions = Passages(((key, row["instruction"]) for key, row in rows), WHOLE_WORDS)
        self._answers = Passages(((key, row["answer"]) for key, row in rows), ANSWER_WORDS)

    def found_in(self, rows: Iterable[tuple[list[str], list[str]]]) -> tuple[set[tuple], set[tuple]]:
        """(items whose question, items whose answer is in a training set) as (benchmark, number). A row: instructions and responses."""
        questions, answers = set(), set()
        for instructions, responses in rows:
            for text in instructions:
                tokens = plain(text)
                questions.update(self._exact.get(tokens, ()), self._questions.inside(tokens))
            for text in responses:
                tokens = plain(text)
                questions |= self._questions.inside(tokens)
                answers |= self._answers.inside(tokens)
        return questions, answers


def identity(item: dict) -> tuple[str, ...]:
    """An item with its right answer, in the form in which it is compared: many questions of MMLU have the same words and other options."""
    return plain(f"{item['instruction']}\n{item['answer']}")


def shared_between(items: dict[str, list[dict]]) -> list[tuple[str, str, int, int]]:
    """(benchmark, benchmark, shared items, items of the smaller one) for all that share items: the same words and the same right answer."""
    return shared({name: {identity(item) for item in listed} for name, listed in items.items()})


def shared(sets: dict[str, set]) -> list[tuple[str, str, int, int]]:
    """(name, name, shared members, members of the smaller one) of all pairs of sets that share any."""
    pairs = ((one, other, len(sets[one] & sets[other]), min(len(sets[one]), len(sets[other]))) for one, other in combinations(sets, 2))
    return [pair for pair in pairs if pair[2]]
