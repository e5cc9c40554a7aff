"""PNG pictures of held objects: single frames, projections and pages of documents, in bounded memory.

Frames are read in ranges and decoded one by one. Nothing is written to disk.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from dicom_deid.exceptions import ConfigurationError, DicomDeidError, Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore
from dicom_deid.pipeline.object_file import MAX_HEADER_BYTES, open_object
from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

    Display = NDArray[np.uint8]

MAX_FRAMES = 400
"""Frames of a projection; more are sampled evenly."""
MAX_OBJECTS = 50
"""Objects of a projection."""
_MAX_READ = 512 * 2**20
_MAX_FRAME_BYTES = 96 * 2**20
_MAX_DOCUMENT_BYTES = 64 * 2**20
_MAX_SIDE = 4096
_PAGE_SCALE = 1.5
_PIXEL_DATA = 0x7FE00008


Result = TypeVar("Result")


class Projection(StrEnum):
    """Ways to combine frames into one picture."""

    MAXIMUM = "maximum"
    MINIMUM = "minimum"
    MEAN = "mean"


class Window(NamedTuple):
    """Window of the grey scale (PS3.3 section C.11.2.1.2), in units of the modality LUT."""

    center: float
    width: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG picture.

    Parameters
    ----------
    png
        The encoded picture.
    frames, total
        How many frames (or pages) it shows, and how many there are.
    objects
        How many objects it shows.
    """

    png: bytes
    frames: int = 1
    total: int = 1
    objects: int = 1


class PictureNotPossible(DicomDeidError):
    """The object cannot be shown; the message says why, without a value."""


def frame_picture(storage: ObjectStore, stored: SourceObject, frame: int = 0, window: Window | None = None) -> Picture:
    """Return one frame of an image; `frame` counts from 0.

    Raises
    ------
    PictureNotPossible
        The object has no such frame, or it cannot be decoded.
    """
    image = _Image(storage, stored, window)
    if not 0 <= frame < image.frames:
        raise PictureNotPossible(f"The object has {image.frames} frames.")
    (shown,) = image.displayed([frame])
    return Picture(_png(shown), 1, image.frames)


