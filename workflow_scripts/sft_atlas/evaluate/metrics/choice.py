"""Multiple choice by letter (MMLU and its translations, in English, Chinese or Japanese) and yes or no (BoolQ), from generated text."""

import functools
import math
import re

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.metrics import first_answer, last_boxed, plain, several, verdict, without_thinking
from sft_atlas.evaluate.metrics.statements import ANNOUNCEMENT, HEDGE, after_correction, without_rejected

LETTERS = "ABCDEFGHIJ"
CHOSEN = (  # more words after which an option is stated
    rf"(?:{ANNOUNCEMENT}|\b(?:i|we)(?:['’]d| would| will|['’]ll)? (?:choose|pick|select|go with|say|guess|vote for|think (?:it is|it['’]s|that))"
    r"|\b(?:right|correct|best) one is|只有(?:选项)?|正しいのは|正确的是)"
)
# After a letter: the end of the word; and no article ("A banana"), unless a verb or the like follows ("A is right").
FOLLOWING = r"is|or|and|are|was|because|since|as|due|seems|looks|would|which|but|not|based|makes|for"
ALONE = rf"(?![A-Za-z0-9'’^_])(?:(?<![AI])|(?! (?!(?:{FOLLOWING})\b)[a-z]))"
GAP = (
    r"[\s:\-\"'“”「『【(\[{<$*_~]*(?:(?:most likely|likely|probably|clearly|definitely|therefore|thus|indeed|option|choice|letter|选项|選択肢|the|应该是|是)[\s,:]*)*"
    r"[\s:\"'“「『【(\[{<$*_~]*"
)
AFFIRMED = r"\s*[)\]]?\s*(?:(?:is|was|would be|looks|seems)(?: the)? (?:\w+ )?(?:correct|right|true|answer|best)\b|[:：(]? ?(?:yes|true|correct)\b|(?:fits|works|applies)\b|[:：(]? ?[✓✅]|项?(?:是|为)?(?:正确|对的|成立)|[がは](?:正解|正しい|適切))"
MARK = 0xE000  # private characters that stand for the options' texts
LOOK_ALIKE = str.maketrans("АВСЕНΑΒΕΗΙ", "ABCEHABEHI")  # Cyrillic and Greek capitals


