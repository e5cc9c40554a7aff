"""Blank regions of JPEG frames in the frequency domain, without decoding and encoding the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.engine.pixels.codestream import read_codestream
from dicom_deid.engine.pixels.layout import Layout
from dicom_deid.engine.pixels.regions import Band

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 8
# Colour as YCbCr is what every reader takes three components for; of RGB it depends on markers of the file.
_INTERPRETATIONS = frozenset({"MONOCHROME1", "MONOCHROME2", "YBR_FULL", "YBR_FULL_422"})


def blank_jpeg(frames: Sequence[bytes], layout: Layout, blanked: Sequence[Band]) -> list[bytes] | None:
    """Blank every coding unit (8 x 8 to 16 x 16 pixels) that a band touches; the coefficients of all others stay.

    Parameters
    ----------
    frames
        JPEG frames of 8 bits, sequential.
    layout
        Layout of the image.
    blanked
        Bands to blank in each frame.

    Returns
    -------
    list of bytes or None
        The frames; None if they have another form or the library jpeglib is missing, so that they must be decoded.
    """
    if layout.photometric not in _INTERPRETATIONS:
        return None
    if any((read := read_codestream(frame)) is None or read.precision != _BLOCK for frame in frames):
        return None
    try:
        import jpeglib
    except ImportError:
        return None
    try:
        return [_blanked(jpeglib, frame, layout, blanked) for frame in frames]
    except Exception:  # jpeglib raises many kinds; decoding then decides whether the frames can be read
        return None


def _blanked(jpeglib: Any, frame: bytes, layout: Layout, blanked: Sequence[Band]) -> bytes:
    with _MemoryFile(frame) as source, _MemoryFile() as target:
        image = jpeglib.read_dct(source.path)
        components = [one for one in (image.Y, image.Cb, image.Cr, image.K) if one is not None]
        if len(components) != layout.samples:
            raise ValueError
        factors = [(int(v), int(h)) for v, h in image.samp_factor] if len(components) > 1 else [(1, 1)]
        units = _units(layout, blanked, max(v for v, _ in factors), max(h for _, h in factors))
        for blocks, (vertical, horizontal) in zip(components, factors, strict=True):
            chosen = units.repeat(vertical, axis=0).repeat(horizontal, axis=1)[: blocks.shape[0], : blocks.shape[1]]
            blocks[chosen] = 0
            if blocks is components[0]:
                # The first coefficient is eight times the mean less 128, quantised: 0 is medium grey and no colour.
                step = int(image.qt[image.quant_tbl_no[0]][0, 0])
                blocks[chosen, 0, 0] = -(-1016 // step) if layout.photometric == "MONOCHROME1" else -1024 // step
        # Comments and application segments can hold anything.
        image.markers = []
        image.write_dct(target.path, flags=["+OPTIMIZE_CODING"])
        written = target.read()
        with _MemoryFile(written) as again:
            read = jpeglib.read_dct(again.path)
            _check(image, read, components)
        return written + bytes(len(written) % 2)


def _check(image: Any, read: Any, components: Sequence[NDArray[np.int16]]) -> None:
    """Refuse what does not read back as it was written."""
    import numpy as np

    others = [one for one in (read.Y, read.Cb, read.Cr, read.K) if one is not None]
    if len(others) != len(components) or not np.array_equal(image.samp_factor, read.samp_factor):
        raise ValueError
    if not all(np.array_equal(one, other) for one, other in zip(components, others, strict=True)):
        raise ValueError


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
        self.path = f"/proc/self/fd/{self._descriptor}"
        os.write(self._descriptor, data)

    def __enter__(self) -> _MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self) -> bytes:
        """Return the content."""
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
