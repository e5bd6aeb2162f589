"""mmcv 1.x: images of a data set in Ceph/S3, as mmdetection 2.x reads them.

Run: python examples/mmcv_client.py s3://bucket/demo/
"""

import sys

import mmcv
import numpy as np

import forebay.mmcv  # noqa: F401  # or custom_imports = dict(imports=['forebay.mmcv'])

prefix = sys.argv[1].rstrip("/")
file_client_args = dict(
    backend="petrel",
    path_mapping={"./data/coco/": f"{prefix}/coco/", "data/coco/": f"{prefix}/coco/"},
)

image = np.full((32, 32, 3), 128, np.uint8)
mmcv.imwrite(image, f"{prefix}/coco/train2017/1.png")

again = mmcv.imread("data/coco/train2017/1.png", file_client_args=file_client_args)
client = mmcv.FileClient(**file_client_args)
print("equal:", (again == image).all())
print("names:", *client.list_dir_or_file("data/coco", recursive=True))
