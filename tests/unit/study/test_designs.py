"""The question of `design`: its names, its defaults, and what is wrong with it."""

import json

import pytest

from helpers.plan_study import STUDY
from sft_atlas.core.errors import ConfigError
from sft_atlas.study import study as studies


def study_of(**asks):
    config = json.loads(json.dumps(STUDY))
    config["recipes"]["large"] = config["recipes"]["full"] | {"rows": 5000}
    return studies.from_config(config | {"design": {"question": "sets", "effect": 2, "budget": 10} | asks}, "small.yaml")


def test_names_that_are_left_out_are_all_sources_and_the_main_recipes():
    question = study_of().question
    assert (question.models, question.datasets, question.recipes, question.comparisons) == (("ant",), ("red", "blue"), ("full",), 1)
    assert study_of(question="methods").question.recipes == ("full", "lora")
    assert study_of(question="sizes", recipes=["full", "large"]).question.recipes == ("full", "large")
    assert study_of(datasets=["blue", "red"], comparisons=9).question.datasets == ("blue", "red")
    assert study_of(comparisons=9).question.comparisons == 9


def test_a_question_changes_neither_runs_nor_the_resolved_study():
    plain, asking = (
        studies.from_config(STUDY, "small.yaml"),
        studies.from_config(STUDY | {"design": {"question": "seeds", "effect": 1, "budget": 1}}, "small.yaml"),
    )
    assert asking.runs.keys() == plain.runs.keys() and asking.resolved() == plain.resolved()


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        ({"datasets": ["redd", "blue"]}, "design.datasets: 'redd' is not in datasets; did you mean 'red'?"),
        ({"datasets": ["all", "red"]}, "design.datasets: 'all' is not in datasets"),
        ({"models": ["wolf"]}, "design.models: 'wolf' is not in models (defined: ant)"),
        ({"benchmark": "quizz"}, "design.benchmark: 'quizz' is not in benchmarks; did you mean 'quiz'?"),
        ({"datasets": ["red"]}, "design.datasets: the question sets compares two training sets or more; name them"),
        ({"question": "sizes"}, "design.recipes: name two recipes that differ in rows (defined: full, lora, large)"),
        ({"question": "sizes", "recipes": ["full", "lora"]}, "full and lora have the same rows, which the question sizes compares"),
        ({"question": "methods", "recipes": ["full", "large"]}, "full and large have the same method"),
        ({"question": "methods", "recipes": ["full"]}, "recipes names 1; the question methods needs 2"),
        ({"population": "sets"}, "population: sets is for the questions methods and sizes; choose models or these"),
        ({"effect": 0}, "design.effect"),
        ({"question": "which"}, "design.question"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_question_is_told(asks, words):
    with pytest.raises(ConfigError) as caught:
        study_of(**asks)
    assert words in str(caught.value)
