"""Marks tests that run code written by models, which needs a kernel that can confine it."""

import sys

import pytest

from sft_atlas.evaluate import sandbox

LACKING = sandbox.missing() if sys.platform == "linux" else ("Linux",)
WHOLE = pytest.mark.skipif(bool(LACKING), reason=f"this kernel lacks {', '.join(LACKING)}, and the sandbox refuses to run without")
