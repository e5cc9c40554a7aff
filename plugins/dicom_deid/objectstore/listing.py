"""Parsing of ListObjectsV2 answers: botocore's parser takes most of the time that a listing takes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from xml.parsers import expat

_OBJECT = "Contents"
_OBJECT_LEVEL = 2
_FIELDS = frozenset({"Key", "Size", "ETag", "LastModified", "StorageClass"})
_RESTORE = "IsRestoreInProgress"
"""In `RestoreStatus`."""


def parse_contents(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any] | None = None, **_: Any
) -> None:
    """Parse the objects in an answer to ListObjectsV2, and leave the rest of the answer to botocore.

    Handles botocore's event ``before-parse.s3.ListObjectsV2``. An answer of a form that is not expected, an error among
    them, is left to botocore as a whole.

    Parameters
    ----------
    response_dict
        The answer: `status_code`, `headers` and `body`. The objects are removed from the body.
    customized_response_dict
        Receives `Contents`: dicts of `Key`, `Size`, `ETag`, `LastModified`, `StorageClass`, and `RestoreStatus` of
        objects that were or are being restored.
    """
    if customized_response_dict is None or response_dict["status_code"] != 200:
        return
    body = response_dict["body"]
    parser = _ContentsParser(body)
    try:
        parser.parse()
    except (expat.ExpatError, KeyError, ValueError):
        return
    if parser.contents:
        customized_response_dict[_OBJECT] = parser.contents
        response_dict["body"] = b"".join([*parser.others, body[parser.end :]])


class _ContentsParser:
    """Parses the objects of a listing; `others` and what follows `end` are the bytes between and after them."""

    def __init__(self, body: bytes) -> None:
        self.contents: list[dict[str, Any]] = []
        self.others: list[bytes] = []
        self.end = 0
        self._body = body
        self._level = 0
        self._entry: dict[str, str] | None = None
        self._text = ""
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._add_text
        parser.EndElementHandler = self._finish
        parser.StartDoctypeDeclHandler = self._refuse

    def parse(self) -> None:
        self._parser.Parse(self._body, True)

    def _start(self, name: str, _: object) -> None:
        self._level += 1
        self._text = ""
        if name == _OBJECT and self._level == _OBJECT_LEVEL:
            self._entry = {}
            self.others.append(self._body[self.end : self._parser.CurrentByteIndex])

    def _add_text(self, text: str) -> None:
        self._text += text

    def _finish(self, name: str) -> None:
        if self._entry is not None:
            if (self._level == _OBJECT_LEVEL + 1 and name in _FIELDS) or name == _RESTORE:
                self._entry[name] = self._text
            elif self._level == _OBJECT_LEVEL:
                self.contents.append(_typed(self._entry))
                self._entry = None
                self.end = self._body.index(b">", self._parser.CurrentByteIndex) + 1
        self._level -= 1

    def _refuse(self, *_: object) -> None:
        """Refuse a document type: its entities can make an answer grow."""
        raise ValueError("a listing has no document type")


def _typed(entry: dict[str, str]) -> dict[str, Any]:
    modified = datetime.fromisoformat(entry["LastModified"])
    if modified.tzinfo is None:
        raise ValueError("a time without a time zone")
    typed = {**entry, "Size": int(entry["Size"]), "LastModified": modified}
    if _RESTORE in entry:
        typed["RestoreStatus"] = {_RESTORE: typed.pop(_RESTORE) == "true"}
    return typed