def probability_of_right(doc: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """TruthfulQA's MC2 (Lin et al. 2022): of the options' probability, the share of the right ones; ``doc['labels']``: 1 for right, 0 for wrong."""
    labels = list(doc["labels"])
    if len(labels) != len(results) or not 0 < sum(labels) <= len(labels) or set(labels) - {0, 1}:
        raise AtlasError(f"an item has {len(results)} options and the labels {labels}; `labels` needs 1 or 0 for each of them, and one 1")
    likelihoods = [likelihood for likelihood, _ in results]
    highest = max(likelihoods)  # subtracted, because the exponential of a long option's log-likelihood is 0
    weights = [math.exp(value - highest) for value in likelihoods]
    return {"acc": math.fsum(weight for weight, label in zip(weights, labels, strict=True) if label) / math.fsum(weights)}


def letter(doc: dict, results: list[str]) -> dict[str, float | str]:
    """MMLU, CMMLU, MMLU-jp, JMMLU: the letter of the right option; ``doc`` has ``choices`` (at most ten) and ``label`` (index)."""
    options = [str(option) for option in doc["choices"]]
    if len(options) > len(LETTERS):
        raise AtlasError(
            f"an item has {len(options)} options; answers by letter are read for at most {len(LETTERS)}: score it by likelihood"
        )
    golds = [LETTERS[label] for label in several(doc["label"])]
    extracted = first_answer(results[0], lambda text: find_letter(text, options))
    alone = re.fullmatch(rf"\s*\(?([{LETTERS[: len(options)]}])\)?[.。]?\s*", without_thinking(results[0]))
    return verdict("exact_match", extracted, extracted in golds, bool(alone), bool(alone) and alone[1] in golds)


def find_letter(output: str, options: list[str]) -> str | None:
    """The letter that an answer means, None where none or several fit. Tried in this order: the whole answer is an option's text, after
    the last words that correct something, boxed, announced ("the answer is ..."), affirmed ("... is right"), at the start, the only
    option whose text occurs, the only letter that occurs. What the answer rejects ("not A", "A is wrong") does not count."""
    text, known = plain(output), LETTERS[: len(options)]
    text = re.sub(
        r"(?<!\w)[АВСЕНΑΒΕΗΙ](?=[.):,;!\s]*$|[.):](?!\w))", lambda match: match[0].translate(LOOK_ALIKE), text, flags=re.MULTILINE
    )
    text = re.sub(r"(?<![\w*_])([*_])(\w)\1(?![\w*_])", r"\2", text)
    if alone := re.fullmatch(r"\W*([A-Za-z])\W*", text):
        return alone[1].upper() if alone[1].upper() in known else _exactly(text, options)
    if whole := _exactly(text, options):
        return whole
    named = re.match(rf"\W*([{known}])\W+", text)
    if named and _exactly(text[named.end() :].split("\n")[0], options) == named[1] and len(_listed(text, known)) < 2:
        return named[1]
    if corrected := after_correction(text, lambda rest: find_letter(rest, options)):
        return corrected
    boxed = last_boxed(text)
    if boxed is not None and (found := _leading(boxed, known) or _by_text(boxed, options)):
        return None if _hedged(boxed, options) else found
    text = _without_rejected(text, options)
    one = rf"([{known}]){ALONE}"
    for match in reversed(list(re.finditer(CHOSEN, text, re.IGNORECASE))):
        rest = text[match.end() :].lstrip(" :：は\n;")
        line = rest.split("\n")[0]
        exact = _exactly(line, options) if not re.fullmatch(r"\W*[A-Za-z]\W*", line) else None
        if exact:
            return exact
        ascii_only = match[0].isascii()
        stated = re.match(GAP + (one if ascii_only else rf"([{known}])(?![A-Za-z])"), rest, re.IGNORECASE if ascii_only else 0)
        if stated:
            return None if _hedged(rest[stated.start(1) :], options) else stated[1].upper()
        by_text = _by_text(re.split(r"(?<=\w)[.;。](?=\s|$)", line)[0], options) or _by_text(line, options)
        if by_text:
            return by_text
    affirmed = re.findall(rf"(?<![A-Za-z0-9'’])([{known}])(?:{AFFIRMED})", text)
    if affirmed:
        return affirmed[-1] if len(set(affirmed)) == 1 and not re.search(rf"[{known}]{HEDGE}{affirmed[-1]}(?:{AFFIRMED})", text) else None
    if len(_listed(text, known)) > 1:  # a repetition of the options is no answer
        return None
    if _hedged(text, options):
        return None
    if letter_or_text := _leading(text, known) or _by_text(text, options):
        return letter_or_text
    letters = set(re.findall(rf"(?<![A-Za-z0-9'’])([{known}]){ALONE}", text))
    return letters.pop() if len(letters) == 1 else None


def _listed(text: str, known: str) -> set[str]:
    """The letters with which lines begin, as in a list of the options."""
    return set(re.findall(rf"^\s*\(?([{known}])\s*[.):、]", text, re.MULTILINE))


def _masked(text: str, options: list[str]) -> tuple[str, dict[str, str]]:
    """The text with one private character for each option's text in it, and what each of them stands for."""
    marks = {}
    for place in sorted(range(len(options)), key=lambda i: -len(options[i])):  # the longest first: "not true" before "true"
        option, mark = plain(options[place]).strip(" ."), chr(MARK + place)
        if len(option) > 1 and option.lower() in text.lower():
            before, after = (
                rf"(?{kind}[^\W_])" if char.isascii() and char.isalnum() else "" for kind, char in (("<!", option[0]), ("!", option[-1]))
            )
            text = re.sub(before + re.escape(option) + after, mark, text, flags=re.IGNORECASE)
            marks[mark] = option
    return text, marks


def _without_rejected(text: str, options: list[str]) -> str:
    """The text without options that it rejects, by letter or by text."""
    text, marks = _masked(text, options)
    known = LETTERS[: len(options)]
    text = without_rejected(text, rf"[{chr(MARK)}-{chr(MARK + 9)}]|(?-i:(?<![A-Za-z0-9])[{known}](?![A-Za-z0-9'’]))")
    for mark, option in marks.items():
        text = text.replace(mark, option)
    return text


def _hedged(text: str, options: list[str]) -> bool:
    """Whether a text begins with one option and another: "A or B", "either A or B", "A、B", "Rome or Paris"."""
    text, _ = _masked(text[:400], options)
    mention = rf"(?:([{LETTERS[: len(options)]}])(?![A-Za-z'’])|([{chr(MARK)}-{chr(MARK + 9)}]))"
    first = rf"\W*(?:(?:it could be|it is|either|both|maybe|perhaps|possibly|option|选项|選択肢)\s+)*[(\[「]?{mention}[)\]」]?(?:[.):] ?[^.,;\n]{{1,40}}?)?"
    match = re.match(rf"{first}(?:{HEDGE}|\s*,\s*)(?:option |选项|選択肢)?[(\[「]?{mention}", text, re.IGNORECASE if len(text) < 40 else 0)
    return match is not None and _meant(match[1], match[2]) != _meant(match[3], match[4])


def _meant(letter: str | None, mark: str | None) -> str:
    return letter.upper() if letter else LETTERS[ord(mark) - MARK]


def _leading(text: str, known: str) -> str | None:
    """A letter that stands alone, in brackets, or before a mark ("B.", "B) Paris", "b") at the start."""
    if alone := re.fullmatch(r"\W*([A-Za-z])\W*", text):
        return alone[1].upper() if alone[1].upper() in known else None
    first = re.match(rf"\s*(?:[(\[【「{{<]\s*([{known}])\s*[)\]】」}}>]|([{known}])\s*(?:[.):,、。;\n-]|$|(?=[^\x00-\x7f])))", text)
    return (first[1] or first[2]) if first else None


def _exactly(text: str, options: list[str]) -> str | None:
    """The letter of the only option that is the text, word for word."""

    def key(value: str) -> str:
        return " ".join(plain(value).lower().split()).rstrip("。. ")

    wanted = key(text)
    same = [LETTERS[i] for i, option in enumerate(options) if key(option) == wanted]
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


CJK = "\u3005-\u30ff\u3400-\u9fff\uac00-\ud7a3"  # Chinese, Japanese and Korean, which put no space between words


@functools.lru_cache(maxsize=1024)
def _words(text: str) -> str:
    lower = re.sub("[−–]", "-", plain(text).lower())
    words = re.findall(rf"[^\W_{CJK}]+|[{CJK}]+|(?<![-+=/^√<>%$.])[-+=/^√<>%$.]+(?=[^\W_])", lower)
    return f" {' '.join(words)} "


# ---------------------------------------------------------------- yes or no

SAID = r"(?:(?:the|a|quite|really|actually|entirely|necessarily|always|at all) )*"
POLARITY = re.compile(
    r"(?P<neutral>\b(?:yes|no) ?\?(?=\W*(?:yes|no)\b)|\bno (?:doubt|question|longer|one|wonder|matter|problem|more|less|idea|need)\b|\byes(?: or |/| and )no\b|\btrue (?:or|and|/) false\b|\bcorrect or incorrect\b"
    r"|\bno or yes\b|\b(?:in)?correct (?:answer|option|choice|response)s?\b|\btrue (?:answer|statement is)\b|はいかいいえ|はいまたはいいえ|是或否|是否|是不是|正确与否|对错)"
    rf"|(?P<yes>(?:\b(?:not|never)|n['’]t) {SAID}(?:false|wrong|incorrect|untrue|no)\b|不是(?:假|错)的?|并非错误"
    r"|間違いではな\w*|間違っていな\w*)"
    rf"|(?P<no>\b(?:do|does|did)(?:n['’]t| not) (?:think|believe|say|mean)[^.!?\n]{{0,30}}?\b(?:true|correct|right|so|yes)\b|(?:\b(?:not|never|nor|hardly)|n['’]t|\bcannot be) {SAID}(?:be )?{SAID}(?:true|correct|right|accurate|the case|so|yes|supported|valid)\b|\b(?:no|nope|nah|false|untrue|incorrect|wrong|inaccurate|negative|nein|non|нет)\b"
    r"|いいえ|違います|違う|正しくな\w*|正しくありません|真ではな\w*|間違い|間違って|誤り|偽|不是|(?<!\w)不(?!\w)|不对|不正确|不正確|不成立|错误|错|否|没有|假|아니[오요]|(?<![\w가-힣])아니)"
    r"|(?P<also>\b(?:yes|yeah|yep|yup|true|correct|right|accurate|affirmative|indeed|oui|sí|да)\b|はい|その通り|そうです|正しい|真|是的?|正确|对|成立|(?<![\w가-힣])예|네(?![\w가-힣]))",
    re.IGNORECASE,
)
STATED = rf"(?:{ANNOUNCEMENT}|\bconclusion\s*(?:is|:|=|would be)|结论(?:是|为|:)|結論は)\s*[\"'“「(*:]*\s*"


def yes_no(doc: dict, results: list[str]) -> dict[str, float | str]:
    """BoolQ: yes or no; ``doc['answer']`` is ``true`` or ``false`` (text or boolean)."""
    golds = ["yes" if str(answer).lower() in ("true", "yes", "1") else "no" for answer in several(doc["answer"])]
    extracted = first_answer(results[0], find_yes_no)
    alone = re.fullmatch(r"\s*(yes|no)\.?\s*", without_thinking(results[0]), re.IGNORECASE)
    return verdict("exact_match", extracted, extracted in golds, bool(alone), bool(alone) and alone[1].lower() in golds)


def find_yes_no(output: str) -> str | None:
    """Yes or no, tried in this order: boxed, after the last words that correct something, announced, at the start, the only one that
    occurs. True, correct and the like count as yes, their negations as no; "yes or no" is neither."""
    text = plain(output)
    text = last_boxed(text) or text
    if alone := re.fullmatch(r"\W*(?:([yt])|([nf]))\W*", text, re.IGNORECASE):
        return "yes" if alone[1] else "no"
    if corrected := after_correction(text, find_yes_no):
        return corrected
    for match in reversed(list(re.finditer(STATED, text, re.IGNORECASE))):
        said = _polarities(text[match.end() :], starting=True)
        if said:
            return said[0]
        if letter := re.match(r"([YN])\b(?!['’])", text[match.end() :]):
            return "yes" if letter[1] == "Y" else "no"
    start = _polarities(re.sub(r"^\W+", "", text), starting=True)
    if start:
        return start[0]
    everywhere = set(_polarities(text))
    return everywhere.pop() if len(everywhere) == 1 else None


def _polarities(text: str, starting: bool = False) -> list[str]:
    """What each word of POLARITY in a text says; with ``starting`` only where the text begins with one, after what says nothing."""
    if starting:
        match = POLARITY.match(text)
        return [_said(match)] if match and match.lastgroup != "neutral" else []
    return [_said(match) for match in POLARITY.finditer(text) if match.lastgroup != "neutral"]


def _said(match: re.Match) -> str:
    return "no" if match.lastgroup == "no" else "yes"
