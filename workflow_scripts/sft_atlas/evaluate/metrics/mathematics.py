"""GSM8K and MATH: the final number or expression of a worked solution."""

import functools
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from sft_atlas.evaluate.metrics import first_answer, last_boxed, plain, several, verdict, without_thinking
from sft_atlas.evaluate.metrics.equality import equal
from sft_atlas.evaluate.metrics.statements import ANNOUNCEMENT, after_correction, without_rejected

SIGN = r"(?:(?<![\w)\]}.])[-−–—])?"
CURRENCY = r"(?:(?:(?:US|R|A|C)?[$€£¥₹₩]|USD|EUR|GBP|RMB|Rs\.?)\s?)?"
DIGITS = (
    r"\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d)"  # 1.234,50
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)(?:\.\d+)?"  # 12,34,567
    r"|\d{1,3}(?P<separator>[, '’])\d{3}(?!\d)(?:(?P=separator)\d{3}(?!\d))*(?:\.\d+)?"  # 1,234.5 and 1 234 and 1'234
    r"|\d+ \d+/\d+(?![\d/])"  # 2 1/2
    r"|\d+(?:\.\d+)?(?:\s?/\s?\d+(?:\.\d+)?(?![\d/]))?|\.\d+"
)
POWER = r"\s*(?:[x×*]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?\(?(?P<power>[-−–+]?\d+)\)?\}?|e(?P<exponent>[-+]?\d+)(?![\w.])"
SCALES = {
    "hundred": 10**2, "thousand": 10**3, "k": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "千": 10**3, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8,
}  # fmt: skip
SCALE = r"\s?(?P<scale>hundred|thousand|million|billion|trillion|k|千万?|[万萬億亿])(?![A-Za-z])"
NUMBER = re.compile(
    rf"(?<![A-Za-z_\d])(?<!\d:)(?P<sign>{SIGN}){CURRENCY}(?P<sign_after>(?:(?<![\w)\]}}])[-−–])?)(?P<digits>{DIGITS})(?!:?\d)(?:{POWER})?(?:{SCALE})?",
    re.IGNORECASE,
)
FORMULA = r"(?:(?<!\\)\$\$?(.+?)(?<!\\)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\])"
KANJI = re.compile(r"[〇零一二两三四五六七八九十百千万億亿]+")


class Written(NamedTuple):
    """A number as it is written in a text."""

    text: str
    value: Fraction
    start: int
    end: int


def gsm8k(doc: dict, results: list[str]) -> dict[str, float | str]:
    """The number of ``doc['answer']`` after "####"; strict: the output has "#### number" as the training answers do."""
    golds = {to_number(answer.split("####")[-1]) for answer in several(doc["answer"])} - {None}
    extracted = first_answer(results[0], find_number)
    marked = re.search(r"#### *(-?\$?[0-9][0-9.,]*)", without_thinking(results[0]))
    strict = marked is not None and to_number(marked[1]) in golds
    return verdict("exact_match", extracted, to_number(extracted or "") in golds, marked is not None, strict)


def find_number(output: str) -> str | None:
    """The final number, None where none or several are meant. In this order: after the last words that correct something, after the first
    "####", boxed, after the last "the answer is", before "is the answer", the right side of the last equation of a line, the last number."""
    text = _readable(output)
    if corrected := after_correction(text, find_number):
        return corrected
    marked = text.split("####", 1)
    for rest in (marked[1].lstrip().split("\n")[0], marked[1]) if len(marked) == 2 else ():
        if numbers := _numbers(rest):
            return _chosen(rest, numbers, _place(rest))
    boxed = last_boxed(text)
    if boxed is not None and (numbers := _numbers(boxed)):
        last = _numbers(boxed.rpartition("=")[2])
        return last[0].text if len({number.value for number in last}) == 1 else None
    text = without_rejected(text, r"[$€£¥]?[-−–]?[$€£¥]?\d+(?:[.,]\d+)*%?")
    for place in reversed(list(re.finditer(ANNOUNCEMENT, text, re.IGNORECASE))):
        rest = text[place.end() :].lstrip(" :*\n")
        sentence = re.split(r"\n|。|(?<=[^\d])\. |(?<=\d)\. (?=[A-Z])", rest)[0]
        if numbers := _numbers(sentence):
            return _chosen(sentence, numbers, _place(sentence))
        if words := _in_words(sentence):
            return words
    numbers = _numbers(text)
    for position, number in enumerate(numbers):
        if re.match(r"[^.\n,]{0,30}?\b(?:is|are) (?:the|my|our) (?:final |correct |right )?answer\b", text[number.end :]):
            return _chosen(text, numbers, position)
    if numbers:
        return _chosen(text, numbers, len(numbers) - 1)
    return _in_words(text) if len(text.split()) <= 8 else None


