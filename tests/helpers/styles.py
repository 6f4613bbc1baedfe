"""Ways in which models answer. Each maps an item's right answer to an output that a reader would count as right."""

from sft_atlas.evaluate.metrics.mathematics import boxed_or_all

LETTERS = "ABCD"


def full_width(text):
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def of_choice(item):
    right = LETTERS[item["label"]]
    text = str(item["choices"][item["label"]])
    return {"g": right, "w": LETTERS[(item["label"] + 1) % 4], "t": text, "f": full_width(right), "l": right.lower()}


CHOICE_EN = [
    "{g}", "{g}.", "({g})", "{g}. {t}", "Let me think. Option {w} looks tempting, but it is not right. The answer is {g}.", "The correct answer is **{g}**.",
    "So we get $\\boxed{{{g}}}$.", "```\n{g}\n```", "{g}\n\nI hope this helps! Let me know if you have any other questions.", "{t}", "The answer is {t}.", "Answer: {g}", "({l})",
]  # fmt: skip
CHOICE_ZH = [
    "{g}", "{f}", "答案是{g}。", "答案：{f}", "因此选{g}", "经过分析，{w}是错误的，故选{g}。", "{t}", "{g}. {t}", "{f}．{t}", "正确答案是**{g}**。", "\\boxed{{{g}}}",
    "```\n{g}\n```", "{g}\n希望对你有帮助！",
]  # fmt: skip
CHOICE_JA = [
    "{g}", "{f}", "答えは{g}です。", "正解：{f}", "よく考えると{w}は間違いなので、正解は{g}です。", "{t}", "{g}. {t}", "（{f}）{t}", "正解は**{g}**です。",
    "\\boxed{{{g}}}", "```\n{g}\n```", "{g}\nお役に立てれば幸いです。", "答えは「{g}」です。",
]  # fmt: skip


def of_boolq(item):
    yes = item["answer"] == "true"
    return {"g": "yes" if yes else "no", "w": "no" if yes else "yes", "G": "Yes" if yes else "No", "T": "True" if yes else "False"}


BOOLQ = [
    "{g}", "{G}.", "The passage says so in its first sentence. The answer is {g}.", "**{G}**", "\\boxed{{{g}}}", "```\n{g}\n```",
    "{G}, the passage says so. Do you have other questions?", "{T}", "Answer: {g}", "Based on the passage, the final answer is: {G}",
]  # fmt: skip


def of_gsm8k(item):
    value = int(item["answer"].split("####")[-1].strip().replace(",", ""))
    return {
        "g": str(value),
        "c": f"{value:,}",
        "w": value + 1,
        "s": item["answer"],
        "b": item["answer"].split("####")[0],
        "f": full_width(str(value)),
    }


GSM8K = [
    "{s}", "{g}", "{b}The answer is $\\boxed{{{g}}}$.", "{b}The answer is {c}.", "{b}The answer is {g}. I hope this helps! If you have 2 more questions, ask.",
    "**{c}**", "So the total is ${g}.00", "{b}So the result = {g} units", "```\n{g}\n```", "{b}#### ${c}.", "\\[ 3 + 4 = {g} \\]", "答えは{f}です",
]  # fmt: skip


def of_math(item):
    return {"g": boxed_or_all(item["answer"]), "s": item["answer"], "w": "12345678"}


MATH = [
    "{s}", "\\boxed{{{g}}}", "Some work here, $x=3$.\nFinal Answer: The final answer is ${g}$. I hope it is correct.", "The answer is ${g}$.", "The answer is {g}",
    "We get $\\boxed{{{g}}}$.\n\nLet me know if you have 2 questions!", "Therefore\n$${g}$$", "{g}", "```\n{g}\n```", "**Answer:** ${g}$", "$\\fbox{{{g}}}$", "Thus, the answer is \\({g}\\).",
]  # fmt: skip


def of_nq(item):
    return {"g": item["answers"][-1], "l": item["answers"][0].lower(), "w": "Quuxville"}


NQ = [
    "{g}", "The answer is {g}.", "Let me think about this. I recall reading about it. The answer is {g}.", "**{g}**", "{g}. Let me know if you need anything else!",
    "```\n{g}\n```", "{l}", "It was {g}, as far as I know.", "Answer: {g}", '"{g}"', "Sure!\n{g}",
]  # fmt: skip


def of_truthfulqa(item):
    return {"g": item["answer"], "w": item["Incorrect Answers"].split(";")[0].strip()}


TRUTHFULQA = [
    "{g}", "{g}.", "The answer is: {g}", "{g}\n\nLet me know if you have other questions.", "```\n{g}\n```", "**{g}**", '"{g}"', "Well, {g}.", "Answer: {g}", "A: {g}",
]  # fmt: skip


def of_humaneval(item):
    prompt, body = item["prompt"], item["canonical_solution"]
    return {"b": body, "s": body.strip(), "p": prompt + body, "h": prompt[prompt.rfind("def ") :] + body, "w": "    return None\n"}


HUMANEVAL = [
    "{b}", "{p}", "Here is the solution:\n\n```python\n{p}```\nThis works because of X.", "```python\n{b}```", "Sure! Here is the function:\n\n{p}\nThis function loops over it. It's simple.",
    "{s}", "```python\n{p}\n\nif __name__ == '__main__':\n    print('hi')\n```\nOutput:\n```\nhi\n```", "{b}\n\nHope this helps!", "```\n{h}\n```",
    "First, import what we need:\n```python\nimport math\n```\nThen:\n```python\n{p}\n```", "```python\n{p}",
]  # fmt: skip


def of_mbpp(item):
    return {"c": item["answer"], "n": item["answer"].replace("\r\n", "\n"), "t": item["test_list"][0], "w": "def unrelated(): return 3\n"}


MBPP = [
    "{c}", "{n}", "\n\n{n}", "Here you go:\n```python\n{c}\n```\nDone.", "Sure, this is it:\n\n{c}\n\nThe function returns what's asked.", "[BEGIN]\n{c}\n[DONE]",
    "```python\n{c}\n{t}\n```", "```\n{n}\n```", "```python\n{n}", "**Solution**\n\n```python\n{n}\n```\n\n**Explanation**: it's simple.",
]  # fmt: skip
