"""Cityscapes in COCO's form with boxes and masks; an epoch is 8 rounds over its images."""

_base_ = "./cityscapes_detection.py"
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", img_scale=[(2048, 800), (2048, 1024)], keep_ratio=True),
    dict(type="RandomFlip", flip_ratio=0.5),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="Pad", size_divisor=32),
    dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_bboxes", "gt_labels", "gt_masks"]),
]
data = dict(train=dict(dataset=dict(pipeline=train_pipeline)))
evaluation = dict(_delete_=True, metric=["bbox", "segm"])
