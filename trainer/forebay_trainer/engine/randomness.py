"""Seeds, and the state of all random numbers of a process, so that a resumed run goes on equal."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from forebay_trainer.engine import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator


def init_random_seed(seed: int | None = None) -> int:
    """Return *seed*, or for None a random one, the same in all processes."""
    # Of the system's entropy: the global generators may have been seeded by somebody.
    return distributed.broadcast(random.SystemRandom().randrange(2**31) if seed is None else seed)


def set_random_seed(seed: int, deterministic: bool = False) -> None:
    random.seed(seed)
    np.random.seed(seed)  # as transforms draw from it
    torch.manual_seed(seed)
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def random_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's generators as tensors and numbers."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = numpy_state
    state = {
        "python": (version, torch.tensor(words), gauss),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Let what happens inside, as an evaluation does, change no later random number."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
