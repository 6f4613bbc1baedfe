"""Grade outputs in a file with the functions that score benchmarks, and compare with how a person graded them.

Each line of the file is a JSON object with `kind` (gsm8k, math, choice, yes_no, code or think), `output`, `target` (a list where several
answers are right) and `correct` (true or false). A choice needs `options`; code needs `tests`, and `prompt` where the tests call
`check` as HumanEval's do. think is an answer after a block of thinking; what else the line has says of which kind, or its `scorer`, such
as choice.letter. Programs run in the sandbox. Prints the agreement by kind and every disagreement; exits 1 if there is any.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import print_to_terminal
from sft_atlas.core.markdown import table
from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.metrics import choice, code, mathematics, several

SCORERS = {
    "mathematics.gsm8k": mathematics.gsm8k, "mathematics.math": mathematics.math, "choice.letter": choice.letter,
    "choice.yes_no": choice.yes_no, "code.humaneval": code.humaneval, "code.mbpp": code.mbpp,
}  # fmt: skip
BY_KIND = {"gsm8k": "mathematics.gsm8k", "math": "mathematics.math", "choice": "choice.letter", "yes_no": "choice.yes_no"}
KINDS = (*BY_KIND, "code", "think")
SHOWN = 60  # characters of an output and of an answer in the list of disagreements


class Graded(NamedTuple):
    """One line of the file, graded by us and by a person."""

    line: int
    kind: str
    output: str
    target: str
    extracted: str
    ours: bool
    theirs: bool


def main(args: argparse.Namespace) -> None:
    """Print agreement and disagreements. AtlasError where there are any, and for a file that cannot be read."""
    sandbox.AGREED.policy = args.sandbox
    graded = [grade(row, f"{args.answers}, line {line}", line) for line, row in read(args.answers)]
    total, agreed = Counter(one.kind for one in graded), Counter(one.kind for one in graded if one.ours == one.theirs)
    rows = [[kind, total[kind], agreed[kind], f"{agreed[kind] / total[kind]:.1%}"] for kind in KINDS if total[kind]]
    print_to_terminal("\n".join(table(["kind", "answers", "agree", "share"], rows, "lr")))
    different = [one for one in graded if one.ours != one.theirs]
    if different:
        rows = [
            [one.line, one.kind, shortened(one.output), shortened(one.target), shortened(one.extracted), *map(said, (one.ours, one.theirs))]
            for one in different
        ]
        print_to_terminal("\n".join(["", *table(["line", "kind", "output", "target", "read as", "ours", "theirs"], rows, "rl")]))
        raise AtlasError(f"{args.answers}: {len(different)} of {len(graded)} answers are graded differently")


def said(correct: bool) -> str:
    """A grade in words."""
    return "right" if correct else "wrong"


def shortened(text: str) -> str:
    """A text on one line, its middle left out where it is long."""
    line = " ".join(json.dumps(text, ensure_ascii=False)[1:-1].split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN // 2]} ... {line[-SHOWN // 2 :]}"


def read(path: Path) -> list[tuple[int, dict]]:
    """The rows of a JSON Lines file with the number of each line, from 1; empty lines are left out. AtlasError names the line."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise AtlasError(f"{path} cannot be read: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append((number, json.loads(line.decode("utf-8"))))
        except UnicodeDecodeError as error:
            raise AtlasError(
                f"{path}, line {number}: not UTF-8 (byte {error.start + 1}); convert the file, for example with iconv"
            ) from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise AtlasError(f"{path}, line {number}: not JSON ({error}); each line holds one object, see run.py grade --help") from None
    if not rows:
        raise AtlasError(f"{path} holds no answers; each line holds one object, see run.py grade --help")
    return rows


def grade(row: object, where: str, line: int = 1) -> Graded:
    """Grade one row with the scoring function of its kind. AtlasError names ``where`` and the key that is missing or wrong."""
    if not isinstance(row, dict):
        raise AtlasError(f"{where}: must be a JSON object, not {json.dumps(row, ensure_ascii=False)[:SHOWN]}")
    field = Fields(row, where)
    kind = field("kind", lambda value: value in KINDS, f"one of {', '.join(KINDS)}")
    output = field("output", is_text, "a text")
    targets = several(field("target", lambda value: is_text(value) or is_texts(value), "a text, or a list of texts"))
    theirs = field("correct", lambda value: isinstance(value, bool), "true or false")
    scorer = scorer_of(field, targets)
    try:
        scores = SCORERS[scorer](item(scorer, field, targets), [output])
    except (SyntaxError, ValueError) as error:  # of tests that are no Python, or that the sandbox cannot run
        raise AtlasError(f"{where}: 'tests' cannot be run: {error}") from None
    return Graded(line, kind, output, " | ".join(targets), str(scores["extracted"]), bool(next(iter(scores.values()))), theirs)


