"""A list of transforms as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forebay_trainer.datasets.pipelines.sample import Results

    Transform = Callable[[Results], Results | None]


@PIPELINES.register_module()
class Compose:
    """Apply transforms in order; one that gives None ends it, and leaves the sample out.

    Each is a configuration with ``type``, or anything that can be called. Raises ValueError, with
    the number of the transform, if one cannot be built.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any] | Transform]) -> None:
        self.transforms = [_built(each, place) for place, each in enumerate(transforms)]

    def __call__(self, results: Results) -> Results | None:
        for transform in self.transforms:
            changed = transform(results)
            if changed is None:
                return None
            results = changed
        return results

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


def _built(transform: Any, place: int) -> Transform:
    built: Transform = transform
    if not callable(transform):
        name = transform.get("type") if isinstance(transform, Mapping) else repr(transform)
        try:
            built = PIPELINES.build(transform)
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(map(str, error.args))  # a KeyError's own text is in quotes
            raise ValueError(f"transform {place}, {name}: {reason}") from error
    return built
