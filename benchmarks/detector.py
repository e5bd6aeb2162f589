"""A small Mask R-CNN from scratch: what it finds after ten minutes on two cores, all at s3://.

``forebay train`` reads generated shapes over photographs from a real Ceph through the daemon, and
is validated on other photographs by the COCO evaluator. Bars: AP50 of boxes 0.75, of masks 0.65.
Run: python benchmarks/detector.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import common

from deploy.demo.detector import forebay, records, upload_shapes
from support.ceph import Bucket, running_ceph
from support.serving import serving

TRAINING, VALIDATION = 2500, 300


def main() -> None:
    with (
        running_ceph() as ceph,
        serving(endpoint_url=ceph.endpoint_url, env=ceph.env(), max_bytes="2GB") as daemon,
    ):
        bucket = Bucket("detector", ceph.client())
        bucket.client.create_bucket(Bucket=bucket.name)
        upload_shapes(bucket, TRAINING, VALIDATION, lambda: None)
        began = time.monotonic()
        forebay(
            bucket, daemon.address, "train",
            *("--seed", "1", "--device", "cpu", "--work-dir", bucket.url("run")),
        )  # fmt: skip
        seconds = time.monotonic() - began
        (scores,) = (each for each in records(bucket, "run/") if each.get("mode") == "val")
        kept = sorted(key for key in bucket.keys("run/"))
    common.report(
        "detector",
        {
            "minutes": round(seconds / 60, 2),
            "training_pictures": TRAINING,
            "validation_pictures": VALIDATION,
            **{name: value for name, value in scores.items() if "mAP" in name},
            "in_the_bucket": kept,
        },
    )


if __name__ == "__main__":
    main()
