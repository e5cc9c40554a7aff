"""Real DICOM for a demonstration: the files that the package `pydicom` carries for its own tests, broken ones too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom.data

_FOLDERS = ("test_files", "charset_files")
_CODE = (".py", ".pyc", ".md", ".txt")


def sample_files() -> Iterator[tuple[str, Path]]:
    """Return a key and a path for each file, in order."""
    root = Path(pydicom.data.__file__).parent
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix not in _CODE:
                yield path.relative_to(root).as_posix(), path


def load_samples(client: Any, bucket: str, prefix: str) -> int:
    """Put the files into a bucket, which is made if need be, and return how many there are.

    A file that is there already is left alone, so that its object stays the one that was seen before.

    Parameters
    ----------
    client
        A boto3 S3 client.
    bucket, prefix
        Where to.
    """
    ensure_bucket(client, bucket)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    present = {(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", ())}
    count = 0
    for count, (name, path) in enumerate(sample_files(), start=1):  # noqa: B007 - the last count is returned
        key = f"{prefix}/{name}"
        if (key, path.stat().st_size) not in present:
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return count


def ensure_bucket(client: Any, bucket: str) -> None:
    """Make a bucket, unless it is there."""
    if bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
