"""Changes to pipelines."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def replace_ImageToTensor(pipelines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a test pipeline for batches of more than one image, which have to be padded.

    ImageToTensor gives plain tensors, and DefaultFormatBundle takes its place.
    """
    changed: list[dict[str, Any]] = []
    for step in copy.deepcopy(list(pipelines)):
        if step["type"] == "ImageToTensor":
            changed.append({"type": "DefaultFormatBundle"})
        elif "transforms" in step:
            changed.append({**step, "transforms": replace_ImageToTensor(step["transforms"])})
        else:
            changed.append(dict(step))
    return changed
