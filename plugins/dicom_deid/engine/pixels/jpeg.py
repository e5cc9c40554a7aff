"""Blank regions of JPEG frames in the frequency domain, without decoding and encoding the rest."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.engine.pixels.codestream import SCAN, Codestream, is_colour_segment, jpeg_segments
from dicom_deid.engine.pixels.layout import Layout
from dicom_deid.engine.pixels.regions import Band

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 8
_PRECISIONS = (8, 12)
_INTERPRETATIONS = frozenset({"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422"})
# SOF0 and SOF1: sequential, of Huffman codes.
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_APPLICATION, _COMMENT = range(0xE0, 0xF0), 0xFE
# The spectral selection of a sequential scan; some writers state 0 to 0.
_WHOLE_SPECTRUM = b"\0\x3f\0"
# Of the versions of libjpeg in jpeglib the one that reads and writes 12 bits.
_LIBRARY = "cjpeglib/cjpeglib_9f.*"
_OPTIMIZE_CODING, _EVERY_FLAG = 1 << 6, 0xFFFFFFFF


def blank_jpeg(frames: Sequence[bytes], layout: Layout, blanked: Sequence[Band]) -> list[bytes] | None:
    """Blank every coding unit (8 x 8 to 16 x 16 pixels) that a band touches; the coefficients of all others stay.

    Parameters
    ----------
    frames
        JPEG frames of 8 or 12 bits, sequential.
    layout
        Layout of the image.
    blanked
        Bands to blank in each frame.

    Returns
    -------
    list of bytes or None
        The frames; None if they have another form or the library jpeglib is missing, so that they must be decoded.
    """
    library = _library()
    if library is None or layout.photometric not in _INTERPRETATIONS or layout.signed:
        return None
    try:
        return [_blanked(library, frame, layout, blanked) for frame in frames]
    except (IndexError, OSError, ValueError, struct.error):
        # Decoding decides whether the frames can be read.
        return None


def _library() -> Any:
    """Return the functions of jpeglib that read and write coefficients; its own classes use files on the disk."""
    spec = importlib.util.find_spec("jpeglib")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders for path in Path(folder).glob(_LIBRARY)]
    return ctypes.CDLL(str(found[0])) if found else None


class _Header(NamedTuple):
    """A frame as the library gets it, the position of its precision, and the segments that name its colour space."""

    frame: bytes
    precision_at: int
    colours: bytes
    codestream: Codestream
    factors: list[tuple[int, int]]


def _header(frame: bytes) -> _Header:
    """Read a frame, without its comments and application segments, which can hold anything.

    Raises
    ------
    ValueError
        If it is not sequential.
    """
    kept, colours = [frame[:2]], []
    codestream, factors, precision_at = None, [], 0
    for marker, start, end in jpeg_segments(frame):
        segment = frame[start - 4 : end]
        if marker in _APPLICATION or marker == _COMMENT:
            if is_colour_segment(frame, marker, start):
                colours.append(segment)
            continue
        if marker in _SEQUENTIAL and codestream is None:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, start)
            codestream = Codestream(rows, columns, components, precision)
            precision_at = sum(map(len, kept)) + 4
            factors = [(frame[at] & 15, frame[at] >> 4) for at in range(start + 7, start + 6 + 3 * components, 3)]
        if marker != SCAN:
            kept.append(segment)
            continue
        if codestream is None or segment[-3:] not in (_WHOLE_SPECTRUM, bytes(3)):
            break
        whole = b"".join((*kept, segment[:-3], _WHOLE_SPECTRUM, frame[end:]))
        return _Header(whole, precision_at, b"".join(colours), codestream, factors)
    raise ValueError


def _blanked(library: Any, frame: bytes, layout: Layout, blanked: Sequence[Band]) -> bytes:
    header = _header(frame)
    precision = header.codestream.precision
    if header.codestream[:3] != (layout.rows, layout.columns, layout.samples):
        raise ValueError
    if precision not in _PRECISIONS:
        raise ValueError
    factors = header.factors if len(header.factors) > 1 else [(1, 1)]
    image = _Image.read(library, header)
    units = _units(layout, blanked, max(v for v, _ in factors), max(h for _, h in factors))
    for index, (vertical, horizontal) in enumerate(factors):
        blocks = image.components[index]
        chosen = units.repeat(vertical, axis=0).repeat(horizontal, axis=1)[: blocks.shape[0], : blocks.shape[1]]
        blocks[chosen] = 0
        blocks[chosen, 0] = _mean(layout, index, precision, image.step(index))
    written = _header(image.write(library, header))
    if _Image.read(library, written) != image:
        raise ValueError
    again = written.frame[:2] + header.colours + written.frame[2:]
    return again + bytes(len(again) % 2)


def _mean(layout: Layout, component: int, precision: int, step: int) -> int:
    """Return the first coefficient of a black block: eight times the mean, from the middle of the range, quantised."""
    half = 1 << (precision - 1)
    if layout.photometric.startswith("YBR") and component:
        return 0
    if layout.photometric == "MONOCHROME1":
        # Frames may have more bits than the header says.
        return -(-_BLOCK * ((1 << min(layout.bits_stored, precision)) - 1 - half) // step)
    return -_BLOCK * half // step


class _Image:
    """Coefficients of the components, rows x columns x 64, and their quantisation tables."""

    def __init__(self, size: NDArray[np.int32], blocks: NDArray[np.int32], factors: NDArray[np.int32]) -> None:
        import numpy as np

        self.size, self.blocks, self.factors = size, blocks, factors
        self.colour_space = 0
        self.components = [np.zeros((rows, columns, _BLOCK * _BLOCK), np.int16) for rows, columns in blocks]
        self.tables = np.zeros((4, _BLOCK * _BLOCK), np.uint16)
        self.table_of = np.zeros(4, np.int16)

    def __eq__(self, other: object) -> bool:
        import numpy as np

        if not isinstance(other, _Image) or not np.array_equal(self.factors, other.factors):
            return False
        return all(
            np.array_equal(one, another) and np.array_equal(self.tables[first], other.tables[second])
            for one, another, first, second in zip(
                self.components, other.components, self.table_of, other.table_of, strict=False
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def step(self, component: int) -> int:
        """Return by how much the first coefficient of a component is divided."""
        return int(self.tables[self.table_of[component], 0])

    def _pointers(self) -> list[Any]:
        return [*map(_pointer, self.components), *[None] * (4 - len(self.components))]

    @classmethod
    def read(cls, library: Any, header: _Header) -> _Image:
        """Read the coefficients of a frame."""
        import numpy as np

        blocks, factors = np.zeros((4, 2), np.int32), np.zeros((4, 2), np.int32)
        size, counts, colours, scans = (np.zeros(length, np.int32) for length in (2, 3, 2, 1))
        numbers = [_pointer(array) for array in (blocks, size, counts, factors, colours)]
        # This function, which finds out what is wrong with a frame, decodes 8 bits only.
        checked = header.frame[: header.precision_at] + b"\x08" + header.frame[header.precision_at + 1 :]
        with _MemoryFile(checked) as source:
            if not library.read_jpeg_info(source.path, *numbers, None, None, None, None, _pointer(scans), None):
                raise ValueError
        image = cls(size, blocks[: counts[0]], factors[: counts[0]])
        image.colour_space = int(colours[1])
        tables = _pointer(image.tables), _pointer(image.table_of)
        with _MemoryFile(header.frame) as source:
            if not library.read_jpeg_dct(source.path, *image._pointers(), *tables):
                raise ValueError
        return image

    def write(self, library: Any, header: _Header) -> bytes:
        """Return a frame of the coefficients, with the tables and the colours of the frame that they are from."""
        layout = map(_pointer, (self.size, self.blocks, self.factors))
        kind = self.colour_space, len(self.components)
        of_source = None, ctypes.c_short(-1), None
        without_markers = 0, None, None, None
        flags = ctypes.c_uint(_OPTIMIZE_CODING), ctypes.c_uint(_EVERY_FLAG)
        with _MemoryFile(header.frame) as source, _MemoryFile() as target:
            paths = source.path, target.path
            if not library.write_jpeg_dct(
                *paths, *self._pointers(), *layout, *kind, *of_source, *without_markers, *flags
            ):
                raise ValueError
            return target.read()


def _pointer(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)


def _units(layout: Layout, blanked: Sequence[Band], vertical: int, horizontal: int) -> NDArray[np.bool_]:
    """Return which coding units the bands touch."""
    import numpy as np

    height, width = _BLOCK * vertical, _BLOCK * horizontal
    units = np.zeros((-(-layout.rows // height), -(-layout.columns // width)), bool)
    for band in blanked:
        for left, right in band.spans:
            units[band.top // height : -(-band.bottom // height), left // width : -(-right // width)] = True
    return units


class _MemoryFile:
    """A file in memory, for a library that takes paths: pixels never reach a disk."""

    def __init__(self, data: bytes = b"") -> None:
        self._descriptor = os.memfd_create("frame")
        self.path = f"/proc/self/fd/{self._descriptor}".encode()
        os.write(self._descriptor, data)

    def __enter__(self) -> _MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self) -> bytes:
        """Return the content."""
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
