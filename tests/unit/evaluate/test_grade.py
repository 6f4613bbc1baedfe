"""Grading a file of outputs: the graded answers that are here, what is printed, and errors that name line and key."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.sandboxed import WHOLE
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import grade
from sft_atlas.evaluate.metrics import equality, last_boxed, verdict, without_thinking

OWN = Path(__file__).with_name("answers.jsonl")
CASES = next((path for path in (folder / "shared/cases/answers.jsonl" for folder in ROOT.parents) if path.exists()), ROOT / "absent")
FILES = [OWN, pytest.param(CASES, marks=pytest.mark.skipif(not CASES.exists(), reason=f"the collected cases are not here ({CASES})"))]
GOOD = {"kind": "gsm8k", "output": "#### 18", "target": "18", "correct": True}


@WHOLE
@pytest.mark.parametrize("path", FILES, ids=["own", "shared"])
def test_every_answer_is_graded_as_a_person_graded_it(path):
    graded = [grade.grade(row, f"line {line}", line) for line, row in grade.read(path)]
    assert [one for one in graded if one.ours != one.theirs] == []


def test_there_are_many_answers_of_each_kind_right_and_wrong():
    rows = [row for _, row in grade.read(OWN)]
    for kind in grade.KINDS:
        assert min(sum(row["correct"] is correct for row in rows if row["kind"] == kind) for correct in (True, False)) >= 9
        assert sum(row["kind"] == kind for row in rows) >= 30


@pytest.mark.parametrize("path", FILES, ids=["own", "shared"])
def test_strict_never_exceeds_lenient_and_only_an_answer_counts(path):
    for line, row in grade.read(path):
        targets, field = grade.several(row["target"]), grade.Fields(row, f"line {line}")
        scorer = grade.scorer_of(field, targets)
        if scorer.startswith("code."):
            continue  # runs programs; the rule is that of verdict
        metric, strict, parsed, formed, extracted = grade.SCORERS[scorer](grade.item(scorer, field, targets), [row["output"]]).values()
        assert strict <= min(metric, formed) and metric <= parsed == bool(extracted), row


@pytest.mark.parametrize("bits", range(32))
def test_no_verdict_is_right_in_form_and_wrong_in_content(bits):
    correct, formed, strict, found, empty = (bool(bits >> place & 1) for place in range(5))
    scores = verdict("m", "x" if found else "" if empty else None, correct, formed, strict)
    assert scores["strict"] <= scores["m"] <= scores["parsed"] == found


@pytest.mark.parametrize(
    "part", ["1,", "1 ", "A or ", "not A, B, ", "$", "answer is ", "wait, ", "\n", "\\boxed{", "```\n", "<think>", "no ", "(", "是"]
)
def test_an_output_that_repeats_itself_is_read_in_time(part):
    output = (part * 2000)[:2000]
    started = time.process_time()
    for scorer, score in grade.SCORERS.items():
        item = {
            "answer": "18",
            "choices": ["x", "yy"],
            "label": 0,
            "prompt": "def f(x):\n",
            "entry_point": "f",
            "test": "",
            "test_list": ["f(1)"],
        }
        item["answer"] = "true" if scorer == "choice.yes_no" else "18"
        if not scorer.startswith("code."):
            metric, strict, parsed, _, _ = score(item, [output]).values()
            assert strict <= metric <= parsed
    assert grade.code.find_program(output, "f", "def f(x):\n") is None
    assert time.process_time() - started < 3


def lines(path, *rows):
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(capfd, path):
    """What the command prints, and its exit status."""
    from sft_atlas.core import job

    status = 0
    try:
        job.run("grade", [str(path)])
    except SystemExit as end:
        status = end.code
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    return told.out, told.err, status


def test_agreement_is_printed_by_kind_and_each_disagreement_with_its_line(tmp_path, capfd):
    long = {"kind": "choice", "output": "Hm.\n" * 80 + "B", "target": "A", "options": ["x", "y"], "correct": True}
    out, err, status = run(capfd, lines(tmp_path / "a.jsonl", GOOD, "", GOOD | {"output": "16"}, long))
    assert "| gsm8k  |       2 |     1 | 50.0% |" in out and "| choice |       1 |     0 |  0.0% |" in out
    assert [line.split("|")[1].strip() for line in out.splitlines() if "wrong" in line] == ["3", "4"]
    assert "Hm.\\nHm." in out and len(max(out.splitlines(), key=len)) < 200
    assert (err.strip(), status) == (f"error: {tmp_path}/a.jsonl: 2 of 3 answers are graded differently", 1)


def test_where_all_agree_the_command_succeeds(tmp_path, capfd):
    several = GOOD | {"target": ["17", "18"]}
    out, err, status = run(capfd, lines(tmp_path / "a.jsonl", "\ufeff" + json.dumps(GOOD), several))
    assert ("100.0%" in out, err, status) == (True, "", 0)


FAULTS = {
    "not JSON": ("{'kind': 1}", "line 2: not JSON (Expecting property name"),
    "a list": ("[1]", "line 2: must be a JSON object, not [1]"),
    "nested too deeply": ("[" * 100_000, "line 2: not JSON"),
    "unknown kind": (GOOD | {"kind": "maths"}, "line 2: 'kind' must be one of gsm8k, math, choice, yes_no, code, think, not \"maths\""),
    "kind of a list": (GOOD | {"kind": ["math"]}, "'kind' must be one of"),
    "no output": ({"kind": "math", "target": "1", "correct": True}, "line 2: 'output' is missing; it must be a text"),
    "output is a number": (GOOD | {"output": 18}, "'output' must be a text, not 18"),
    "target is a number": (GOOD | {"target": 18}, "'target' must be a text, or a list of texts, not 18"),
    "target is no number": (GOOD | {"target": "x"}, "'target' must be a number, not 'x'"),
    "no grade": ({"kind": "math", "output": "", "target": "1"}, "'correct' is missing; it must be true or false"),
    "a grade in words": (GOOD | {"correct": "yes"}, "'correct' must be true or false, not \"yes\""),
    "no options": (GOOD | {"kind": "choice"}, "'options' is missing; it must be a list of 2 to 10 texts"),
    "eleven options": (GOOD | {"kind": "choice", "options": ["x"] * 11}, "'options' must be a list of 2 to 10 texts"),
    "no such letter": (GOOD | {"kind": "choice", "options": ["x", "y"], "target": "C"}, "the letter of an option, A to B, not 'C'"),
    "no tests": (GOOD | {"kind": "code", "prompt": "def f(x):\n"}, "'tests' is missing"),
    "no prompt": (GOOD | {"kind": "code", "tests": "def check(f): pass"}, "'prompt' is missing"),
    "another function": (
        GOOD | {"kind": "code", "tests": "", "prompt": "def f(x):\n", "entry_point": "g"}, "'prompt' must define the function g",
    ),
    "neither yes nor no": (GOOD | {"kind": "yes_no"}, "'target' must be yes or no, not '18'"),
    "another kind's scorer": (GOOD | {"scorer": "choice.letter"}, "'scorer' is choice.letter, which does not score gsm8k"),
    "unknown scorer": (GOOD | {"kind": "think", "scorer": "os.system"}, "'scorer' must be one of mathematics.gsm8k"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_line_and_key(tmp_path, capfd, fault):
    row, message = FAULTS[fault]
    out, err, status = run(capfd, lines(tmp_path / "a.jsonl", GOOD, row))
    assert message in err and err.startswith(f"error: {tmp_path}/a.jsonl, line 2: ") and err.count("\n") == 1 and (out, status) == ("", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no answers"), (b"\n \n", "holds no answers"), (b'{}\n{"a": "\xe9"}', "line 1: 'kind' is missing"), (b'"\xe9"', "line 1: not UTF-8 (byte 2)")],
)  # fmt: skip
def test_a_file_without_answers_or_in_another_encoding(tmp_path, capfd, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    if b"{}" in content:
        message = "line 2: not UTF-8"
    _, err, status = run(capfd, path)
    assert message in err and err.count("\n") == 1 and status == 1


def test_a_file_that_is_not_there_or_a_folder(tmp_path, capfd):
    assert "cannot be read: No such file" in run(capfd, tmp_path / "none.jsonl")[1]
    assert "cannot be read: Is a directory" in run(capfd, tmp_path)[1]


# ---------------------------------------------------------------- parts of an answer


@pytest.mark.parametrize(
    ("output", "left"),
    [
        ("<think>a</think>b", "b"), ("<think>a<think>b</think>c</think>d", "d"), ("a</think>b", "b"), ("a<think>b", "a"), ("<think>a", ""),
        ("<Think>a</THINK>b<think>c</think>d", "bd"), ("<think>a</think>b</think>", "b"), ("a", "a"), ("", ""), ("a<|im_end|>b", "a"), ("x < think > y", "x < think > y"),
    ],
)  # fmt: skip
def test_thinking_is_no_answer(output, left):
    assert without_thinking(output) == left


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("\\boxed 5", "5"), ("$\\boxed5$", "5"), ("\\boxed\\frac{1}{2}.", "\\frac{1}{2}"), ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"), ("\\boxed{a} and \\boxed{b}", "a,b"),
        ("\\boxed{3} first, then the sum of all is \\boxed{5}", "5"), ("\\boxed{5}. So \\boxed{5}", "5"), ("\\boxed{\\frac{a}{\\sqrt{b}}} ok", "\\frac{a}{\\sqrt{b}}"), ("\\boxed{}", None), ("none", None),
    ],
)  # fmt: skip
def test_a_box_is_read_in_every_spelling(output, content):
    assert last_boxed(output) == content


# ---------------------------------------------------------------- math-verify in a process of its own


def test_math_verify_works_in_any_thread():
    results = []
    threads = [threading.Thread(target=lambda: results.append(equality.equal("\\frac{2}{4}", "\\frac{1}{2}"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_a_comparison_that_does_not_end_is_not_equal_and_the_next_one_is_answered(monkeypatch, caplog):
    monkeypatch.setattr(equality, "WALL_SECONDS", 1.0)
    started = time.monotonic()
    assert equality.equal("9^{9^{9^{9}}}!", "3") is False and time.monotonic() - started < 10
    assert "math-verify does not decide within its limits" in caplog.text
    monkeypatch.setattr(equality, "WALL_SECONDS", 60.0)
    assert equality.equal("(x+1)^2", "x^2+2x+1") is True


def test_without_math_verify_nothing_is_scored_as_wrong(monkeypatch):
    monkeypatch.setattr(equality, "_running", {})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AtlasError, match="math-verify does not start"):
        equality.equal("2x", "x+x")


def test_the_process_of_math_verify_may_die():
    assert equality.equal("2x", "x+x")
    process = next(iter(equality._running.values()))
    process.kill()
    assert equality.equal("3x", "x+x+x")


def test_the_same_comparison_gives_the_same_answer_with_a_cold_and_a_warm_cache():
    pairs = [("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"), ("x^3-x", "x(x-1)(x+1)"), ("\\{1,2\\}", "\\{2,1\\}"), ("e^2", "7.389")]
    first = [equality.equal(*pair) for pair in pairs]
    assert first == [equality.equal(*pair) for pair in reversed(pairs)][::-1] == [True, True, True, False]


def test_math_verify_is_loaded_in_its_own_process_only():
    assert "math_verify" not in sys.modules


def test_more_options_than_letters_are_refused():
    with pytest.raises(AtlasError, match=r"an item has 11 options; .* score it by likelihood"):
        grade.SCORERS["choice.letter"]({"choices": list("abcdefghijk"), "label": 0}, ["A"])