def projection_picture(
    storage: ObjectStore, objects: Iterable[SourceObject], projection: Projection, window: Window | None = None
) -> Picture:
    """Return the projection of all frames of some objects of the same size.

    Objects that cannot be decoded or have another size are left out; `Picture` says how much is shown.

    Raises
    ------
    PictureNotPossible
        None of the objects can be shown.
    """
    objects = list(objects)[:MAX_OBJECTS]
    combined = _Combined(projection)
    frames = total = shown = 0
    problem = PictureNotPossible("There is no object to show.")
    for stored in objects:
        try:
            image = _Image(storage, stored, window)
            indices = _sample(image.frames, max(1, MAX_FRAMES // len(objects)))
            added = sum(combined.add(each) for each in image.displayed(indices))
        except PictureNotPossible as error:
            problem = error
            continue
        frames, total, shown = frames + added, total + image.frames, shown + bool(added)
    if not frames:
        raise problem
    return Picture(_png(combined.result()), frames, total, shown)


def document_picture(storage: ObjectStore, stored: SourceObject, page: int = 0) -> Picture:
    """Return one page of an encapsulated PDF document; `page` counts from 0.

    Raises
    ------
    PictureNotPossible
        The document is no PDF, is too large, or has no such page.
    ConfigurationError
        The extra `review` is not installed.
    """
    try:
        from pypdfium2 import PdfDocument, PdfiumError
    except ImportError:
        raise ConfigurationError(
            "Pages of documents need the extra: pip install 'airflow-provider-dicom-deid[review]'"
        ) from None
    data = _guarded(lambda: _document(open_object(storage, stored, _MAX_DOCUMENT_BYTES)))
    if not data.startswith(b"%PDF"):
        raise PictureNotPossible("The encapsulated document is not a PDF.")
    try:
        with PdfDocument(data) as document:
            pages = len(document)
            if not 0 <= page < pages:
                raise PictureNotPossible(f"The document has {pages} pages.")
            shown = document[page]
            scale = min(_PAGE_SCALE, _MAX_SIDE / max(shown.get_width(), shown.get_height(), 1.0))
            picture = shown.render(scale=scale, rev_byteorder=True, prefer_bgrx=False).to_numpy()[..., :3]
            return Picture(_png(picture), 1, pages)
    except PdfiumError:
        raise PictureNotPossible("The PDF cannot be rendered.") from None


def _document(file: BinaryIO) -> bytes:
    from pydicom import dcmread

    document = dcmread(file, force=True).get("EncapsulatedDocument", b"")
    return document if isinstance(document, bytes) else b""


class _Image:
    """Decodes frames of an image for display."""

    def __init__(self, storage: ObjectStore, stored: SourceObject, window: Window | None) -> None:
        self._file = open_object(storage, stored, _MAX_READ)
        self._header = _guarded(lambda: _image_header(storage, stored))
        self._window = window
        rows, columns = (int(self._header.get(name) or 0) for name in ("Rows", "Columns"))
        bits = int(self._header.get("BitsAllocated") or 8) * int(self._header.get("SamplesPerPixel") or 1)
        if not rows * columns:
            raise PictureNotPossible("The object is not an image.")
        if rows * columns * max(bits, 8) // 8 > _MAX_FRAME_BYTES:
            raise PictureNotPossible(f"A frame of {columns} x {rows} pixels is too large to show here.")
        self.frames = max(1, int(self._header.get("NumberOfFrames") or 1))

    def displayed(self, indices: Sequence[int]) -> Iterator[Display]:
        """Yield frames as grey or RGB pictures, those that can be decoded."""
        from pydicom.pixels.utils import iter_pixels

        frames = iter(iter_pixels(self._file, indices=indices))

        def show_next() -> Display | None:
            frame = next(frames, None)
            return None if frame is None else _display(frame, self._header, self._window)

        while (shown := _guarded(show_next)) is not None:
            yield shown


def _image_header(storage: ObjectStore, stored: SourceObject) -> Dataset:
    from pydicom.filereader import read_partial

    file = open_object(storage, stored, MAX_HEADER_BYTES)
    return read_partial(file, stop_when=lambda tag, _vr, _length: int(tag) >= _PIXEL_DATA, force=True)


def _guarded(action: Callable[[], Result]) -> Result:
    """Call `action`; messages of pydicom and codecs, which may hold values, become one of our own."""
    try:
        return action()
    except PictureNotPossible:
        raise
    except Quarantine as quarantine:
        if quarantine.reason in (Reason.OBJECT_CHANGED, Reason.OBJECT_VANISHED):
            raise PictureNotPossible("The object was changed or deleted at the source.") from None
        raise PictureNotPossible("The object is too large to show here.") from None
    except DicomDeidError:
        raise
    except ImportError:
        raise PictureNotPossible("A codec is missing: install the extra `codecs`.") from None
    except Exception:
        raise PictureNotPossible("The pixel data cannot be decoded.") from None


def _display(frame: NDArray[Any], header: Dataset, window: Window | None) -> Display:
    import numpy as np

    photometric = str(header.get("PhotometricInterpretation") or "")
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        frame = apply_color_lut(frame, header)[..., :3]
        return np.asarray(frame >> 8 if frame.dtype.itemsize > 1 else frame, dtype=np.uint8)
    if frame.ndim == 3:
        return np.asarray(frame if frame.dtype == np.uint8 else frame >> (8 * (frame.dtype.itemsize - 1)), np.uint8)
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    low, high = _limits(frame, slope, intercept, header, window)
    sign = -1 if photometric == "MONOCHROME1" else 1

    def scale(values: NDArray[Any]) -> Display:
        scaled = (values.astype(np.float32) * slope + (intercept - low)) * (sign * 255.0 / (high - low))
        return np.asarray(np.clip(scaled + (0 if sign > 0 else 255), 0, 255), np.uint8)

    if frame.dtype.kind in "iu" and frame.dtype.itemsize <= 2:
        # A table of all values costs less than arithmetic on every pixel.
        least, most = int(frame.min()), int(frame.max())
        table = scale(np.arange(least, most + 1))
        return np.asarray(table[frame.astype(np.int32) - least if least else frame], np.uint8)
    return scale(frame)


def _limits(
    frame: NDArray[Any], slope: float, intercept: float, header: Dataset, window: Window | None
) -> tuple[float, float]:
    if window is None:
        width = _number(header, "WindowWidth", 0.0)
        window = Window(_number(header, "WindowCenter", 0.0), width) if width > 0 else None
    if window is not None:
        width = max(window.width, 1e-6)
        return window.center - width / 2, window.center + width / 2
    low, high = sorted(float(value) * slope + intercept for value in (frame.min(), frame.max()))
    return low, high if high > low else low + 1


def _number(header: Dataset, keyword: str, default: float) -> float:
    value = header.get(keyword)
    if value is None or value == "":
        return default
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "__len__") else value)


class _Combined:
    """Combines pictures of one size."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._value: NDArray[Any] | None = None
        self._count = 0

    def add(self, picture: Display) -> bool:
        """Add a picture; return False if it has another size than those before."""
        import numpy as np

        if self._value is None:
            self._value = picture.astype(np.float32 if self._projection is Projection.MEAN else np.uint8)
        elif self._value.shape != picture.shape:
            return False
        elif self._projection is Projection.MEAN:
            self._value += picture
        else:
            combine = np.maximum if self._projection is Projection.MAXIMUM else np.minimum
            combine(self._value, picture, out=self._value)
        self._count += 1
        return True

    def result(self) -> Display:
        """Return the projection."""
        import numpy as np

        if self._value is None:
            raise PictureNotPossible("There is no frame to show.")
        if self._projection is Projection.MEAN:
            return np.asarray(self._value / self._count, dtype=np.uint8)
        return np.asarray(self._value, dtype=np.uint8)


def _sample(count: int, limit: int) -> list[int]:
    """Return at most `limit` indices, evenly spread."""
    if count <= limit:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def _png(picture: Display) -> bytes:
    """Encode a grey or RGB picture (ISO/IEC 15948)."""
    import numpy as np

    step = -(-max(picture.shape[:2]) // _MAX_SIDE)
    picture = np.ascontiguousarray(picture[::step, ::step])
    rows, columns = picture.shape[:2]
    lines = np.zeros((rows, 1 + picture[0].size), np.uint8)
    lines[:, 1:] = picture.reshape(rows, -1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2 if picture.ndim == 3 else 0, 0, 0, 0)
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines.data, 1)), (b"IEND", b"")):
        file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
    return file.getvalue()
