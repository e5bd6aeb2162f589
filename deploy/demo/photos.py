"""The demo's data set: crops of the photographs that scikit-image ships, always the same."""

from __future__ import annotations

import io
import random
from importlib.resources import files
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
_SIZE = (640, 480)
_QUALITY = 93  # some 100 KB a file
_LARGEST_CROP, _SMALLEST_CROP = 1.0, 0.6  # of the photograph's sides


def photos(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield name and JPEG of each photo, in order: "0000.jpg" and so on."""
    dice = random.Random(seed)  # noqa: S311  # the same photos every time
    for number, photo in enumerate(crops(PHOTOGRAPHS, count, _SIZE, dice)):
        yield f"{number:04}.jpg", jpeg(photo)


def crops(
    photographs: Sequence[str], count: int, size: tuple[int, int], dice: random.Random
) -> Iterator[Image.Image]:
    """Yield *count* crops of the photographs in turn, each of *size* (width, height) in pixels."""
    folder = files("skimage.data")
    sources = []
    for name in photographs:
        with folder.joinpath(name).open("rb") as file, Image.open(file) as image:
            sources.append(image.convert("RGB"))
    for number in range(count):
        source = sources[number % len(sources)]
        share = dice.uniform(_SMALLEST_CROP, _LARGEST_CROP)
        width, height = int(source.width * share), int(source.height * share)
        left = dice.randint(0, source.width - width)
        top = dice.randint(0, source.height - height)
        crop = source.resize(size, box=(left, top, left + width, top + height))
        yield ImageOps.mirror(crop) if dice.random() < 0.5 else crop


def jpeg(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()
