"""The question of ``design``: the models, training sets and recipes among which it chooses, as names of the study."""

from dataclasses import dataclass

from sft_atlas.study.messages import nearest
from sft_atlas.study.schema import Design, StudyFile

TWO = ("methods", "sizes")  # questions about two recipes


@dataclass(frozen=True)
class Question:
    """What is asked, with names in place of defaults. ``recipes``: two for a question in TWO, else one."""

    asked: Design
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    recipes: tuple[str, ...]

    @property
    def block(self) -> str:
        """Name of the block that is proposed."""
        return f"design-{self.asked.question}"

    @property
    def comparisons(self) -> int:
        """Comparisons that p is corrected for."""
        count = len(self.datasets)
        return self.asked.comparisons or (count * (count - 1) // 2 if self.asked.question == "sets" else 1)


def resolve(design: Design, file: StudyFile) -> tuple[Question, list[str]]:
    """The question, and what is wrong with it."""
    sources = list(file.source_datasets)
    named = {
        "models": design.models,
        "datasets": design.datasets,
        "recipes": design.recipes or [],
        "benchmark": [design.benchmark] * bool(design.benchmark),
    }
    known = {"models": list(file.models), "datasets": sources, "recipes": list(file.recipes), "benchmark": list(file.benchmarks)}
    problems = [
        f"design.{key}: {name!r} is not in {'benchmarks' if key == 'benchmark' else key}{nearest(name, known[key])} (defined: {', '.join(known[key])})"
        for key, names in named.items()
        for name in (names if names != "*" else ())
        if name not in known[key]
    ]
    models, datasets = (tuple(dict.fromkeys(known[key] if named[key] == "*" else named[key])) for key in ("models", "datasets"))
    recipes, more = (tuple(design.recipes), []) if design.recipes else _usual(design.question, file)
    problems += more
    if design.question == "sets" and len(datasets) < 2:
        problems.append("design.datasets: the question sets compares two training sets or more; name them")
    if not problems:
        problems += _unfit(design.question, [file.recipes[name] for name in recipes], recipes)
    return Question(design, models, datasets, recipes), problems


def _usual(question: str, file: StudyFile) -> tuple[tuple[str, ...], list[str]]:
    """The recipes that most sources are trained with, of full fine-tuning first."""
    counts = dict.fromkeys(file.recipes, 0)
    for block in file.blocks.values():
        sets = file.source_datasets if block.datasets == "*" else [name for name in block.datasets if name in file.source_datasets]
        models = file.models if block.models == "*" else block.models
        for name in block.recipes if not block.leave_one_out else ():
            counts[name] = counts.get(name, 0) + len(sets) * len(models)
    by_method = {}
    for name in sorted((name for name in file.recipes if counts[name]), key=lambda name: -counts[name]):
        by_method.setdefault(file.recipes[name].method, name)
    found = [by_method[method] for method in ("full", "lora") if method in by_method]
    if question == "methods" and len(found) == 2:
        return tuple(found), []
    if question in ("sets", "seeds") and found:
        return (found[0],), []
    wanted = "two recipes that differ in rows" if question == "sizes" else "one of each method" if question == "methods" else "the recipe"
    return (), [f"design.recipes: name {wanted} (defined: {', '.join(file.recipes)})"]


def _unfit(question: str, entries: list, names: tuple[str, ...]) -> list[str]:
    """Two recipes that do not differ in what is asked."""
    key = {"methods": "method", "sizes": "rows"}.get(question)
    if key and getattr(entries[0], key) == getattr(entries[1], key):
        return [f"design.recipes: {names[0]} and {names[1]} have the same {key}, which the question {question} compares; name another"]
    return []
