"""A task file that does not fit the items of its benchmark is found when a suite is prepared, before anything is trained."""

import json

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate.item_checks import check_items
from sft_atlas.evaluate.tasks import BenchmarkFiles

MMLU = ROOT / "config/benchmarks/mmlu.yaml"
MMLU_ITEM = {"instruction": "q", "answer": "x", "subject": "s", "choices": ["x", "y"], "label": 0}
GENERATE = 'doc_to_text: "{{instruction}}"\ndoc_to_target: answer\nmetric_list: [{metric: exact_match, aggregation: mean}]\n'


@pytest.fixture
def check(tmp_path):
    """A function that checks items (and examples) against a task file, or the text of one with functions in utils.py."""

    def call(task, items, shots=None, functions=""):
        if isinstance(task, str):
            (tmp_path / "task.yaml").write_text(task)
            (tmp_path / "utils.py").write_text(functions)
            task = tmp_path / "task.yaml"
        for name, rows in (("items", items), ("shots", shots or [])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        check_items(BenchmarkFiles("quiz", task, tmp_path / "items.jsonl", tmp_path / "shots.jsonl" if shots else None))

    return call


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


def test_items_that_fit_pass(check):
    check(MMLU, [MMLU_ITEM] * 2, [MMLU_ITEM])
    check(
        GENERATE + "process_docs: !function utils.same\n",
        [{"instruction": "q", "answer": "x"}],
        functions="def same(docs):\n    return docs\n",
    )


@pytest.mark.parametrize(
    ("items", "shots", "problem"),
    [
        ([MMLU_ITEM, without(MMLU_ITEM, "subject")], None, r"mmlu\.yaml: doc_to_text: .* cannot be filled in: 'subject' is undefined"),
        ([without(MMLU_ITEM, "label")], None, "doc_to_target: .* cannot be filled in"),
        ([MMLU_ITEM], [without(MMLU_ITEM, "choices")], "doc_to_text: .* cannot be filled in: 'choices' is undefined"),
    ],
)
def test_an_item_or_example_that_lacks_a_field_is_an_error(check, items, shots, problem):
    with pytest.raises(AtlasError, match=problem):
        check(MMLU, items, shots)


OWN_SCORES = GENERATE + "process_results: !function utils.results\n"


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ("def results(doc, results):\n    return {'exact_match': doc['gold'] == results[0]}\n", "KeyError: 'gold'; the item has instruction, answer"),
        ("def results(doc, results):\n    return {'other': 1.0}\n", "gives item 0 no 'exact_match': KeyError: 'exact_match'"),
        ("def results(doc, results):\n    return {'exact_match': (1, 2)}\n", "gives item 0 no 'exact_match': TypeError"),
        ("import urllib.request\nurllib.request.urlopen('file:///nowhere')\ndef results(doc, results): pass\n", "cannot be imported: URLError"),
    ],
)  # fmt: skip
def test_functions_that_fail_on_the_items_are_errors(check, functions, problem):
    with pytest.raises(AtlasError, match=rf"task\.yaml: .*{problem}"):
        check(OWN_SCORES, [{"instruction": "q", "answer": "x"}], functions=functions)


def test_code_is_not_run(check):
    check(
        OWN_SCORES + "unsafe_code: true\n",
        [{"instruction": "q", "answer": "x"}],
        functions="def results(doc, results):\n    raise RuntimeError\n",
    )
