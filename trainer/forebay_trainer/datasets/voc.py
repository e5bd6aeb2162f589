"""PASCAL VOC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay_trainer.datasets.xml_style import XMLDataset
from forebay_trainer.registry import DATASETS

if TYPE_CHECKING:
    from collections.abc import Sequence


@DATASETS.register_module()
class VOCDataset(XMLDataset):
    """VOC2007 or VOC2012, whichever the path of the images names."""

    CLASSES: Sequence[str] | None = (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
        *("train", "tvmonitor"),
    )
    PALETTE: Sequence[tuple[int, int, int]] | None = (
        *((106, 0, 228), (119, 11, 32), (165, 42, 42), (0, 0, 192), (197, 226, 255), (0, 60, 100)),
        *((0, 0, 142), (255, 77, 255), (153, 69, 1), (120, 166, 157), (0, 182, 199)),
        *((0, 226, 252), (182, 182, 255), (0, 0, 230), (220, 20, 60), (163, 255, 0), (0, 82, 0)),
        *((3, 95, 161), (0, 80, 100), (183, 130, 88)),
    )
    _ends_with_last_pixel = True

    def __init__(self, **arguments: Any) -> None:
        """Read the annotations; *arguments* are those of XMLDataset."""
        super().__init__(**arguments)
        years = [year for year in (2007, 2012) if f"VOC{year}" in (self.img_prefix or "")]
        if not years:
            raise ValueError(f"img_prefix {self.img_prefix!r} has no VOC2007 or VOC2012 in it")
        self.year = years[0]
        self._has_11_points = self.year == 2007
