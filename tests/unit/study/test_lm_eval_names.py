"""What is read from lm-eval's source files is what lm-eval itself knows when it is imported."""

from dataclasses import fields

from sft_atlas.study.lm_eval_names import generation_settings, lm_eval_names, package_folder
from sft_atlas.study.rendering import environment


def test_metrics_aggregations_filters_and_fields_are_those_of_lm_eval():
    import lm_eval.api.metrics
    import lm_eval.filters  # noqa: F401
    from lm_eval.api.registry import aggregation_registry, filter_registry, get_metric_aggregation, metric_registry
    from lm_eval.config.task import FewshotConfig, TaskConfig

    names = lm_eval_names()
    assert set(names.metrics) == set(metric_registry) and set(names.aggregations) == set(aggregation_registry)
    assert all(aggregation_registry.get(known.aggregation) is get_metric_aggregation(metric) for metric, known in names.metrics.items())
    # lm-eval registers some filters when they are first asked for, and other tests load tasks that register theirs.
    assert set(names.filters) >= {"regex", "take_first", "custom"} and all(
        filter_registry.get(name) for name in names.filters if name != "decontaminate"
    )
    assert names.fields == tuple(field.name for field in fields(TaskConfig)) and names.fewshot_fields == tuple(
        field.name for field in fields(FewshotConfig)
    )


def test_settings_of_generation_are_those_of_transformers():
    from transformers import GenerationConfig

    assert set(GenerationConfig().to_dict()) - {"transformers_version", "_from_model_config"} <= generation_settings()


def test_templates_are_filled_in_as_lm_eval_does():
    from lm_eval.utils import env

    ours = environment()
    assert set(ours.filters) == set(env.filters) and ours.undefined is env.undefined
    assert (ours.keep_trailing_newline, ours.trim_blocks, ours.autoescape) == (env.keep_trailing_newline, env.trim_blocks, env.autoescape)
    text = "{{x | regex_replace('a', 'b')}}{% if y %} {{y}}{% endif %}\n"
    assert ours.from_string(text).render(x="aab", y=1) == env.from_string(text).render(x="aab", y=1) == "bbb 1\n"


def test_a_package_that_is_not_installed_has_no_folder():
    assert package_folder("langdetekt") is None and package_folder("lm_eval").name == "lm_eval"
