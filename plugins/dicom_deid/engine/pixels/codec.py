"""Decode compressed pixel data frame by frame, and encode it again without loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.engine.pixels.codestream import read_codestream
from dicom_deid.engine.pixels.jpeg import blank_jpeg
from dicom_deid.engine.pixels.layout import PIXEL_DATA, Layout
from dicom_deid.engine.pixels.regions import Band
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
# Encoders that pydicom has no plugin for: imagecodecs, in the extra `codecs`.
_HTJ2K_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"})
_JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_BY_IMAGECODECS = _HTJ2K_LOSSLESS | _JPEG_LOSSLESS

LOSSY = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (50, 51, 81, 203))
"""Transfer syntaxes that are always lossy."""

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_WITH_FRAME_HEADER = frozenset(_DECODERS) - {_RLE_LOSSLESS}

LARGEST_DECODED = 2**31
"""Bytes of all frames of an image, decoded, beyond which it is quarantined."""

_LARGEST_OFFSET = 2**32 - 1

_END_OF_JPEG = b"\xff\xd9"
_FILL = b"\0\xff"


JPEG_SEQUENTIAL = frozenset({"1.2.840.10008.1.2.4.50", _JPEG_EXTENDED})
"""Transfer syntaxes whose frames can be blanked without decoding."""


def blank_coefficients(
    data: bytes | memoryview, header: Dataset, layout: Layout, transfer_syntax_uid: str, blanked: Sequence[Band]
) -> bytes | None:
    """Blank JPEG frames without decoding them, see `blank_jpeg`.

    Returns
    -------
    bytes or None
        Basic offset table and fragments, without the sequence delimitation item; None if the frames must be decoded.

    Raises
    ------
    Quarantine
        As for `as_encoded`.
    """
    from pydicom.encaps import encapsulate, generate_frames

    value, offsets = bytes(data), _extended_offsets(header)
    as_encoded(value, layout, transfer_syntax_uid, offsets)
    frames = list(generate_frames(value, number_of_frames=layout.frames, extended_offsets=offsets))
    if len(frames) < layout.frames:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    cleaned = blank_jpeg(frames, layout, blanked)
    if cleaned is None:
        return None
    return encapsulate(cleaned, has_bot=sum(map(len, cleaned)) + 8 * len(cleaned) < _LARGEST_OFFSET)


def can_decode(transfer_syntax_uid: str) -> bool:
    """Return whether frames of a transfer syntax can be decoded if the codecs are installed."""
    return transfer_syntax_uid in _DECODERS


def decoding_plugin(transfer_syntax_uid: str) -> str:
    """Return pydicom's name of the decoder of a transfer syntax; empty if pixels are uncompressed."""
    return _DECODERS.get(transfer_syntax_uid, "")


def can_encode(transfer_syntax_uid: str) -> bool:
    """Return whether frames can be encoded in a transfer syntax without loss."""
    return transfer_syntax_uid in _ENCODERS or transfer_syntax_uid in _BY_IMAGECODECS


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
    value = bytes(data)
    offsets = _extended_offsets(header)
    layout = as_encoded(value, layout, transfer_syntax_uid, offsets)
    try:
        decoded = _decode(value, layout, transfer_syntax_uid, offsets)
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


def as_encoded(
    data: bytes, layout: Layout, transfer_syntax_uid: str, offsets: tuple[bytes, bytes] | None = None
) -> Layout:
    """Compare what compressed frames state with the header, before anything is decoded.

    Returns
    -------
    Layout
        The layout with BitsStored raised to the precision of the frames: decoders return all of their bits.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if a frame has another size than Rows and Columns, or decoding would take more memory
        than `LARGEST_DECODED`.
    """
    if layout.frame_bits * layout.frames > 8 * LARGEST_DECODED:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, f"{PIXEL_DATA} is larger than {LARGEST_DECODED} bytes decoded")
    if transfer_syntax_uid not in _WITH_FRAME_HEADER:
        return layout
    from pydicom.encaps import generate_frames

    is_jpeg = transfer_syntax_uid in _LIBJPEG
    try:
        frames = generate_frames(data, number_of_frames=layout.frames, extended_offsets=offsets)
        # libjpeg decodes a truncated frame without an error.
        found = {
            None if is_jpeg and not frame.rstrip(_FILL).endswith(_END_OF_JPEG) else read_codestream(frame)
            for frame in frames
        }
    except Exception:  # pydicom raises many kinds for data that are not encapsulated frames
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA) from None
    (stated,) = found if len(found) == 1 else (None,)
    if stated is None or (stated.rows, stated.columns, stated.components) != (
        layout.rows,
        layout.columns,
        layout.samples,
    ):
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, f"{PIXEL_DATA} has frames of another size than Rows and Columns")
    if layout.bits_stored < stated.precision <= layout.bits_allocated:
        return layout.replace(bits_stored=stated.precision, high_bit=stated.precision - 1)
    return layout


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
    """Iterate over frames as arrays of stored values, without colour conversion."""
    if transfer_syntax_uid == _JPEG_EXTENDED and layout.bits_stored > 8:
        return _gdcm_frames(data, layout, offsets)
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {"correct_unused_bits": False} if unused_bits else {}
    return get_decoder(transfer_syntax_uid).iter_array(
        data,
        raw=True,
        decoding_plugin=decoding_plugin(transfer_syntax_uid),
        number_of_frames=layout.frames,
        planar_configuration=int(layout.planar),
        pixel_keyword="PixelData",
        pixel_vr=vr,
        **_options(layout),
        **options,
        extended_offsets=offsets,
    )


