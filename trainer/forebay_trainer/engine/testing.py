"""A model over a data set: the results of all its images, in order, from all processes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.engine import distributed
from forebay_trainer.engine.batches import to_device
from forebay_trainer.engine.progress import told_progress
from forebay_trainer.engine.randomness import kept_random_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.data import DataLoader


def run_test(
    model: torch.nn.Module,
    loader: DataLoader[Any],
    show: Callable[[Any, dict[str, Any]], object] | None = None,
    *,
    autocast: Any = None,
) -> list[Any]:
    """Return the result of each image, on the first process; on others what they did.

    *show* is called with each result and its image's meta. No random number is used up.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    results: list[Any] = []
    with (
        torch.no_grad(),
        autocast or contextlib.nullcontext(),
        kept_random_state(),
        told_progress("testing", len(loader)) as advance,
    ):
        for data in loader:
            batch = to_device(data, device)
            found = model(return_loss=False, rescale=True, **batch)
            if show is not None:
                for result, meta in zip(found, batch["img_metas"][0], strict=True):
                    show(result, meta)
            results.extend(found)
            advance()
    model.train(was_training)
    parts = distributed.gather(results)
    # The loaders deal the images out like cards, and give some twice so that all have as many.
    dealt = [result for hand in zip(*parts, strict=True) for result in hand]
    return dealt[: len(loader.dataset)] if len(parts) > 1 else results
