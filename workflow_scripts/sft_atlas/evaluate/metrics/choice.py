"""Multiple choice by letter (MMLU and its translations, in English, Chinese or Japanese) and yes or no (BoolQ), from generated text."""

import re

from sft_atlas.evaluate.metrics import last_boxed, plain, verdict

LETTERS = "ABCDEFGHIJ"
ANNOUNCEMENT = (  # words after which an answer is stated; the last one counts
    r"(?:(?:final |correct |right |best )*(?:answer|choice|option)(?: to (?:this|the) question)?\s*(?:is|would be|should be|was|:|=)|(?:i|we) (?:choose|pick|select)|"
    r"正确答案(?:是|为|:)|正确选项(?:是|为|:)|(?:答案|选项)(?:应该|应当)?(?:是|为|选|:)|故选|应选|选择|选|"
    r"(?:正解|答え|回答|解答)(?:は|:)|正しい(?:選択肢|答え)は)"
)
# After a letter: the end of the word; and no article ("A banana"), unless a verb follows ("A is right").
ALONE = r"(?![A-Za-z0-9'’^_])(?:(?<!A)|(?! (?!is\b|or\b|and\b|are\b|because\b)[a-z]))"
GAP = r"[\s:\-\"'“”「『【(\[]*(?:option|choice|letter|选项|選択肢|the)?[\s:\"'「『【(\[]*"


def letter(doc: dict, results: list[str]) -> dict[str, float | str]:
    """MMLU, CMMLU, MMLU-jp, JMMLU: the letter of the right option; ``doc`` has ``choices`` and ``label`` (index)."""
    gold, options = LETTERS[doc["label"]], [str(option) for option in doc["choices"]]
    extracted = find_letter(results[0], options)
    alone = re.fullmatch(rf"\s*\(?([{LETTERS[: len(options)]}])\)?[.。]?\s*", results[0])
    return verdict("exact_match", extracted, extracted == gold, bool(alone), bool(alone) and alone[1] == gold)


def find_letter(output: str, options: list[str]) -> str | None:
    """The letter that an answer means, None where none or several fit. Tried in this order: the whole answer is an option's text, boxed,
    announced ("the answer is ..."), at the start, the only option whose text occurs, the only letter that occurs."""
    text, known = plain(output), LETTERS[: len(options)]
    whole = _exactly(text, options) if not re.fullmatch(r"\W*[A-Za-z]\W*", text) else None
    if whole:
        return whole
    one = rf"([{known}]){ALONE}"
    boxed = last_boxed(text)
    if boxed is not None:
        return _leading(boxed, known) or _by_text(boxed, options)
    announced = list(re.finditer(ANNOUNCEMENT, text, re.IGNORECASE))
    for match in reversed(announced):
        rest = text[match.end() :].lstrip(" :：は\n")
        exact = _exactly(rest.split("\n")[0], options)
        if exact and not re.fullmatch(r"\W*[A-Za-z]\W*", rest.split("\n")[0]):
            return exact
        stated = re.match(GAP + one, rest, re.IGNORECASE) if match[0].isascii() else re.match(GAP + rf"([{known}])(?![A-Za-z])", rest)
        if stated:
            return stated[1].upper()
        by_text = _by_text(rest.split("\n")[0], options)
        if by_text:
            return by_text
    listed = set(re.findall(rf"^\s*\(?([{known}])\s*[.):、]", text, re.MULTILINE))
    if len(listed) > 1:  # a repetition of the options is no answer
        return None
    if letter_or_text := _leading(text, known) or _by_text(text, options):
        return letter_or_text
    letters = set(re.findall(rf"(?<![A-Za-z0-9'’])([{known}]){ALONE}", text))
    return letters.pop() if len(letters) == 1 else None


def _leading(text: str, known: str) -> str | None:
    """A letter that stands alone, in brackets, or before a mark ("B.", "B) Paris", "b") at the start."""
    alone = re.fullmatch(r"\W*([A-Za-z])\W*", text)
    if alone:
        return alone[1].upper() if alone[1].upper() in known else None
    first = re.match(rf"\s*(?:[(\[【「]\s*([{known}])\s*[)\]】」]|([{known}])\s*(?:[.):,、。;\n-]|$|(?=[^\x00-\x7f])))", text)
    return (first[1] or first[2]) if first else None


def _exactly(text: str, options: list[str]) -> str | None:
    """The letter of the only option that is the text, word for word."""

    def key(value: str) -> str:
        return " ".join(plain(value).lower().split()).rstrip("。. ")

    same = [LETTERS[i] for i, option in enumerate(options) if key(option) == key(text)]
    return same[0] if len(same) == 1 else None


def _by_text(text: str, options: list[str]) -> str | None:
    """The letter of the only option whose text occurs; an option inside a longer one that occurs too does not count."""
    here = _words(text)
    keys = [_words(option) for option in options]
    inside = [bool(key.strip()) and (key in here if key.strip().isascii() else key.strip() in here) for key in keys]
    kept = [
        i
        for i, key in enumerate(keys)
        if inside[i] and not any(inside[j] and i != j and key.strip() in other and key != other for j, other in enumerate(keys))
    ]
    return LETTERS[kept[0]] if len(kept) == 1 else None


def _words(text: str) -> str:
    words = re.findall(r"[^\W_]+|[-+=/^√<>%$.]+(?=[^\W_])", plain(text).lower())
    return f" {' '.join(words)} "


def yes_no(doc: dict, results: list[str]) -> dict[str, float | str]:
    """BoolQ: yes or no; ``doc['answer']`` is ``true`` or ``false`` (text or boolean)."""
    gold = "yes" if str(doc["answer"]).lower() in ("true", "yes", "1") else "no"
    extracted = find_yes_no(results[0])
    alone = re.fullmatch(r"\s*(yes|no)\.?\s*", results[0], re.IGNORECASE)
    return verdict("exact_match", extracted, extracted == gold, bool(alone), bool(alone) and alone[1].lower() == gold)


def find_yes_no(output: str) -> str | None:
    """Yes or no, tried in this order: boxed, announced, at the start, the only one that occurs; true and false count as yes and no."""
    text = plain(output).lower()
    text = last_boxed(text) or text
    word = r"\b(not true|not correct|yes|no|true|false)\b"
    announced = re.findall(rf"(?:answer|conclusion)\s*(?:is|:|=|would be)\s*[\"'(]*{word}", text)
    first = re.match(rf"\W*{word}", text)
    everywhere = {_as_yes_no(match) for match in re.findall(word, text)}
    if announced:
        return _as_yes_no(announced[-1])
    if first:
        return _as_yes_no(first[1])
    return everywhere.pop() if len(everywhere) == 1 else None


def _as_yes_no(word: str) -> str:
    return "yes" if word in ("yes", "true") else "no"