def _readable(output: str) -> str:
    """The text with numbers as one types them: no LaTeX spaces and fractions, "minus" as a sign."""
    text = plain(output).replace("\\$", "$").replace("{,}", ",").replace("\u2009", " ")
    text = re.sub(r"(?<=\d)\\[,;: !]+(?=\d{3})|\\!", "", text).replace("\\,", " ").replace("\\%", "%")
    text = re.sub(r"(?<=\d)\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2", text)
    text = re.sub(r"\\[dtc]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}", r"\1/\2", text)
    text = re.sub(r"\\[dtc]?frac\s*(\d)\s*(\d)", r" \1/\2", text)
    text = re.sub(r"(?:\b(?:minus|negative) |マイナス|负|負の?)(?=[$\d])", "-", text, flags=re.IGNORECASE)
    return re.sub(r"(\d+)[万萬](\d{1,4})(千)?", lambda match: str(int(match[1]) * 10**4 + int(match[2]) * (1000 if match[3] else 1)), text)


def _numbers(text: str) -> list[Written]:
    """Every number of a text; times of day and parts of words are none."""
    found = []
    for match in NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            found.append(Written(match[0].strip(), value, match.start(), match.end()))
    return found


def _value(match: re.Match) -> Fraction | None:
    digits = match["digits"]
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d{1,2}", digits):
        digits = digits.replace(".", "").replace(",", ".")
    whole, _, part = digits.rpartition(" ") if "/" in digits and re.fullmatch(r"\d+ \d+/\d+", digits) else ("", "", digits)
    part = re.sub(r"[,\s'’]", "", part)
    over, _, under = part.partition("/")
    try:
        value = Fraction(over) / Fraction(under or "1") + Fraction(whole or "0")
    except ZeroDivisionError:
        return None
    exponent = int((match["power"] or match["exponent"] or "0").replace("−", "-").replace("–", "-"))
    if abs(exponent) > 400:
        return None
    for unit in re.findall(r"千|万|[^\W千万]+", match["scale"] or ""):
        value *= SCALES[unit.lower()]
    return value * Fraction(10) ** exponent * (-1) ** (bool(match["sign"]) + bool(match["sign_after"]))


def _place(statement: str) -> int:
    """Which number of a statement counts: the first, but of an equation the last."""
    return -1 if re.search(r"=\s*[-−–]?\s*[$\d.]", statement) else 0


def _chosen(text: str, numbers: list[Written], position: int) -> str | None:
    """A number of a text, None where the text hedges between it and its neighbour: "16 or 18"."""
    chosen = numbers[position]
    position %= len(numbers)
    for one, other in ((position - 1, position), (position, position + 1)):
        if one >= 0 and other < len(numbers) and numbers[one].value != numbers[other].value:
            between = text[numbers[one].end : numbers[other].start]
            if re.fullmatch(
                r"(?:\s*[A-Za-z%]+)?\s*(?:,?\s*\bor\b|或者?|か|または|もしくは)\s*(?:maybe |perhaps |possibly )?[$€£¥]?", between
            ):
                return None
    return chosen.text


def _in_words(text: str) -> str | None:
    """A number in English words or Chinese numerals, in digits."""
    from word2number import w2n

    kanji = KANJI.match(text.strip(" 「『"))
    if kanji:
        return str(_kanji(kanji[0]))
    try:
        return str(w2n.word_to_num(re.sub(r"[^a-z]+", " ", text.lower())))
    except (ValueError, IndexError):  # IndexError: of w2n itself, for "and" alone
        return None


