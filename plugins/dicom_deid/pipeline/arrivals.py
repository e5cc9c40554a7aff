"""Objects of studies that have arrived completely: nothing was added to their folder for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby

from dicom_deid.objects import SourceObject


def settled_objects(listing: Iterable[SourceObject], before: datetime) -> Iterator[SourceObject]:
    """Yield the objects of folders in which nothing was modified since an instant.

    The folder of an object is its key up to the last slash, as archives store a series or a study.

    Parameters
    ----------
    listing
        Objects in the order of their keys.
    before
        A folder has settled if its newest object was last modified before this instant, by the clock of the store.
    """
    for _, group in groupby(listing, key=lambda found: found.key.rpartition("/")[0]):
        objects = list(group)
        if max(found.last_modified for found in objects) < before:
            yield from objects
