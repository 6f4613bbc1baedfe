"""Scores of answers, one function for each kind of benchmark, named by `process_results: !function` in config/benchmarks/*.yaml.

Each takes (item, [raw output]) as lm-eval does and returns the item's scores: the benchmark's metric (0 or 1, under lenient extraction,
as a human reader would judge), ``strict`` (0 or 1: only the form that the prompt requests counts; never above the metric), ``parsed``
(1 where an answer was found at all), ``formed`` (1 where the output has the requested form, right or wrong) and ``extracted`` (the
answer, or ``""``). An item may have several right answers: a list in place of one.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator

FENCE = re.compile(r"(?:```|~~~)[^\n`]*\n(.*?)(?:\n?[ \t]*(?:```|~~~)|\Z)", re.DOTALL)
TAG = re.compile(r"[<\[◁](/?)(?:think(?:ing)?|thought|reasoning)[>\]▷]", re.IGNORECASE)
END = re.compile(r"<\|(?:im_end|end|endoftext|end_of_text|eot_id)\|>|</s>")  # end-of-text tokens that a tokenizer does not call special
NEXT_QUESTION = re.compile(
    r"\n\s*#+\s*(?:Question|Instruction)\b|\n\s*(?:Question|Q|Problem|Human|User|問題|问题|質問|题目) ?[:：]", re.IGNORECASE
)
SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def verdict(metric: str, extracted: str | None, correct: bool, formed: bool, strict: bool) -> dict[str, float | str]:
    """The scores of one item; an output without an answer is wrong, and a wrong answer is wrong in any form."""
    parsed = extracted is not None and extracted != ""
    correct = parsed and correct
    scores = {metric: correct, "strict": correct and formed and strict, "parsed": parsed, "formed": formed}
    return {name: float(value) for name, value in scores.items()} | {"extracted": extracted or ""}


def several(value: object) -> list:
    """The right answers of an item: one, or a list of them."""
    return list(value) if isinstance(value, list | tuple) else [value]


def without_thinking(output: str) -> str:
    """The answer without blocks of thinking, nested or not, and what follows an end-of-text token.

    A block that is never closed hides the rest. A closing tag without an opening one ends a block that the prompt opened, unless a whole
    block came before.
    """
    kept, depth, position, seen = "", 0, 0, False
    for tag in TAG.finditer(output):
        if depth == 0:
            kept += output[position : tag.start()]
        if not tag[1]:
            depth += 1
        elif depth:
            depth -= 1
            seen = seen or depth == 0
        elif not seen:
            kept, seen = "", True
        position = tag.end()
    kept += output[position:] if depth == 0 else ""
    return END.split(kept, maxsplit=1)[0]


def first_answer(output: str, find: Callable[[str], str | None]) -> str | None:
    """What ``find`` finds before the output goes on with a question of its own, else in the part after it, and so on."""
    return next(filter(None, map(find, _parts(output))), None)


def _parts(output: str) -> Iterator[str]:
    text = without_thinking(output)
    tagged = re.findall(r"<answer>(.*?)(?:</answer>|\Z)", text, re.DOTALL | re.IGNORECASE)
    if tagged:
        yield tagged[-1]
    start = 0
    for question in NEXT_QUESTION.finditer(text):
        if text[start : question.start()].strip():
            yield text[start : question.start()]
        start = question.end()
    yield text[start:]


@functools.lru_cache(maxsize=1024)
def plain(output: str) -> str:
    """An answer without full-width forms, code fences, Markdown emphasis, LaTeX text commands and surrounding space."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda match: "^{" + match[0].translate(SUPERSCRIPT) + "}", output)
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)  # 2½ is two and a half
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/").replace("\u200b", "")
    text = FENCE.sub(lambda match: match[1] + "\n", text).replace("`", "")
    text = re.sub(r"\\(?:text(?:bf|rm|it|sf|tt|normal)?|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    return text.strip()


BETWEEN_BOXES = re.compile(r"[\s$,;、\\()\[\]]*(?:(?:and|or|和|或|と|または)?[\s$,;\\()\[\]]*)(?:[a-zA-Z](?:_\{?\d\}?)?\s*=\s*)?")


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{...}`` (or ``\\fbox``, or ``\\boxed 5``), None where there is none or its brace is never closed.

    Boxes that only "and", "or", commas and an unknown's name separate are one answer, joined by commas.
    """
    boxes = []  # (start, end, content)
    for match in re.finditer(r"\\(?:boxed|fbox)\s*", text):
        end = _closing(text, match.end()) if text[match.end() : match.end() + 1] == "{" else None
        if end is not None:
            boxes.append((match.start(), end, text[match.end() + 1 : end - 1].strip()))
        elif bare := re.compile(r"(?:\\[a-zA-Z]+(?:\{[^{}]*\})*|[^\s$\\{}])+").match(text, match.end()):
            boxes.append((match.start(), bare.end(), bare[0].rstrip(".,;。")))
    if not boxes:
        return None
    start, _, content = boxes.pop()
    while boxes and BETWEEN_BOXES.fullmatch(text[boxes[-1][1] : start]):
        start, _, before = boxes.pop()
        content = f"{before},{content}" if before != content else content
    return content or None


def _closing(text: str, opening: int) -> int | None:
    """The end of the group that opens at ``opening``, None where it is never closed."""
    depth = 0
    for position in range(opening, len(text)):
        if text[position] in "{}" and text[position - 1] != "\\":
            depth += 1 if text[position] == "{" else -1
            if depth == 0:
                return position + 1
    return None
