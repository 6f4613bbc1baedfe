"""The prompt template: one pair of strings for training and for every measurement."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.messages import explain
from sft_atlas.study.paths import RECORD
from sft_atlas.study.schema import Template


def read(text: str) -> dict[str, str]:
    """Parse a template given as JSON, e.g. ``{"prompt": "###Question: {instruction}\\n###Answer:", "response": " {response}"}``.

    Raises :class:`AtlasError` unless it has exactly these two strings, each with its placeholder once.
    """
    try:
        template = Template.model_validate_json(text)
    except ValidationError as error:
        raise AtlasError(f"the template {text} is not usable: {'; '.join(explain(error, Template))}") from None
    if template.model_fields_set != set(Template.model_fields):
        raise AtlasError(f"the template {text} must give both prompt and response")
    return template.model_dump()


def render(template: dict[str, str], instruction: str, response: str | None = None) -> tuple[str, str]:
    """The prompt and the response as the model sees them; the response is empty when none is given.

    Uses ``str.replace`` instead of ``str.format``, because instructions and responses may contain braces.
    """
    prompt = template["prompt"].replace("{instruction}", instruction)
    return prompt, "" if response is None else template["response"].replace("{response}", response)


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
        difference = f"{weights} was trained with the template {trained!r}, this study scores with {template!r}"
        raise AtlasError(f"{difference}; make them equal, or train the run again with the study's template")
    return fingerprint(template)
