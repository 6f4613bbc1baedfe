"""Settings that cost hours and cannot give a result, refused before any job; and those that rarely make sense, for warnings."""

from collections.abc import Iterable, Iterator

from sft_atlas.study.lm_eval_names import LENGTHS
from sft_atlas.study.model_files import Layout
from sft_atlas.study.runs import Run
from sft_atlas.study.schema import Hyperparameters, StudyFile
from sft_atlas.study.task_files import task_file

MOST_CHECKPOINTS = 100_000  # of a study; the paper has 1,070, its search 5,760
LARGEST_RATE = 1.0  # of a step relative to weights that are mostly below 0.1
HIGH_RATE = 0.02
MANY_EPOCHS = 100
MANY_REPEATS = 20
SHORT_SAMPLES = 64  # tokens
SHORTEST_PROMPT = 8  # tokens
DEFAULT_ANSWER = 256  # tokens that lm-eval generates where neither task nor suite says how many
GENERATED = ("instruction", "response", "task", "choices", "label")  # columns of generated items


def too_many(file: StudyFile) -> list[str]:
    """A study whose blocks define more than MOST_CHECKPOINTS checkpoints, counted without making them. All names must be defined."""
    count = 0
    for block in file.blocks.values():
        datasets = len(file.source_datasets) if block.datasets == "*" else len(block.datasets)
        if block.leave_one_out:
            datasets = sum(len(file.members(name)) for name in block.datasets)
        models = len(file.models) if block.models == "*" else len(block.models)
        recipes = [file.recipes[name] for name in block.recipes]
        count += models * datasets * sum(_kept(recipe) * len(block.seeds or recipe.seeds or [0]) for recipe in recipes)
    count += len(file.checkpoints)
    if count <= MOST_CHECKPOINTS:
        return []
    return [
        f"blocks: define {count:,} checkpoints; a study may have {MOST_CHECKPOINTS:,}: name fewer models, datasets, recipes, seeds or epochs"
    ]


def _kept(recipe: Hyperparameters) -> int:
    return {"last": 1, "all": recipe.epochs}[recipe.save_epochs] if isinstance(recipe.save_epochs, str) else len(recipe.save_epochs)


def problems(file: StudyFile, runs: Iterable[Run]) -> list[str]:
    """What cannot give a result: rates that destroy every model, more rows than a generator is asked for, columns that no item has."""
    found = [*_rates(runs), *_generated_rows(file, runs)]
    for name, entry in file.benchmarks.items():
        if entry.tasks and entry.shots and entry.shots.by not in (None, *GENERATED):
            found.append(f"benchmarks.{name}.shots.by: generated items have no column {entry.shots.by!r}; they have {', '.join(GENERATED)}")
    found += [
        problem
        for part in ("models", "datasets", "benchmarks", "suites", "recipes", "checkpoints")
        for problem in _case(part, getattr(file, part))
    ]
    return list(dict.fromkeys(found))


def _seed_twins(file: StudyFile) -> Iterator[str]:
    """Recipes that differ in nothing but their seed, such as those of ``grid: {seed: [0, 1]}``."""
    twins: dict[str, list[str]] = {}
    for name, recipe in file.recipes.items():
        twins.setdefault(recipe.model_dump_json(exclude={"seed", "seeds", "label"}), []).append(name)
    for names in twins.values():
        if len({file.recipes[name].seed for name in names}) > 1:
            yield (
                f"recipes.{names[0]} and {', '.join(names[1:])} differ only in `seed`; analyses take them for different recipes. To have their "
                f"results averaged, give one recipe `seeds: {sorted({file.recipes[name].seed for name in names})}`"
            )


