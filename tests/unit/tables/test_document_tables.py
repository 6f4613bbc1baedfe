"""docs/tables.md is what the documented columns say."""

from sft_atlas.core.provenance import ROOT
from sft_atlas.tables import document_tables


def test_the_page_is_up_to_date():
    written = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert written == document_tables.page(), "stale; run python workflow_scripts/run.py document_tables"
