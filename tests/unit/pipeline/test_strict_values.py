"""Values of settings and options are what they say, or an error: nothing fails open."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.configuration import RunConfiguration

BASE = {"source": "s3://a", "destination": "s3://b", "project": "p"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"settings": {"pixel_risk": "quarantin"}}, "allow, ocr, quarantine; did you mean quarantine"),
        ({"settings": {"residuals": "Quarantine"}}, "residuals must be one of"),
        ({"settings": {"documents": None}}, "documents must be one of"),
        ({"settings": {"rebuild_file_meta": "False"}}, "rebuild_file_meta must be true or false"),
        ({"settings": {"layout_objects": "20"}}, "layout_objects must be a whole number"),
        ({"settings": {"pixelrisk": "allow"}}, "no field pixelrisk; did you mean pixel_risk"),
        ({"retry_quarantined": "False"}, "retry_quarantined must be true or false"),
        ({"server_side_copy": 0}, "server_side_copy must be true or false"),
        ({"verify": "ful"}, "did you mean full"),
        ({"limit": True}, "limit must be"),
        ({"transfer": 4}, "no field transfer; did you mean transfers"),
        ({"destination": "s3//b"}, "misspelt s3://"),
        ({"destination": "S3/b"}, "misspelt s3://"),
    ],
)
def test_a_wrong_value_is_refused(given: dict[str, Any], message: str) -> None:
    """A misspelt policy that holds back nothing, or the text "False" that is taken for true."""
    with pytest.raises(ConfigurationError, match=message):
        RunConfiguration.from_mapping(BASE | given)


def test_every_policy_refuses_other_words() -> None:
    """A policy that is added later, and whose words are not checked."""
    for name, value in [(each, getattr(Settings(), each)) for each in Settings.__slots__]:
        wrong: object = "no such word" if not isinstance(value, str) else f"{value} "
        with pytest.raises(ConfigurationError, match=name):
            Settings(**{name: wrong})
