"""The prompt template: one pair of strings for training and for every measurement."""

import hashlib
import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.paths import RECORD

PLACEHOLDERS = {"prompt": "{instruction}", "response": "{response}"}


def read(text: str) -> dict[str, str]:
    """Parse a template given as JSON, e.g. ``{"prompt": "###Question: {instruction}\\n###Answer:", "response": " {response}"}``.

    Raises :class:`AtlasError` unless it has exactly these two strings, each with its placeholder once.
    """
    try:
        template = json.loads(text)
    except json.JSONDecodeError as error:
        raise AtlasError(f"the template is not JSON ({error}): {text}") from error
    if not isinstance(template, dict) or set(template) != set(PLACEHOLDERS):
        raise AtlasError(f"the template must have exactly the keys 'prompt' and 'response': {text}")
    for key, placeholder in PLACEHOLDERS.items():
        if not isinstance(template[key], str) or template[key].count(placeholder) != 1:
            raise AtlasError(f"the template's '{key}' must be a string that holds {placeholder} once: {template[key]!r}")
    return template


def render(template: dict[str, str], instruction: str, response: str | None = None) -> tuple[str, str]:
    """The prompt and the response as the model sees them; the response is empty when none is given.

    Uses ``str.replace`` instead of ``str.format``, because instructions and responses may contain braces.
    """
    prompt = template["prompt"].replace(PLACEHOLDERS["prompt"], instruction)
    return prompt, "" if response is None else template["response"].replace(PLACEHOLDERS["response"], response)


def fingerprint(template: dict[str, str]) -> str:
    """Hash of a template: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(json.dumps([template["prompt"], template["response"]]).encode()).hexdigest()[:16]


def require_trained_with(template: dict[str, str], weights: Path) -> str:
    """The template's fingerprint, after checking that the checkpoint in the folder ``weights`` was trained with the same template.

    Raises :class:`AtlasError` where the run was trained with another template: its scores would be those of a format it never saw
    (26 % against 57 % in LLaMA-Factory#2509).
    """
    record = Path(weights).parent.parent / RECORD
    try:
        trained = json.loads(record.read_text(encoding="utf-8"))["template"]
    except (OSError, KeyError, ValueError) as error:
        raise AtlasError(f"{record} does not name the template of {weights} ({type(error).__name__}); train the run again") from None
    if fingerprint(trained) != fingerprint(template):
        raise AtlasError(
            f"{weights} was trained with the template {trained!r}, this study scores with {template!r}; "
            "make them equal, or train the run again with the study's template"
        )
    return fingerprint(template)