def _kanji(numeral: str) -> int:
    """The value of a Chinese numeral, such as 三百二十 or 二〇."""
    if not re.search("[十百千万億亿]", numeral):
        return int("".join(str(int(unicodedata.numeric(sign.replace("两", "二")))) for sign in numeral))
    total = section = digit = 0
    for sign in numeral.replace("两", "二"):
        value = int(unicodedata.numeric(sign.replace("亿", "億")))
        if value < 10:
            digit = value
        elif value < 10**4:
            section, digit = section + (digit or 1) * value, 0
        else:
            total, section, digit = total + (section + digit or 1) * value, 0, 0
    return total + section + digit


def to_number(text: str) -> Fraction | None:
    """The value of a number as written: separators, a currency sign, a percent sign and a final full stop do not count."""
    cleaned = _readable(text).strip().strip("$").rstrip("%. ").strip()
    match = NUMBER.fullmatch(cleaned)
    return _value(match) if match else None


# ---------------------------------------------------------------- expressions


def math(doc: dict, results: list[str]) -> dict[str, float | str]:
    """MATH: the expression in the last ``\\boxed{}`` of ``doc['answer']`` (the worked solution); strict: the output boxes it."""
    golds = [boxed_or_all(answer) for answer in several(doc["answer"])]
    extracted, boxed = first_answer(results[0], find_expression), first_answer(results[0], last_boxed)
    correct = extracted is not None and any(same(extracted, gold) for gold in golds)
    strict = boxed is not None and (correct if boxed == extracted else any(same(boxed, gold) for gold in golds))
    return verdict("exact_match", extracted, correct, boxed is not None, strict)


def boxed_or_all(solution: str) -> str:
    """The final answer of a reference solution: the last box, else the text as a whole."""
    return last_boxed(solution) or solution.strip()


def find_expression(output: str) -> str | None:
    """The final expression, in this order: boxed, after the last words that correct something, after "####" or the last "answer is", the
    last formula, the last line where it is hardly prose."""
    boxed = last_boxed(output)
    if boxed is not None:
        return boxed
    text = re.sub(r"(?:```|~~~)[^\n]*\n?", "", output).replace("**", "").replace("：", ":").strip()
    if corrected := after_correction(text, find_expression):
        return corrected
    text = without_rejected(text, r"(?<!\w)(?:\$[^$\n]+\$|\\\([^\n]+?\\\)|[-−]?\d+(?:[.,/]\d+)*)(?!\w)").strip()
    places = list(re.finditer(rf"{ANNOUNCEMENT}|####", text, re.IGNORECASE))
    for place in reversed(places):
        rest = text[place.end() :].strip()
        if formula := re.match(rf"[^.\n$]{{0,20}}?{FORMULA}", rest, re.DOTALL):
            return _right_side(_joined(formula, rest))
        sentence = re.split(r"\n|。|\.(?=\s|$)|(?<=\w), (?=[a-zA-Z]{2})", rest)[0]
        if re.search(r"\w|\\", sentence):
            return _right_side(sentence.strip(" :`\"'「」")) or None
    formulas = list(re.finditer(FORMULA, text, re.DOTALL))
    if formulas:
        return _right_side(next(filter(None, formulas[-1].groups())))
    last = text.splitlines()[-1].strip().rstrip(".。") if text else ""
    if stated := re.search(r"\b(?:is|are|equals?|to)\s+((?:\S+\s){0,2}\S*\d\S*(?:\s\S+){0,2})$", last):
        return _right_side(stated[1])
    prose = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}", plain(last))
    return _right_side(last) if re.search(r"\w|\\", last) and len(prose) <= 4 else None


def _joined(formula: re.Match, text: str) -> str:
    """A formula with those that follow it: "$1$ and $2$" is one answer."""
    found = [next(filter(None, formula.groups()))]
    end = formula.end()
    while following := re.compile(rf"(?:,\s*(?:and|or)?|\s+(?:and|or)|[、和与或])\s*{FORMULA}").match(text, end):
        found.append(next(filter(None, following.groups())))
        end = following.end()
    return ", ".join(found)


def _right_side(formula: str) -> str:
    """The value in "x = 5" and "1 + 1 = 2"; an equation of several unknowns stays whole."""
    left, equals, right = formula.rpartition("=")
    several = re.search(r"[<>!]\s*$|[a-zA-Z]", left.replace("\\", "")[1:])
    return right.strip() if equals and right.strip() and not several else formula.strip()


