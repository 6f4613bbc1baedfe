"""GSM8K and MATH: the final number or expression of a worked solution."""

import re
from fractions import Fraction

from sft_atlas.evaluate.metrics import last_boxed, plain, verdict

NUMBER = r"[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?"
FORMULA = r"(?:(?<!\\)\$\$?(.+?)(?<!\\)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\])"
ANNOUNCEMENT = r"(?:final answer|answer|result)\s*(?:is|:|=|would be|should be|comes to)|####|(?:答案|答え)(?:是|为|は|:)"


def gsm8k(doc: dict, results: list[str]) -> dict[str, float | str]:
    """The number of ``doc['answer']`` after "####"; strict: the output has "#### number" as the training answers do."""
    gold = to_number(doc["answer"].split("####")[-1])
    extracted = find_number(results[0])
    marked = re.search(r"#### *(-?\$?[0-9][0-9.,]*)", results[0])
    strict = marked is not None and to_number(marked[1]) == gold
    return verdict("exact_match", extracted, gold is not None and to_number(extracted or "") == gold, marked is not None, strict)


def find_number(output: str) -> str | None:
    """The final number, in this order: after the first "####", boxed, after the last "answer is", the right side of the last equation
    of a line, the last number."""
    text = plain(output).replace("\\$", "$").replace("\\!", "").replace("\\,", "").replace("{,}", ",")
    text = re.sub(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    marked = text.split("####", 1)
    if len(marked) == 2 and (number := _first(marked[1])):
        return number
    boxed = last_boxed(text)
    if boxed is not None and (number := _last(boxed)):
        return number
    for place in reversed(list(re.finditer(ANNOUNCEMENT, text, re.IGNORECASE))):
        sentence = re.split(r"\n|(?<=[^\d])\. |(?<=\d)\. (?=[A-Z])", text[place.end() :].lstrip())[0]
        if number := (_last(sentence) if "=" in sentence else _first(sentence)):
            return number
    return _last(text)


def _numbers(text: str) -> list[str]:
    return [match[0] for match in re.finditer(NUMBER, text) if re.search(r"\d", match[0])]


def _first(text: str) -> str | None:
    return next(iter(_numbers(text)), None)


def _last(text: str) -> str | None:
    return next(reversed(_numbers(text)), None)


def to_number(text: str) -> Fraction | None:
    """The value of a number as written: thousands separators, a currency sign and a final full stop do not count."""
    cleaned = re.sub(r"[,$\s%]", "", plain(text)).replace("−", "-").rstrip(".")
    try:
        return Fraction(cleaned)
    except (ValueError, ZeroDivisionError):
        return None


def math(doc: dict, results: list[str]) -> dict[str, float | str]:
    """MATH: the expression in the last ``\\boxed{}`` of ``doc['answer']`` (the worked solution); strict: the output boxes it."""
    gold = boxed_or_all(doc["answer"])
    extracted, boxed = find_expression(results[0]), last_boxed(results[0])
    correct, strict = (answer is not None and same(answer, gold) for answer in (extracted, boxed))
    return verdict("exact_match", extracted, correct, boxed is not None, strict)


def boxed_or_all(solution: str) -> str:
    """The final answer of a reference solution: the last box, also in the form ``\\boxed 2``, else the text as a whole."""
    short = re.findall(r"\\boxed ([^\s$]+)", solution)
    return last_boxed(solution) or (short[-1] if short else solution.strip())


def find_expression(output: str) -> str | None:
    """The final expression, in this order: boxed, after "####" or the last "answer is", the last formula, the last line where it is
    hardly prose."""
    boxed = last_boxed(output)
    if boxed is not None:
        return boxed
    text = re.sub(r"```[^\n]*\n?", "", output).replace("**", "").strip()
    places = list(re.finditer(ANNOUNCEMENT, text, re.IGNORECASE))
    if places:
        rest = text[places[-1].end() :].strip()
        formula = re.match(rf"[^.\n$]{{0,20}}?{FORMULA}", rest, re.DOTALL)
        if formula:
            return _right_side(next(filter(None, formula.groups())))
        sentence = re.split(r"\n|\.(?=\s|$)|(?<=\w), (?=[a-zA-Z]{2})", rest)[0]
        return _right_side(sentence.strip(" :`\"'")) or None
    formulas = list(re.finditer(FORMULA, text, re.DOTALL))
    if formulas:
        return _right_side(next(filter(None, formulas[-1].groups())))
    last = text.splitlines()[-1].strip().rstrip(".") if text else ""
    prose = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}", plain(last))
    return _right_side(last) if last and len(prose) <= 4 else None


def _right_side(formula: str) -> str:
    """The value in "x = 5" and "1 + 1 = 2"; an equation of several unknowns stays whole."""
    left, equals, right = formula.rpartition("=")
    several = re.search(r"[<>]\s*$|[a-zA-Z]", left.replace("\\", "")[1:])
    return right.strip() if equals and right.strip() and not several else formula.strip()


def same(answer: str, gold: str) -> bool:
    """Whether two expressions are equal under lm-eval's normalisation of MATH answers (Hendrycks), or are the same number."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    left, right = _tidy(answer), _tidy(gold)
    if is_equiv(left, right):
        return True
    numbers = to_number(left), to_number(right)
    return None not in numbers and numbers[0] == numbers[1]


def _tidy(text: str) -> str:
    text = plain(text).strip("$ ").rstrip(".").replace("\\(", "").replace("\\)", "").replace("−", "-")
    text = re.sub(r"\\(?:left|right|!|,|;|displaystyle)", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))(?!.*[()\[\]])", "", text)  # thousands, not coordinates
    return re.sub(r"(?<=\d)\s*(?:\\%|%|\\?\^\{?\\?circ\}?|degrees?|dollars?|units?|cm|inches|square units)\s*$", "", text).strip()