class Fields(NamedTuple):
    """The fields of a row, checked as they are asked for."""

    row: dict
    where: str

    def __call__(self, key: str, fits: Callable[[object], bool], expected: str):
        """The value of a field. AtlasError where it is missing or does not fit."""
        if key not in self.row:
            raise AtlasError(f"{self.where}: {key!r} is missing; it must be {expected}")
        value = self.row[key]
        if not fits(value):
            raise AtlasError(f"{self.where}: {key!r} must be {expected}, not {json.dumps(value, ensure_ascii=False)[:SHOWN]}")
        return value


def is_text(value: object) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_texts(value: object) -> bool:
    """Whether a value is a list of at least one text."""
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def scorer_of(field: Fields, targets: list[str]) -> str:
    """The scoring function of a row, as a key of SCORERS."""
    row = field.row
    kind = row["kind"]
    if "scorer" in row:
        scorer = field("scorer", lambda value: value in SCORERS, f"one of {', '.join(SCORERS)}")
        expected = BY_KIND.get(kind) or ("code." if kind == "code" else "")
        if not scorer.startswith(expected):
            raise AtlasError(f"{field.where}: 'scorer' is {scorer}, which does not score {kind}; leave it out")
        return scorer
    if kind in BY_KIND:
        return BY_KIND[kind]
    if kind == "code" or "tests" in row:
        return "code.mbpp" if isinstance(row.get("tests"), list) else "code.humaneval"
    if "options" in row:
        return "choice.letter"
    if targets[0].lower() in ("yes", "no", "true", "false"):
        return "choice.yes_no"
    return "mathematics.gsm8k" if mathematics.to_number(targets[0]) is not None else "mathematics.math"


def item(scorer: str, field: Fields, targets: list[str]) -> dict[str, object]:
    """The benchmark's item that a scoring function expects."""
    if scorer == "mathematics.gsm8k":
        for target in targets:
            if mathematics.to_number(target.split("####")[-1]) is None:
                raise AtlasError(f"{field.where}: 'target' must be a number, not {target[:SHOWN]!r}")
    if scorer == "choice.letter":
        limit = len(choice.LETTERS)
        options = field("options", lambda value: is_texts(value) and 2 <= len(value) <= limit, f"a list of 2 to {limit} texts")
        letters = choice.LETTERS[: len(options)]
        if unknown := [target for target in targets if target not in list(letters)]:
            raise AtlasError(
                f"{field.where}: 'target' must be the letter of an option, {letters[0]} to {letters[-1]}, not {unknown[0][:SHOWN]!r}"
            )
        return {"choices": options, "label": [letters.index(target) for target in targets]}
    if scorer == "choice.yes_no" and (unknown := [target for target in targets if target.lower() not in ("yes", "no", "true", "false")]):
        raise AtlasError(f"{field.where}: 'target' must be yes or no, not {unknown[0][:SHOWN]!r}")
    if scorer == "code.mbpp":
        return {"answer": targets[0], "test_list": field("tests", is_texts, "a list of lines such as `assert f(1) == 2`")}
    if scorer == "code.humaneval":
        prompt = field("prompt", is_text, "the code to complete (or give `tests` as a list of asserts)")
        defined = re.findall(r"^def (\w+)", prompt, re.MULTILINE)
        entry = field("entry_point", is_text, "a function's name") if "entry_point" in field.row else (defined or [None])[-1]
        if entry not in defined:
            raise AtlasError(f"{field.where}: 'prompt' must define the function {entry or 'that the tests check'}")
        tests = field("tests", is_text, "a text that defines check(candidate)")
        return {"prompt": prompt, "test": tests, "entry_point": entry, "answer": targets[0]}
    return {"answer": targets}


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--sandbox", choices=sandbox.POLICIES, default="strict", help="what to do where a protection of the sandbox is missing")
    p.add_argument("answers", type=Path, help="JSON Lines: outputs with a person's grades")
