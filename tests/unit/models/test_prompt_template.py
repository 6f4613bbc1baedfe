"""A checkpoint is measured with the template that it was trained with."""

import json

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.prompt_template import fingerprint, require_trained_with
from sft_atlas.study.schema import Template

TEMPLATE = Template().model_dump()


def test_a_checkpoint_trained_with_another_template_is_not_scored(tmp_path):
    weights = tmp_path / "run/epoch-1/weights"
    weights.mkdir(parents=True)
    with pytest.raises(AtlasError, match=r"train\.json does not name the template of"):
        require_trained_with(TEMPLATE, weights)
    (tmp_path / "run/train.json").write_text(json.dumps({"template": {**TEMPLATE, "prompt": "Q: {instruction}\nA:"}}))
    with pytest.raises(AtlasError, match=r"weights was trained with the template .*Q: .*, this study scores with .*###Question"):
        require_trained_with(TEMPLATE, weights)
    (tmp_path / "run/train.json").write_text(json.dumps({"template": TEMPLATE}))
    assert require_trained_with(TEMPLATE, weights) == fingerprint(TEMPLATE)
