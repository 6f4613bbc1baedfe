"""The notes of a release are its section of the changelog, and every file names the same version."""

import importlib.util

import pytest
import yaml

from sft_atlas.core.provenance import ROOT

SPEC = importlib.util.spec_from_file_location("release_notes", ROOT / ".github/release_notes.py")
release_notes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release_notes)

CHANGES = "# Changelog\n\n## Unreleased\n\n- Later.\n\n## 0.2.0 (2026-12-01)\n\n### Added\n\n- This.\n\n## 0.1.0\n\n- Before.\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    return tmp_path


def test_the_notes_are_the_section_of_the_version(root):
    assert release_notes.notes("v0.2.0", root) == "### Added\n\n- This.\n"


def test_a_version_without_a_section_is_refused(root):
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- Later.\n")
    with pytest.raises(SystemExit, match=r"has no section `## 0\.2\.0`"):
        release_notes.notes("v0.2.0", root)


@pytest.mark.parametrize("file", ["pyproject.toml", "CITATION.cff"])
def test_files_of_another_version_are_named(root, file):
    (root / file).write_text((root / file).read_text().replace("0.2.0", "0.1.0"))
    with pytest.raises(SystemExit, match=rf"{file} has version 0\.1\.0, the tag is v0\.2\.0"):
        release_notes.notes("v0.2.0", root)


def test_this_repository_names_one_version():
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_files_for_github_are_yaml_and_name_files_that_exist(path):
    text = path.read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    for name in ("tests/install/conditions.py", ".github/release_notes.py", ".ci/run"):
        assert name not in text or (ROOT / name).exists()
