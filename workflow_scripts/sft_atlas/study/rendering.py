"""Prompts, options and right answers of items, rendered from a task's templates as lm-eval renders them, each template compiled once."""

import ast
import functools
import os
import re
from collections.abc import Callable

import jinja2

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.task_files import Function, task_file

SHOWN = 120  # characters of a value in a message


@functools.cache
def environment() -> jinja2.Environment:
    """Jinja as lm-eval sets it up (`lm_eval.utils.env`): a field that an item lacks is an error."""
    env = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    env.filters["regex_replace"] = lambda string, pattern, repl, count=0: re.sub(pattern, repl, string, count=count)
    return env


@functools.cache
def compiled(text: str) -> jinja2.Template:
    """A template, compiled once. AtlasError where it is not Jinja."""
    try:
        return environment().from_string(text)
    except jinja2.TemplateError as error:
        raise AtlasError(f"{text!r} is not a template: {error}") from None


class TaskRenderer:
    """What lm-eval makes of an item under a task: :meth:`text`, :meth:`options` and :meth:`target`.

    ``keys`` are those of the task; ``where`` is its file, for messages. Functions are called where ``keys`` holds them (lm-eval loads
    them); a function by name (:class:`Function`) cannot be, and what needs it is None. Raises :class:`AtlasError` where an item lacks
    something, or the result is not what the task needs.
    """

    def __init__(self, keys: dict[str, object], where: object):
        self.where, self.keys = where, {key: value for key, value in keys.items() if value is not None}
        self.kind = self.keys.get("output_type", "generate_until")
        self.delimiter: str = self.keys.get("target_delimiter", " ")

    def text(self, row: dict) -> str | int | None:
        """The question; a number where each option has a context of its own (then it is the number of the right one)."""
        text = self._value("doc_to_text", row)
        if isinstance(text, str) and text.isdigit() and "doc_to_choice" in self.keys and self._is_template("doc_to_text", row):
            return int(text)
        if not self.by_name("doc_to_text") and (not isinstance(text, str | int) or isinstance(text, bool)):
            raise self._error("doc_to_text", row, f"gives {_shown(text)}, not text")
        return text

    def options(self, row: dict) -> list[str] | None:
        """The options of a choice task, without the delimiter before them; [] for other tasks without options."""
        if "doc_to_choice" not in self.keys:
            return []
        given = self._value("doc_to_choice", row)
        if isinstance(given, str) and self._is_template("doc_to_choice", row):
            try:
                given = ast.literal_eval(given)
            except (SyntaxError, ValueError):
                raise self._error("doc_to_choice", row, f"gives {_shown(given)}, not a list of options") from None
        if self.by_name("doc_to_choice"):
            return None
        given = list(given.values()) if isinstance(given, dict) else list(given) if isinstance(given, tuple) else given
        if not isinstance(given, list) or not given or not all(isinstance(option, str) and option for option in given):
            raise self._error(
                "doc_to_choice", row, f"gives {_shown(given)}; it must be the name of a field that holds a list of texts, or a list"
            )
        return given

    def target(self, row: dict) -> str | int | list | None:
        """The right answer: text, the number of the right option from 0, or a list of either."""
        target = self._value("doc_to_target", row)
        if isinstance(target, str) and self._is_template("doc_to_target", row):
            if target.isdigit() and "doc_to_choice" in self.keys:
                return int(target)
            if len(target) >= 2 and target[0] == "[" and target[-1] == "]":
                try:
                    return ast.literal_eval(target)
                except (SyntaxError, ValueError):
                    return target
        return target

    def right_options(self, row: dict) -> list[int] | None:
        """Numbers, from 0, of the right options of a choice task; None where a function would have to say.

        lm-eval counts an item whose answer is no option as wrong for every model, in silence; here it is an error.
        """
        if self.by_name("doc_to_text", "doc_to_choice", "doc_to_target"):
            return None
        options, text = self.options(row), self.text(row)
        target = text if isinstance(text, int) else self.target(row)
        right = []
        for answer in target if isinstance(target, list) else [target]:
            key = "doc_to_text" if isinstance(text, int) else "doc_to_target"
            number = options.index(answer) if isinstance(answer, str) and answer in options else answer
            if not isinstance(number, int) or not 0 <= number < len(options):
                there = f"the item has {len(options)} options, {_shown(options)}"
                remedy = "give their numbers from 0: with `columns: {choices: ..., label: ...}`, `label` is the number (see `label_base`)"
                raise self._error(key, row, f"gives {_shown(answer)}, which is no option: {there}; {remedy}")
            right.append(int(number))
        if not right:
            raise self._error("doc_to_target", row, "names no option")
        return right

    def check(self, row: dict) -> None:
        """Raise AtlasError where lm-eval could not ask an item, or could not score any answer to it."""
        self.text(row)
        if self.kind == "multiple_choice":
            self.right_options(row)
        else:
            self.options(row)
            target = self.target(row)
            if self.kind == "loglikelihood" and not self.by_name("doc_to_target") and (not isinstance(target, str) or not target.strip()):
                raise self._error("doc_to_target", row, f"gives {_shown(target)}, not the text whose likelihood is computed")

    def fill(self, text: str, row: dict, key: str) -> str:
        """A template of the task, filled in with an item."""
        return self._filled(key, compiled(text), text, row)

    def by_name(self, *keys: str) -> bool:
        """Whether one of these keys is a function that is known by name only."""
        return any(isinstance(self.keys.get(key), Function) for key in keys)

    # ------------------------------------------------------------

    def _value(self, key: str, row: dict) -> object:
        given = self.keys.get(key)
        if isinstance(given, Function):
            return None
        if callable(given):
            return self._called(key, given, row)
        if isinstance(given, str):
            return row[given] if given in row else self._filled(key, compiled(given), given, row)
        return given

    def _is_template(self, key: str, row: dict) -> bool:
        given = self.keys.get(key)
        return isinstance(given, str) and given not in row

    def _filled(self, key: str, template: jinja2.Template, text: str, row: dict) -> str:
        try:
            return template.render(**row)
        except Exception as error:  # noqa: BLE001 (a template may do anything with an item)
            there = f"the item has {', '.join(row)}; see `columns`"
            raise AtlasError(f"{self.where}: {key}: {text!r} cannot be filled in: {error}; {there}") from None

    def _called(self, key: str, function: Callable, row: dict) -> object:
        try:
            return function(row)
        except Exception as error:  # noqa: BLE001 (a function of the task's author may raise anything)
            raise self._error(key, row, f"its function fails: {type(error).__name__}: {error}") from None

    def _error(self, key: str, row: dict, problem: str) -> AtlasError:
        return AtlasError(f"{self.where}: {key}: {problem}. The item is {_shown(row)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def check_rows(task: str, rows: list[dict]) -> None:
    """Raise AtlasError for the first item that a task file cannot render. What its functions would make of an item is not known here."""
    if not os.path.exists(task):  # a study is refused before any job; this is a job that was started by hand
        return
    renderer = TaskRenderer(task_file(task), task)
    for row in [] if renderer.by_name("process_docs") else rows:
        renderer.check(row)