def _gdcm_frames(
    data: bytes, layout: Layout, offsets: tuple[bytes, bytes] | None
) -> Iterator[tuple[NDArray[Any], dict[str, Any]]]:
    """Decode JPEG Extended frames of 12 bits with GDCM, which accepts scan headers that libjpeg rejects."""
    import gdcm
    import numpy as np
    from pydicom.encaps import generate_frames

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    syntax = gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(_JPEG_EXTENDED))
    kind = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(layout.photometric))
    pixel_format = gdcm.PixelFormat(layout.samples, 16, layout.bits_stored, layout.bits_stored - 1, int(layout.signed))
    for frame in generate_frames(data, number_of_frames=layout.frames, extended_offsets=offsets):
        fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
        fragment.SetByteStringValue(frame)
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((layout.columns, layout.rows, 1))
        image.SetDataElement(element)
        image.SetPhotometricInterpretation(kind)
        image.SetTransferSyntax(syntax)
        image.SetPixelFormat(pixel_format)
        # GDCM returns bytes as text.
        decoded = image.GetBuffer().encode("utf-8", "surrogateescape")
        shape = (layout.rows, layout.columns) + ((layout.samples,) if layout.samples > 1 else ())
        yield np.frombuffer(decoded, "<i2" if layout.signed else "<u2").reshape(shape), _options(layout)


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
    value = bytes(data)
    offsets = _extended_offsets(header)
    if can_decode(transfer_syntax_uid):
        layout = as_encoded(value, layout, transfer_syntax_uid, offsets)
    try:
        decoder = _decoder(value, layout, transfer_syntax_uid, offsets, vr, unused_bits=unused_bits)
        for array, properties in decoder:
            count += 1
            yield array, str(properties["photometric_interpretation"])
    except Quarantine:
        raise
    except Exception:  # codecs raise any exception, and messages may hold values
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA) from None
    if count < layout.frames:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)


def encode(frames: Sequence[bytes], layout: Layout, transfer_syntax_uid: str) -> tuple[bytes, Layout] | None:
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
    tuple of bytes and Layout, or None
        Basic offset table and one fragment per frame, without the sequence delimitation item (PS3.5 section A.4), and
        the layout, with BitsStored as the codestream states it; None if the encoder is missing or fails, or decoding
        gives other frames.
    """
    from pydicom.encaps import encapsulate

    if transfer_syntax_uid in _HTJ2K_LOSSLESS or (transfer_syntax_uid in _JPEG_LOSSLESS and layout.signed):
        # These encoders write all bits of the samples.
        layout = layout.replace(bits_stored=layout.bits_allocated, high_bit=layout.bits_allocated - 1)
    encode_frame = _by_imagecodecs if transfer_syntax_uid in _BY_IMAGECODECS else _by_pydicom
    try:
        encoded = [encode_frame(frame, layout, transfer_syntax_uid) for frame in frames]
        value = encapsulate(encoded, has_bot=sum(map(len, encoded)) + 8 * len(encoded) < _LARGEST_OFFSET)
        again = _decode(value, layout.replace(frames=len(frames)), transfer_syntax_uid)
    except Exception:  # codecs raise any exception; the frames can still be written uncompressed
        return None
    return (value, layout) if [frame for frame, _ in again] == list(frames) else None


def _by_pydicom(frame: bytes, layout: Layout, transfer_syntax_uid: str) -> bytes:
    from pydicom.pixels.encoders.base import get_encoder

    options = _options(layout) | {"number_of_frames": 1}
    if layout.samples > 1:
        options["planar_configuration"] = 0
    return get_encoder(transfer_syntax_uid).encode(frame, encoding_plugin=_ENCODERS[transfer_syntax_uid], **options)


def _by_imagecodecs(frame: bytes, layout: Layout, transfer_syntax_uid: str) -> bytes:
    """Encode a frame as HTJ2K, in progression RPCL with tile-part lengths, or as lossless JPEG of selection value 1."""
    import imagecodecs
    import numpy as np

    size = layout.bits_allocated // 8
    shape = (layout.rows, layout.columns) + ((layout.samples,) if layout.samples > 1 else ())
    if transfer_syntax_uid in _HTJ2K_LOSSLESS:
        samples = np.frombuffer(frame, f"<{'i' if layout.signed else 'u'}{size}").reshape(shape)
        return bytes(imagecodecs.htj2k_encode(samples, reversible=True, tlm=True, rgb=False))
    samples = np.frombuffer(frame, f"<u{size}").reshape(shape)
    if layout.samples > 1 and layout.photometric != "RGB":
        raise ValueError("The encoder marks colours as RGB.")
    # Without the names of colour spaces the encoder would convert the samples.
    space = "RGB" if layout.samples > 1 else "GRAYSCALE"
    encoded = imagecodecs.jpeg8_encode(
        samples,
        lossless=True,
        predictor=1,
        bitspersample=layout.bits_stored,
        colorspace=space,
        outcolorspace=space,
    )
    return bytes(encoded)
