"""User functions by entry point and by dotted path."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe import load_function


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages as an installer leaves them: one offers an entry point, one fails on import."""
    (tmp_path / "clinic_rules.py").write_text(
        "NUMBER = 3\n\n\ndef hash_id(item, value, field, dicom):\n    return 'H1'\n"
    )
    (tmp_path / "broken_rules.py").write_text("raise RuntimeError('no licence')\n")
    information = tmp_path / "clinic_rules-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: clinic-rules\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[dicom_deid.functions]\nhash_id = clinic_rules:hash_id\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", ["hash_id", "clinic_rules:hash_id"])
def test_a_function_is_found(name: str) -> None:
    """Catches either way that does not work."""
    assert load_function(name)(None, None, None, None) == "H1"


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hash_di", "did you mean hash_id"),
        ("nowhere:function", "No module named"),
        ("clinic_rules:nothing", "has no attribute"),
        ("clinic_rules:NUMBER", "not callable"),
        ("broken_rules:f", "no licence"),
    ],
)
def test_a_missing_function_is_reported_before_the_first_object(name: str, words: str) -> None:
    """Catches a traceback of a foreign module, or a name that fails at the first object."""
    with pytest.raises(ConfigurationError, match=words):
        load_function(name)
