"""Images read and written by path or URI, for what people look at."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from forebay_trainer.files import Files

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class ImageError(ValueError):
    """Bytes that OpenCV makes no image of."""


def image_files(dataset: Any) -> Files:
    """Return where the pipeline of a data set's configuration reads its images from."""
    while isinstance(dataset, (list, tuple)) or "pipeline" not in dataset:
        dataset = dataset[0] if isinstance(dataset, (list, tuple)) else dataset["dataset"]
    given = [step["file_client_args"] for step in dataset["pipeline"] if "file_client_args" in step]
    return Files.of(given[0] if given else None)


def read_image(path: str, files: Files, flag: int = cv2.IMREAD_COLOR) -> np.ndarray[Any, Any]:
    """Return an image (height, width, 3), BGR, or as OpenCV's *flag* for decoding says."""

    def decode(data: memoryview) -> Any:
        # An empty buffer is an error of OpenCV's, other bad ones are None.
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag) if len(data) else None

    image: np.ndarray[Any, Any] | None = files.apply(path, decode)
    if image is None:
        raise ImageError(f"{path} is no image that OpenCV can decode")
    return image


def write_image(path: str, image: np.ndarray[Any, Any]) -> None:
    """Write an image in the format that its name ends with; as PNG if that is none."""
    suffix = "." + path.rpartition(".")[2].lower()
    encoded = cv2.imencode(suffix if suffix in _SUFFIXES else ".png", image)[1]
    Files().put(path, encoded.tobytes())
