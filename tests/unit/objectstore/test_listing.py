"""Listings are parsed as botocore parses them, and what is not expected is left to botocore."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from dicom_deid.objectstore.listing import parse_contents

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_TIME = "2026-11-27T09:30:00.000Z"


def _entry(key: str, extra: str = "", *, size: str = "7", modified: str = _TIME) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&quot;d41d8&quot;</ETag>"
        f"<Size>{size}</Size>{extra}<StorageClass>GLACIER</StorageClass></Contents>"
    )


def _page(entries: str, *, namespace: str = _NAMESPACE, before: str = "", after: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{before}<ListBucketResult {namespace}><Name>archive</Name>'
        f"<EncodingType>url</EncodingType><Prefix>a%2Fb</Prefix>{entries}<KeyCount>2</KeyCount>"
        f"<NextContinuationToken>t&amp;1</NextContinuationToken><IsTruncated>true</IsTruncated>{after}"
        "</ListBucketResult>"
    ).encode()


_OWNER = "<Owner><ID>7</ID><DisplayName>Key</DisplayName></Owner>"
_RESTORE = "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"
_ANSWERS = {
    "two objects": _page(_entry("a%2Fb%2F1+2.dcm") + _entry("a/b/%E7%8E%8B%0A&amp;.dcm", size="5368709120")),
    "no object": _page(""),
    "nested elements": _page(_entry("k", _OWNER) + _entry("l", _RESTORE)),
    "prefixes between objects": _page(
        _entry("k") + "<CommonPrefixes><Prefix>p%2F</Prefix></CommonPrefixes>" + _entry("l") + " \n"
    ),
    "sections of character data": _page(_entry("<![CDATA[a&b]]>")),
    "space in tags": _page(_entry("k").replace("</Contents>", "</Contents\n>")),
    "another time zone": _page(_entry("k", modified="2026-11-27T10:30:00+01:00")),
    "a time of HTTP": _page(_entry("k", modified="Fri, 27 Nov 2026 09:30:00 GMT")),
    "a time without a zone": _page(_entry("k", modified="2026-11-27T09:30:00")),
    "a prefixed namespace": _page(_entry("k"), namespace='xmlns:s3="http://s3.amazonaws.com/doc/2006-03-01/"')
    .replace(b"<", b"<s3:")
    .replace(b"<s3:/", b"</s3:")
    .replace(b"<s3:?", b"<?"),
    "no size": _page(_entry("k").replace("<Size>7</Size>", "")),
    "no ETag": _page(_entry("k").replace("<ETag>&quot;d41d8&quot;</ETag>", "")),
    "a document type": _page(_entry("&k;"), before='<!DOCTYPE l [<!ENTITY k "key">]>'),
    "a cut answer": _page(_entry("k") + _entry("l"))[:-40],
    "an empty answer": b"",
    "no XML": b"<html>",
    "an error of status 200": b"<Error><Code>SlowDown</Code><Message>slow</Message></Error>",
}


def _list(body: bytes, status: int, *, fast: bool) -> dict[str, Any] | str:
    """Return the page that a client makes of an answer, or the kind of its error."""
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")

    def answer(request: Any, **_: Any) -> AWSResponse:
        response = AWSResponse(request.url, status, {}, None)
        response._content = body
        return response

    client.meta.events.register("before-send.s3.ListObjectsV2", answer)
    if fast:
        client.meta.events.register("before-parse.s3.ListObjectsV2", parse_contents)
    try:
        page = client.list_objects_v2(Bucket="archive")
    except Exception as error:  # botocore's own parser fails in several ways
        return type(error).__name__
    for entry in page.get("Contents", ()):
        entry.pop("Owner", None)
        entry.get("RestoreStatus", {}).pop("RestoreExpiryDate", None)
    page.pop("ResponseMetadata")
    return dict(page)


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("name", _ANSWERS)
def test_an_answer_means_what_botocore_reads_in_it(name: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    expected = _list(_ANSWERS[name], status, fast=False)
    assert _list(_ANSWERS[name], status, fast=True) == expected


def test_botocore_is_spared_the_objects() -> None:
    answer: dict[str, Any] = {"status_code": 200, "body": _ANSWERS["two objects"]}
    parsed: dict[str, Any] = {}
    parse_contents(response_dict=answer, customized_response_dict=parsed)
    assert len(parsed["Contents"]) == 2
    assert b"Contents" not in answer["body"]
