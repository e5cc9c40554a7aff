"""DICOM files for a demonstration: the test files in the `pydicom` package, including invalid ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom.data

_FOLDERS = ("test_files", "charset_files")
_CODE = (".py", ".pyc", ".md", ".txt")


def sample_files() -> Iterator[tuple[str, Path]]:
    """Yield key and path of each file, in order."""
    root = Path(pydicom.data.__file__).parent
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix not in _CODE:
                yield path.relative_to(root).as_posix(), path


def load_samples(client: Any, bucket: str, prefix: str) -> int:
    """Upload the files to a bucket, which is created if needed, and return their number.

    Files that were uploaded before are skipped, so that their objects do not change.

    Parameters
    ----------
    client
        A boto3 S3 client.
    bucket, prefix
        Location of the objects.
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
    """Create a bucket if it does not exist."""
    if bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
