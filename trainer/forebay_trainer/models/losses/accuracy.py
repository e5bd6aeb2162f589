"""How often the true class is among the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import torch


@overload
def accuracy(pred: torch.Tensor, target: torch.Tensor, topk: int = 1) -> torch.Tensor: ...
@overload
def accuracy(
    pred: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...]
) -> list[torch.Tensor]: ...
def accuracy(
    pred: torch.Tensor, target: torch.Tensor, topk: int | tuple[int, ...] = 1
) -> torch.Tensor | list[torch.Tensor]:
    """Return the percentage, shape (1,), of the n rows of *pred* (n, classes) whose *target* is
    among the *topk* best; for several *topk* one of each. It is 0 of no rows."""
    best = pred.topk(max(topk) if isinstance(topk, tuple) else topk, dim=1).indices
    hits = best == target[:, None]

    def percentage(k: int) -> torch.Tensor:
        return 100 * hits[:, :k].sum().float().reshape(1) / max(len(pred), 1)

    return [percentage(k) for k in topk] if isinstance(topk, tuple) else percentage(topk)