UNICODE = {
    "−": "-", "–": "-", "×": "\\times ", "÷": "\\div ", "·": "\\cdot ", "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ",
    "∪": "\\cup ", "∩": "\\cap ", "∅": "\\emptyset ", "±": "\\pm ", "°": "^\\circ", "∈": "\\in ",
}  # fmt: skip
WORDS_OF_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
BASE = re.compile(r"([0-9A-F]+)(?:_\{?|\s*,?\s*\(?(?:in )?base[\s~-]*)(\w+)\}?\)?", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def same(answer: str, gold: str) -> bool:
    """Whether two expressions are equal: as texts, as numbers, as numbers of a base, or for math-verify."""
    left, right = _tidy(answer), _tidy(gold)
    bare = [re.sub(r"[\s{}()]|\\(?:text|circ)|\^\\circ", "", text).rstrip(".").lower() for text in (left, right)]
    if re.sub(r"\s", "", left) == re.sub(r"\s", "", right) or (bare[0] == bare[1] and bare[0].isalpha()):
        return True
    bases = [_in_base(text) for text in (left, right)]
    if any(bases):
        return bases[0] == bases[1]
    numbers = to_number(left), to_number(right)
    if None not in numbers:
        percent = [1 if "%" in text else 0 for text in (left, right)]
        return numbers[0] == numbers[1] or (percent[0] != percent[1] and numbers[0] / 100 ** percent[0] == numbers[1] / 100 ** percent[1])
    return equal(left, right)


def _in_base(text: str) -> tuple[str, str] | None:
    """The digits and the base of 1024_8, 1024_{\\text{eight}} or 1024 (base 8); None of anything else."""
    bare = re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", text).replace("_{base", "_{")
    match = BASE.fullmatch(re.sub(r"[\s()]", "", bare))
    return (match[1].upper(), str(WORDS_OF_BASES.get(match[2].lower(), match[2]))) if match else None


def _tidy(text: str) -> str:
    """An expression as math-verify reads it best."""
    text = unicodedata.normalize("NFKC", re.sub("([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda match: plain(match[0]), text)).strip()
    for sign, command in UNICODE.items():
        text = text.replace(sign, command)
    text = re.sub(r"√\s*(?:\(([^()]*)\)|(\w+))", lambda match: f"\\sqrt{{{match[1] or match[2]}}}", text)
    text = re.sub(r"\\(?:boldsymbol|mathbf|bm|text(?:bf|rm|it))\b", r"\\text", text)
    text = re.sub(r"\\(?:left|right|displaystyle|bigl?|bigr?|Bigl?|Bigr?)(?![a-zA-Z])|\\!", "", text)
    text = re.sub(r"^[\s$]+|[\s$.。]+$|\\[()\[\]](?![a-z])", "", text.replace("\\$", "")).replace("{,}", ",")
    whole = re.fullmatch(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}", text)
    text = whole[1].strip().rstrip(".") if whole else text
    text = re.sub(r"(?<=\d)(?:\\[,;: ]|~|\s)+(?=\d{3}(?!\d))", "", text)  # 10 000
    text = re.sub(r"\\[,;:]|~", " ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))(?!.*[()\[\]])", "", text)  # thousands, not coordinates
    text = re.sub(r"(?<=[\d})])\s*(?:\^\{?\\circ\}?|\\degree|degrees?)(?:\s*[CF])?\s*$", "", text)
    text = re.sub(r"(?<=[\d})])\s*[\u3040-\u30ff\u4e00-\u9fff]+$", "", text)  # units
    text = re.sub(r"\\frac\s*(\\[a-zA-Z]+)\s*(\w)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=\d)[eE]([-+]?\d+)$", r" \\times 10^{\1}", text)
    text = re.sub(r"(\d*)\.(\d*)\\overline\{(\d+)\}", _repeating, text)
    return text.strip()


def _repeating(match: re.Match) -> str:
    """A repeating decimal as a fraction."""
    whole, fixed, period = match[1] or "0", match[2], match[3]
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), 10 ** len(fixed) * (10 ** len(period) - 1))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
