"""Words by which answers state, withdraw, reject and hedge, in English, Chinese and Japanese, with the commonest of other languages."""

import functools
import re
from collections.abc import Callable

# Words after which an answer is stated; the last statement counts. "Incorrect answer: A" states none.
ANNOUNCEMENT = (
    r"(?:(?<!in)(?<!not )(?<!wrong )(?<!incorrect )(?:final |correct |right |best |most likely |appropriate )*"
    r"(?<!wrong )(?<!incorrect )(?<!possible )\b(?:answer|ans|choice|option|result|solution)s?(?: to (?:this|the) (?:question|problem))?"
    r"\s*(?:should be|would be|must be|has to be|comes (?:out )?to|turns out to be|was|is|are|:|=)"
    r"|\b(?:respuesta|réponse|antwort|risposta|resposta|ответ|答|정답|답)(?:\s*(?:correcta|correcte|richtige|corretta|correta))?\s*(?:es|est|ist|è|é|은|는|:)"
    r"|(?:正确答案|正确选项|答案|选项|正解|答え|回答|解答|正しい(?:選択肢|答え)|選択肢)(?:应该|应当|應該)?(?:就是|是|为|為|选|は|:)"
    r"|故选|应选|应该选|所以选|因此选|选择|選択|选|選)"
)
CORRECTION = re.compile(
    r"(?:\b(?:wait|actually|correction|scratch that|hold on|sorry|oops|i mean|i was wrong|on second thought|let me correct)\b"
    r"|(?:(?<=[.?!,;—–-] )|(?<=[.?!;\n—–-]))no\s*[,:;—–-]|不对[,，。;]|更正|等等|应该说|いや[、,]|違う[、,。]|待って|すみません[、,]|訂正)[\s,.:;、，。—–-]*",
    re.IGNORECASE,
)
NOT_BEFORE = (  # before what is rejected
    r"(?:\b(?:(?:is|was|are|would be|can|could|must|should|does|do)?\s*(?:not|n['’]t|never)|cannot|can['’]t|isn['’]t|wasn['’]t|aren['’]t"
    r"|rather than|instead of|unlike|rule out|ruled out|eliminate[ds]?|exclud(?:e|ed|ing)|neither)(?:\s+(?:be|equal to|just|choose|pick|the answer))?[\s:]+"
    r"|\b(?:in(?:-)?correct|wrong|bad) (?:answer|choice|option)s?\s*(?:is|are|was|:)\s*"
    r"|(?:不是|并非|而非|不选|不能选|排除|错误答案(?:是|为|:)|错误选项(?:是|为|:))\s*)"
)
NOT_AFTER = (  # after what is rejected
    r"(?:\s*(?:\)|['\"」』])?\s*(?:(?:is|are|was|were|would be|looks|seems)\s+(?:also |both |all |clearly |obviously |definitely )?"
    r"(?:wrong|incorrect|false|not\b|n['’]t\b|ruled out|eliminated|too (?:big|small|high|low))|(?:isn|aren|wasn)['’]t\b|(?:can(?:not| not|['’]t)|could(?:n['’]t| not)) be\b"
    r"|\s?[:(] ?(?:no|false|wrong|incorrect|✗|❌)(?!\w)\)?|(?:does not|doesn['’]t) (?:fit|work|apply|hold)\b|\?+\s*(?:no\b|nope|wrong|not\b|不|いいえ|違)"
    r"|项?(?:是|为|都是|都|均|也|均为|都为)?(?:错误|错|不正确|不对|不成立|不符合|不合适|不选|不是)的?"
    r"|(?:は|が|も|では|じゃ)?(?:間違い|間違って|誤り|誤って|不正解|不適切|正しくな|正解ではな|違い|違う|なく|ありません|ではな)))"
)
BETWEEN = r"\s*(?:,\s*)?(?:/|、|&|\bor\b|\band\b|\bnor\b|或者|或|和|与|及|か|または|もしくは|と)\s*"  # before the last member of a list
HEDGE = (
    r"\s*(?:,?\s*(?:or|and|nor)\b|/|或者?|和|与|及|、|か(?!ら)|または|もしくは|と(?!い|思|な|し))\s*(?:maybe |perhaps |possibly |also )?"
)


def after_correction(text: str, find: Callable[[str], str | None]) -> str | None:
    """What ``find`` finds after the last words that withdraw something ("wait", "actually"), None where there are none or nothing is found."""
    return next(filter(None, map(find, reversed(CORRECTION.split(text)[1:]))), None)


def without_rejected(text: str, mention: str) -> str:
    """The text without mentions that it rejects: "not 16 but 18", "A and B are wrong", "Aではなく". ``mention``: a pattern of one
    mention, without groups."""
    return _rejections(mention).sub(" ; ", text)


@functools.lru_cache(maxsize=32)
def _rejections(mention: str) -> re.Pattern:
    # Atomic and short, so that a long list of numbers is not read in every possible way.
    one, more = rf"(?>{mention})", rf"(?:option |选项|選択肢)?(?>{mention})"
    listed = rf"(?>{one}(?:(?:(?:\s*,\s*{more}){{0,12}}{BETWEEN}{more}){{1,12}}|(?:\s*,\s*{more}){{2,12}})?)"
    before = rf"{NOT_BEFORE}(?:the |an? |option |选项|選択肢)?[\"'「『(]?{listed}(?:\s*,?\s*but\b)?"
    return re.compile(rf"{before}|(?:\bboth )?(?:option |选项|選択肢)?{listed}{NOT_AFTER}", re.IGNORECASE)
