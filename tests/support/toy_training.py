"""A toy that frameworks train: its weights, its data, and what a training tells of itself.

For both sides: the programs ``support.train_*`` and the tests that run them.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.ceph import Bucket

EPOCHS = 3
SEED = 20260

PICTURES = {"train": 8, "val": 4}
SIDE = 12  # pixels

_SHAPES = {
    "backbone.conv.weight": (4, 3, 3, 3),
    "backbone.conv.bias": (4,),
    "head.weight": (2, 4),
    "head.bias": (2,),
}
_MARK = "toy "


# --- weights ---------------------------------------------------------------------------------


class Backbone(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, pictures: Any) -> Any:
        return self.dropout(torch.relu(self.conv(pictures))).mean((2, 3))


def some_weights(seed: int, below: str = "") -> dict[str, Any]:
    """Return weights for what the toy has below *below*: ``"backbone."``, say."""
    dice = torch.Generator().manual_seed(seed)
    return {
        name.removeprefix(below): torch.randn(shape, generator=dice) * 0.1
        for name, shape in _SHAPES.items()
        if name.startswith(below)
    }


def digest(weights: Mapping[str, Any]) -> str:
    """Return what is the same for weights that are the same bit for bit."""
    sha = hashlib.sha256()
    for name in sorted(weights):
        sha.update(name.encode())
        sha.update(weights[name].numpy().tobytes())
    return sha.hexdigest()


# --- data ------------------------------------------------------------------------------------


def upload_data(bucket: Bucket, folder: str) -> None:
    """Put pictures and annotations into *folder* as COCO lays them out."""
    for split, count in PICTURES.items():
        listed = []
        for index in range(count):
            dice = np.random.default_rng([SEED, index, len(split)])
            label = index % 2
            pixels = dice.integers(0, 128, (SIDE, SIDE, 3), np.uint8)
            pixels[..., label] += 100  # which is what there is to learn
            name = f"{index:012}.jpg"  # by name; readers look at what is in it
            header = f"P6 {SIDE} {SIDE} 255\n".encode()
            bucket.put(f"{folder}{split}2017/{name}", header + pixels.tobytes())
            listed.append({"filename": name, "label": label})
        bucket.put(f"{folder}annotations/instances_{split}2017.json", json.dumps(listed).encode())


def upload_weights(bucket: Bucket, key: str, weights: Mapping[str, Any]) -> None:
    """Put a checkpoint as model zoos have them."""
    file = io.BytesIO()
    torch.save({"state_dict": dict(weights), "meta": {}}, file)
    bucket.put(key, file.getvalue())


def decode(picture: bytes) -> Any:
    """Return the pixels of a picture that ``upload_data`` made."""
    header, _, pixels = picture.partition(b"\n")
    assert header == f"P6 {SIDE} {SIDE} 255".encode()
    return np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 3)


# --- in the program --------------------------------------------------------------------------


def seed_all(epoch: int) -> None:
    """Make an epoch the same whether or not the process did the one before."""
    random.seed(SEED + epoch)
    np.random.seed(SEED + epoch)  # which is what the frameworks use
    torch.manual_seed(SEED + epoch)


def seed_worker(_: int) -> None:
    """Let the workers' dice follow from the seed of the epoch."""
    np.random.seed(torch.initial_seed() % 2**32)


def report(**event: Any) -> None:
    """Tell the test something, on a line of its own."""
    print(f"\n{_MARK}{json.dumps(event)}", flush=True)


def report_step(epoch: int, step: int, loss: float, *, pause_at: str | None) -> None:
    """Tell a step's loss to the last bit; wait to be killed if this is where to."""
    report(epoch=epoch, step=step, loss=loss.hex())
    if pause_at == f"{epoch}:{step}":
        report(paused=True)
        sys.stdin.read()


# --- in the test -----------------------------------------------------------------------------


def parse_event(line: str) -> dict[str, Any] | None:
    """Return what a line of the program's output tells, or None."""
    if not line.startswith(_MARK):
        return None
    event: dict[str, Any] = json.loads(line.removeprefix(_MARK))
    return event
