"""Decode compressed pixel data frame by frame, and encode it again without loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.engine.pixels.layout import PIXEL_DATA, Layout
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

_LIBJPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
_JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
_RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_OPENJPEG = (_JPEG_2000_LOSSLESS, *(f"1.2.840.10008.1.2.4.{last}" for last in (91, 201, 202, 203)))

# One decoder per transfer syntax, whatever else is installed: the same object must give the same bytes everywhere.
_DECODERS = dict.fromkeys((*_LIBJPEG, *_OPENJPEG, _RLE_LOSSLESS), "pylibjpeg") | dict.fromkeys(
    (_JPEG_LS_LOSSLESS, "1.2.840.10008.1.2.4.81"), "pyjpegls"
)
_ENCODERS = {_JPEG_LS_LOSSLESS: "pyjpegls", _JPEG_2000_LOSSLESS: "pylibjpeg", _RLE_LOSSLESS: "pylibjpeg"}

LOSSY = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (50, 51, 81, 203))
"""Transfer syntaxes that are always lossy."""

_LARGEST_OFFSET = 2**32 - 1


def can_decode(transfer_syntax_uid: str) -> bool:
    """Return whether frames of a transfer syntax can be decoded if the codecs are installed."""
    return transfer_syntax_uid in _DECODERS


def can_encode(transfer_syntax_uid: str) -> bool:
    """Return whether frames can be encoded in a transfer syntax without loss."""
    return transfer_syntax_uid in _ENCODERS


def decode(
    data: bytes | memoryview, header: Dataset, layout: Layout, transfer_syntax_uid: str
) -> tuple[list[bytes], Layout]:
    """Decode every frame.

    Colours are not converted: YBR stays YBR, with a colour for every pixel.

    Returns
    -------
    list of bytes, Layout
        The frames, little endian and interleaved by pixel; and their layout, without `black`.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if the codec is missing or cannot decode all frames of NumberOfFrames.
    """
    try:
        decoded = _decode(bytes(data), layout, transfer_syntax_uid, _extended_offsets(header))
    except Exception:  # codecs raise any exception, and messages may hold values
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA) from None
    frames = [frame for frame, _ in decoded]
    layouts = {properties for _, properties in decoded}
    if len(frames) < layout.frames or len(layouts) != 1:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    (found,) = layouts
    if any(len(frame) * 8 != found.frame_bits for frame in frames):
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    return frames, found.replace(frames=len(frames))


def _decode(
    data: bytes, layout: Layout, transfer_syntax_uid: str, offsets: tuple[bytes, bytes] | None = None
) -> list[tuple[bytes, Layout]]:
    """Return each frame with the layout that the codec reports."""
    return [
        (_little_endian(array), _decoded_layout(layout, properties))
        for array, properties in _decoder(data, layout, transfer_syntax_uid, offsets)
    ]


def _decoder(
    data: bytes,
    layout: Layout,
    transfer_syntax_uid: str,
    offsets: tuple[bytes, bytes] | None = None,
    vr: str = "OB",
    *,
    unused_bits: bool = False,
) -> Iterator[tuple[NDArray[Any], dict[str, Any]]]:
    """Return pydicom's iterator over frames as arrays of stored values, without colour conversion."""
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {"correct_unused_bits": False} if unused_bits else {}
    return get_decoder(transfer_syntax_uid).iter_array(
        data,
        raw=True,
        decoding_plugin=_DECODERS.get(transfer_syntax_uid, ""),
        number_of_frames=layout.frames,
        planar_configuration=int(layout.planar),
        pixel_keyword="PixelData",
        pixel_vr=vr,
        **_options(layout),
        **options,
        extended_offsets=offsets,
    )


def _extended_offsets(header: Dataset) -> tuple[bytes, bytes] | None:
    """Return the Extended Offset Table and its lengths (PS3.3 section C.7.6.3.1.8), if present."""
    table, lengths = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    return (table, lengths) if table and lengths else None


def _little_endian(array: Any) -> bytes:
    frame: bytes = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return frame


def _decoded_layout(layout: Layout, properties: dict[str, Any]) -> Layout:
    """Return the layout of a decoded frame."""
    photometric = str(properties["photometric_interpretation"])
    photometric = {"YBR_FULL_422": "YBR_FULL", "YBR_ICT": "RGB", "YBR_RCT": "RGB"}.get(photometric, photometric)
    allocated, stored = int(properties["bits_allocated"]), int(properties["bits_stored"])
    return layout.replace(
        rows=int(properties["rows"]),
        columns=int(properties["columns"]),
        samples=int(properties["samples_per_pixel"]),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1,
        photometric=photometric,
        planar=False,
        black=(),
    )


def _options(layout: Layout) -> dict[str, Any]:
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": layout.photometric,
    }


def iterate(
    data: bytes | memoryview,
    header: Dataset,
    layout: Layout,
    transfer_syntax_uid: str,
    vr: str,
    *,
    unused_bits: bool = False,
) -> Iterator[tuple[NDArray[Any], str]]:
    """Yield the samples and the photometric interpretation of each frame, uncompressed or compressed.

    Parameters
    ----------
    unused_bits
        Whether the bits beyond BitsStored stay in the samples as they are.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if the codec is missing or cannot decode all frames of NumberOfFrames.
    """
    count = 0
    try:
        offsets = _extended_offsets(header)
        decoder = _decoder(bytes(data), layout, transfer_syntax_uid, offsets, vr, unused_bits=unused_bits)
        for array, properties in decoder:
            count += 1
            yield array, str(properties["photometric_interpretation"])
    except Quarantine:
        raise
    except Exception:  # codecs raise any exception, and messages may hold values
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA) from None
    if count < layout.frames:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)


def encode(frames: Sequence[bytes], layout: Layout, transfer_syntax_uid: str) -> bytes | None:
    """Encode frames without loss and verify the result.

    Parameters
    ----------
    frames
        As returned by `decode`.
    layout
        Layout of the frames.
    transfer_syntax_uid
        A transfer syntax for which `can_encode` is true.

    Returns
    -------
    bytes or None
        Basic offset table and one fragment per frame, without the sequence delimitation item (PS3.5 section A.4); None
        if the encoder fails or decoding gives other frames.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels.encoders.base import get_encoder

    encoder = get_encoder(transfer_syntax_uid)
    options = _options(layout) | {"number_of_frames": 1}
    if layout.samples > 1:
        options["planar_configuration"] = 0
    try:
        encoded = [encoder.encode(frame, encoding_plugin=_ENCODERS[transfer_syntax_uid], **options) for frame in frames]
        value = encapsulate(encoded, has_bot=sum(map(len, encoded)) + 8 * len(encoded) < _LARGEST_OFFSET)
        again = _decode(value, layout.replace(frames=len(frames)), transfer_syntax_uid)
    except Exception:  # codecs raise any exception; the frames can still be written uncompressed
        return None
    return value if [frame for frame, _ in again] == list(frames) else None
