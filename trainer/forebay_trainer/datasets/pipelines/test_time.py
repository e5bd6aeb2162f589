"""The same image several times: in different sizes, and flipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forebay_trainer.datasets.pipelines.compose import Compose
from forebay_trainer.datasets.pipelines.sample import listed
from forebay_trainer.datasets.pipelines.shape import scales
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forebay_trainer.datasets.pipelines.sample import Results


@PIPELINES.register_module()
@dataclass
class MultiScaleFlipAug:
    """Apply ``transforms`` for each ``img_scale`` or ``scale_factor``; with ``flip`` flipped, too.

    The result has a list under each key, with an element for each; the unflipped one is first.
    """

    transforms: Sequence[Mapping[str, Any]]
    img_scale: Any = None
    scale_factor: float | Sequence[float] | None = None
    flip: bool = False
    flip_direction: str | Sequence[str] = "horizontal"

    def __post_init__(self) -> None:
        if (self.img_scale is None) == (self.scale_factor is None):
            raise ValueError("MultiScaleFlipAug takes one of img_scale and scale_factor")
        self._transform = Compose(self.transforms)
        self._sizes: list[dict[str, Any]]
        if self.scale_factor is None:
            self._sizes = [{"scale": each} for each in scales(self.img_scale)]
        else:
            self._sizes = [{"scale_factor": each} for each in listed(self.scale_factor)]
        directions = listed(self.flip_direction)
        self._flips: list[dict[str, Any]] = [{"flip": False, "flip_direction": None}]
        if self.flip:
            self._flips += [{"flip": True, "flip_direction": each} for each in directions]

    def __call__(self, results: Results) -> Results | None:
        variants = [
            self._transform({**results, **size, **flip})
            for size in self._sizes
            for flip in self._flips
        ]
        kept = [each for each in variants if each is not None]
        return {key: [each[key] for each in kept] for key in kept[0]} if kept else None