def _case(part: str, names: Iterable[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(name.lower(), name)) != name:
            yield f"{part}.{name}: differs from {other} in case only; where file names ignore case, both would share a folder"


def _rates(runs: Iterable[Run]) -> Iterator[str]:
    for run in runs:
        settings = run.settings
        if settings.learning_rate > LARGEST_RATE:
            yield f"recipes.{run.recipe}: learning_rate {settings.learning_rate:g} destroys every model; it may be {LARGEST_RATE:g} at most"
        elif settings.learning_rate * settings.weight_decay >= 1:
            yield (
                f"recipes.{run.recipe}: weight_decay {settings.weight_decay:g} at learning_rate {settings.learning_rate:g} removes the weights "
                "in one step; their product must be below 1"
            )


def _generated_rows(file: StudyFile, runs: Iterable[Run]) -> Iterator[str]:
    for run in runs:
        for name in _sources(file, run):
            entry = file.datasets[name]
            if entry.tasks and not entry.allow_fewer and run.settings.rows > entry.size:
                yield (
                    f"recipes.{run.recipe}: trains on {run.settings.rows:,} rows, but datasets.{name} generates {entry.size:,}; raise its `size`, "
                    "lower `rows`, or set `allow_fewer: true`"
                )


def _sources(file: StudyFile, run: Run) -> tuple[str, ...]:
    return file.members(run.dataset) or (run.dataset,)


def no_prompt(file: StudyFile) -> list[str]:
    """Suites whose `max_length` leaves no room for a prompt beside the longest answer. Task files must be usable."""
    found = []
    for name, suite in file.suites.items():
        for benchmark in suite.benchmarks:
            keys, own = task_file(file.benchmarks[benchmark].task), file.benchmarks[benchmark].max_new_tokens
            if keys.get("output_type", "generate_until") != "generate_until":
                continue
            settings = keys.get("generation_kwargs") or {}
            stated = [length for length in (own, *(settings.get(key) for key in LENGTHS)) if length][:1]
            answer = min([*stated, *([suite.max_new_tokens] if suite.max_new_tokens else [])], default=DEFAULT_ANSWER)
            if suite.max_length - answer < SHORTEST_PROMPT:
                found.append(
                    f"suites.{name}.max_length: {suite.max_length} tokens hold no prompt of {benchmark} beside an answer of {answer}; "
                    "raise it, or lower max_new_tokens"
                )
    return found


def adapters(runs: Iterable[Run], layouts: dict[str, Layout]) -> list[str]:
    """LoRA settings that do not fit a base model: a rank above its width, `targets` of which none is one of its modules."""
    found = []
    for run in runs:
        layout, lora = layouts.get(run.model), run.settings.lora
        if layout is None or run.settings.method != "lora":
            continue
        if layout.width and lora.rank > layout.width:
            found.append(
                f"recipes.{run.recipe}: lora.rank {lora.rank} is above the width of {run.model}, {layout.width}; no update has a higher rank"
            )
        if layout.modules and isinstance(lora.targets, list) and not any(map(layout.matches, lora.targets)):
            found.append(
                f"recipes.{run.recipe}: lora.targets {', '.join(lora.targets)} match no module of {run.model} (it has {', '.join(layout.leaves)})"
            )
    return list(dict.fromkeys(found))


def warnings(file: StudyFile, runs: Iterable[Run], layouts: dict[str, Layout]) -> list[str]:
    """One line for each recipe or suite with a setting that rarely makes sense."""
    found: list[str] = []
    for run in runs:
        settings, where = run.settings, f"recipes.{run.recipe}"
        rows = settings.rows * len(_sources(file, run))
        if settings.learning_rate > HIGH_RATE:
            found.append(f"{where}: learning_rate {settings.learning_rate:g} is very high and likely to destroy the model")
        if settings.epochs > MANY_EPOCHS:
            found.append(f"{where}: {settings.epochs:,} epochs are very many")
        if settings.batch_size > rows:
            found.append(f"{where}: batch_size {settings.batch_size:,} is above the {rows:,} rows, so that an epoch is one smaller step")
        if settings.max_length < SHORT_SAMPLES:
            found.append(f"{where}: max_length {settings.max_length} drops every sample that is longer, template included")
        layout, targets = layouts.get(run.model), settings.lora.targets
        if settings.method == "lora" and layout and layout.modules and isinstance(targets, list):
            found += [f"{where}: lora.targets: {each} matches no module of {run.model}" for each in targets if not layout.matches(each)]
    found += _seed_twins(file)
    for name, suite in file.suites.items():
        if suite.judge and suite.judge.repeats > MANY_REPEATS:
            found.append(f"suites.{name}: each answer is judged {suite.judge.repeats:,} times")
    return list(dict.fromkeys(found))
