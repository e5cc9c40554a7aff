"""A file whose bytes are read in ranges when they are needed."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from dicom_deid.objectstore.base import Buffer

ReadRange = Callable[[int, int], Buffer]
"""Returns bytes between two positions; fewer than asked for if it likes, but at least one."""

_READ_AT_ONCE = 2**18


def ranged_file(read: ReadRange, size: int) -> BinaryIO:
    """Return a buffered file of a size in bytes.

    Parameters
    ----------
    read
        Returns a range of it; called with ranges inside the file.
    """
    return cast(BinaryIO, io.BufferedReader(_RangedFile(read, size), _READ_AT_ONCE))


class _RangedFile(io.RawIOBase):
    name = ""
    """pydicom asks buffered files for one."""

    def __init__(self, read: ReadRange, size: int) -> None:
        self._range = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (0, self._position, self._size)[whence]
        if position < 0:
            raise OSError(errno.EINVAL, "before the beginning")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._range(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
