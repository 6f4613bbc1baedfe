"""Files and words on Snakemake's command line that it reads before the workflow: it would refuse them without a line, or with a traceback.

``profiles/default/config.yaml`` calls :func:`check`, because a profile is the first thing of a workflow that Snakemake reads.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import UNFIT, YTE, strict_yaml, syntax, unusable_value

KEY = r"[a-zA-Z_][\w-]*\w"  # what Snakemake accepts


def check(arguments: Sequence[str]) -> None:
    """End the call with a message where a file after `--configfile` or a word after `--config` cannot be read."""
    try:
        files, words = configuration(arguments)
        for file in files:
            _readable(Path(file))
        if problems := [problem for word in words for problem in _problems(word)]:
            raise ConfigError("--config", problems)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


def configuration(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files after `--configfile` and the words after `--config`."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", default=[])
    parser.add_argument("--config", "-C", nargs="*", default=[])
    known, _ = parser.parse_known_args(list(arguments))
    return known.configfile, known.config


def _readable(file: Path) -> None:
    try:
        read = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, RecursionError, yaml.YAMLError, *UNFIT):
        read = None
    if not isinstance(read, dict) or YTE in read or unusable_value(read):
        strict_yaml(file)  # slower, and says what is wrong


def _problems(word: str) -> list[str]:
    key, equals, value = word.partition("=")
    if not equals:
        return [f"{word}: give it a value: --config {word}=VALUE"]
    if not re.fullmatch(KEY, key):
        return [f"{word}: {key!r} cannot be a key; write KEY=VALUE"]
    if value.lstrip()[:1] not in ("{", "["):
        return []  # Snakemake takes what is no YAML for a text
    try:
        yaml.compose(" " * (len(key) + 1) + value, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return [f"{key}, column {mark.column + 1}: not valid YAML: {syntax(error)}"]
    return []
