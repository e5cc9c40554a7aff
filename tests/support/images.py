"""Generated images: random samples in every layout, and pictures with text planted where it is known.

Nothing here is a picture of a person: backgrounds are drawn, names and numbers are drawn at random.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""

MODALITIES = ("CT", "MR", "US", "CR", "XA", "SC")

_SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
}
_MULTI_FRAME_CLASSES = {"US": "1.2.840.10008.5.1.4.1.1.3.1", "SC": "1.2.840.10008.5.1.4.1.1.7.2"}


@dataclass(frozen=True)
class PlantedImage:
    """A data set with PixelData, and the places of the text in its frames."""

    dataset: Dataset
    boxes: tuple[Box, ...]
    texts: tuple[str, ...]


def random_identifier(rng: random.Random) -> str:
    """Return a line as devices burn it in: a name, an identifier, a date or a time."""
    letters = string.ascii_uppercase
    name = "".join(rng.choice(letters) for _ in range(rng.randint(4, 8)))
    given = rng.choice(letters) + "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 6)))
    year, month, day = rng.randint(1930, 2024), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice(
        (
            f"{name}, {given}",
            f"ID {rng.randint(10**6, 10**8)}",
            f"MRN: {rng.randint(10**5, 10**7)}",
            f"{year}-{month:02}-{day:02}",
            f"DOB {day:02}/{month:02}/{year}",
            f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}",
            f"Dr. {given} {name}",
        )
    )


def background(rng: random.Random, modality: str, rows: int, columns: int) -> NDArray[np.float64]:
    """Draw something like an image of a modality, brightness 0 to 1."""
    noise = np.random.default_rng(rng.getrandbits(32))
    y, x = np.mgrid[0:rows, 0:columns]
    across, down = x / columns - 0.5, y / rows - 0.5
    radius = np.hypot(across, down)
    match modality:
        case "US":
            depth = np.hypot(across, down + 0.5)
            fan = (np.abs(np.arctan2(across, down + 0.5)) < 0.65) & (depth < 0.9) & (depth > 0.12)
            speckle = noise.rayleigh(0.18, (rows, columns)) * (1 - 0.6 * depth)
            return np.where(fan, np.clip(speckle, 0, 1), 0.0)
        case "SC":
            return np.full((rows, columns), 0.93)
        case "CR":
            field = 0.75 - 0.5 * np.exp(-(((across * 3) ** 2 + (down * 2) ** 2) ** 2))
            return np.clip(field + noise.normal(0, 0.02, (rows, columns)), 0, 1)
        case "XA":
            field = 0.6 + 0.2 * across - 0.3 * np.exp(-((across * 5 + np.sin(down * 9)) ** 2) * 6)
            return np.clip(field + noise.normal(0, 0.02, (rows, columns)), 0, 1)
        case "MR":
            head = np.where(radius < 0.38, 0.35 + 0.2 * np.cos(across * 25) * np.sin(down * 21), 0.02)
            return np.clip(head + np.abs(noise.normal(0, 0.03, (rows, columns))), 0, 1)
        case _:
            body = np.where(np.hypot(across, down * 1.3) < 0.42, 0.45, 0.02)
            for _ in range(12):
                cx, cy, size = rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2), rng.uniform(0.02, 0.1)
                body = np.where(np.hypot(across - cx, down - cy) < size, rng.uniform(0.1, 0.9), body)
            return np.clip(body + noise.normal(0, 0.03, (rows, columns)), 0, 1)


def plant_text(
    rng: random.Random, picture: NDArray[np.float64], *, size: int, contrast: float, lines: int
) -> tuple[NDArray[np.float64], tuple[Box, ...], tuple[str, ...]]:
    """Write lines where they overlap nothing else that was written.

    Parameters
    ----------
    rng
        Draws texts and places.
    picture
        Brightness 0 to 1.
    size
        Height of a capital letter to the foot of a small one, about, in pixels.
    contrast
        Difference of brightness between the letters and what they stand on, as far as brightness goes.
    lines
        How many; fewer when there is no room.
    """
    rows, columns = picture.shape
    font = ImageFont.load_default(size)
    picture = picture.copy()
    boxes: list[Box] = []
    texts = []
    for _ in range(lines * 20):
        if len(boxes) == lines:
            break
        text = random_identifier(rng)
        left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
        width, height = right - left, bottom - top
        if width + 8 >= columns or height + 8 >= rows:
            continue
        at_x, at_y = rng.randint(4, columns - width - 4), rng.randint(4, rows - height - 4)
        box = (at_x, at_y, at_x + width, at_y + height)
        if any(_near(box, other, size) for other in boxes):
            continue
        under = picture[box[1] : box[3], box[0] : box[2]]
        ground = float(under.mean())
        ink = float(np.clip(ground + contrast if ground + contrast <= 1 else ground - contrast, 0, 1))
        if float(np.percentile(np.abs(under - ink), 10)) < contrast / 2:
            continue  # on an edge of the anatomy, where nobody could read it
        canvas = Image.new("L", (columns, rows))
        ImageDraw.Draw(canvas).text((at_x - left, at_y - top), text, fill=255, font=font)
        alpha = np.asarray(canvas) / 255.0
        picture = picture * (1 - alpha) + ink * alpha
        boxes.append(box)
        texts.append(text)
    return picture, tuple(boxes), tuple(texts)


def _near(one: Box, other: Box, gap: int) -> bool:
    return one[0] < other[2] + gap and other[0] < one[2] + gap and one[1] < other[3] + gap and other[1] < one[3] + gap


def planted_image(
    seed: int,
    *,
    modality: str = "US",
    rows: int = 480,
    columns: int = 640,
    size: int = 16,
    contrast: float = 0.8,
    lines: int = 4,
    photometric: str = "MONOCHROME2",
    bits: int = 8,
    signed: bool = False,
    frames: int = 1,
) -> PlantedImage:
    """Make an image of a modality with identifiers burned in, the same in every frame."""
    rng = random.Random(seed)
    pictures = [background(rng, modality, rows, columns) for _ in range(frames)]
    empty = np.zeros((rows, columns))
    written, boxes, texts = plant_text(rng, pictures[0], size=size, contrast=contrast, lines=lines)
    for box in boxes:
        empty[box[1] : box[3], box[0] : box[2]] = 1
    pictures = [np.where(empty > 0, written, picture) for picture in pictures]
    stored = np.stack([_stored(picture, photometric, bits, signed=signed) for picture in pictures])
    dataset = image_dataset(
        stored.tobytes(),
        modality=modality,
        rows=rows,
        columns=columns,
        frames=frames,
        photometric=photometric,
        bits_allocated=8 if bits <= 8 else 16,
        bits_stored=bits,
        signed=signed,
    )
    if photometric == "PALETTE COLOR":
        add_palette(dataset)
    return PlantedImage(dataset, boxes, texts)


def _stored(picture: NDArray[np.float64], photometric: str, bits: int, *, signed: bool) -> NDArray[np.generic]:
    dtype = np.dtype("int16" if signed else "uint16") if bits > 8 else np.dtype("int8" if signed else "uint8")
    most = (1 << bits) - 1
    least = -(1 << (bits - 1)) if signed else 0
    if photometric in ("MONOCHROME1", "PALETTE COLOR"):
        picture = 1 - picture
    values = (np.round(picture * most) + least).astype(dtype)
    if photometric == "RGB":
        return np.stack([values] * 3, axis=-1)
    if photometric == "YBR_FULL":
        colour = np.full_like(values, 1 << (bits - 1))
        return np.stack([values, colour, colour], axis=-1)
    return values


def add_palette(dataset: Dataset) -> None:
    """Add a palette in which a higher index is darker."""
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = np.arange(255, -1, -1, dtype="<u2") * 257
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table.tobytes())


def image_dataset(
    pixel_data: bytes,
    *,
    rows: int,
    columns: int,
    modality: str = "US",
    frames: int = 1,
    photometric: str = "MONOCHROME2",
    bits_allocated: int = 8,
    bits_stored: int | None = None,
    signed: bool = False,
    planar: int = 0,
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY"),
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> Dataset:
    """Wrap samples in the least data set that readers accept."""
    stored = bits_stored or bits_allocated
    classes = _SOP_CLASSES | (_MULTI_FRAME_CLASSES if frames > 1 else {})
    dataset = Dataset()
    dataset.SOPClassUID = UID(classes[modality])
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.ImageType = list(image_type)
    dataset.PatientID = "0"
    dataset.PatientName = "Generated^Image"
    dataset.Rows, dataset.Columns = rows, columns
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel = 1 if photometric.startswith(("MONO", "PALETTE")) else 3
    dataset.PhotometricInterpretation = photometric
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = planar
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits_allocated, stored, stored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.add_new(0x7FE00010, "OW" if bits_allocated > 8 else "OB", pixel_data + bytes(len(pixel_data) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def header_of(dataset: Dataset) -> Dataset:
    """Return the data set without its PixelData."""
    header = Dataset()
    header.update({element.tag: element for element in dataset if element.tag != 0x7FE00010})
    return header
