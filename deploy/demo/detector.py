"""The small detector of shapes: its pictures in a bucket, and its training from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.demo.shapes import TRAINING, VALIDATION, coco_annotations, pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.ceph import Bucket

CONFIG = Path(__file__).with_name("shapes_mask_rcnn.py")
_FOLDER = "shapes/"
_LOCAL = "data/shapes/"  # as the configuration names it


def upload_shapes(
    bucket: Bucket, training: int, validation: int, advance: Callable[[], object]
) -> None:
    """Put so many pictures of each split, and their annotations, into the bucket."""
    for split, count, photographs in (
        ("train", training, TRAINING),
        ("val", validation, VALIDATION),
    ):
        found = []
        for picture in pictures(count, photographs, seed=split):
            bucket.put(f"{_FOLDER}{split}/{picture.name}", picture.data)
            found.append(picture)
            advance()
        bucket.put(f"{_FOLDER}{split}.json", coco_annotations(found))


def forebay(
    bucket: Bucket, address: str, command: str, *arguments: str, quiet: bool = False
) -> None:
    """Run one of the trainer's commands, whose only way to the bucket is the daemon."""
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    mapping = f"{_LOCAL}={bucket.url(_FOLDER)}"
    program = [sys.executable, "-m", "forebay", command, str(CONFIG)]
    subprocess.run(  # noqa: S603  # our own command
        [*program, *arguments, "--path-mapping", mapping],
        env={**environment, "FOREBAY_ADDRESS": address},
        stdout=subprocess.DEVNULL if quiet else None,
        check=True,
    )


def records(bucket: Bucket, run: str) -> list[dict[str, Any]]:
    """Return the lines of the log that a run has left in the bucket."""
    (log,) = (key for key in bucket.keys(run) if key.endswith(".log.json"))
    return [json.loads(line) for line in bucket.get(log).splitlines()]
