"""torchvision's compiled operators, or None where they are missing.

The wheel of the package index does not load beside a CPU build of torch.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

nms: Any = None
roi_align: Any = None
# Not there, or made for another torch; it also warns of codecs that nobody here needs.
with contextlib.suppress(ImportError, RuntimeError, OSError), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchvision import ops

    nms, roi_align = ops.nms, ops.roi_align
