"""A small Mask R-CNN for shapes of 12 to 100 pixels in pictures of 128: minutes on two cores."""

_base_ = ["../_base_/models/mask_rcnn_r50_fpn.py", "../_base_/default_runtime.py"]

channels = 64
backbone_channels = 32
classes = ("disc", "triangle", "rectangle", "star")
roi_strides = [4, 8, 16]
norm_cfg = dict(type="BN", requires_grad=True)

model = dict(
    backbone=dict(
        depth=18,
        base_channels=backbone_channels,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(
        in_channels=[backbone_channels * factor for factor in (1, 2, 4, 8)],
        out_channels=channels,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, featmap_strides=roi_strides),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=256,
            norm_cfg=norm_cfg,
            reg_class_agnostic=True,
            num_classes=len(classes),
        ),
        mask_roi_extractor=dict(
            roi_layer=dict(output_size=7), out_channels=channels, featmap_strides=roi_strides
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            roi_feat_size=7,
            norm_cfg=norm_cfg,
            class_agnostic=True,
            num_classes=len(classes),
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(
            # Early proposals are poor: of what covers half of a shape, its class is hardly learnt.
            assigner=dict(pos_iou_thr=0.7, neg_iou_thr=0.5, min_pos_iou=0.7),
            sampler=dict(num=32, pos_fraction=0.5),
            mask_size=14,
        ),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)),
)

dataset_type = "CocoDataset"
data_root = "data/shapes/"
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", flip_ratio=0.5, direction=["horizontal", "vertical"]),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="Pad", size_divisor=32),
    dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_bboxes", "gt_labels", "gt_masks"]),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(128, 128),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True),
            dict(type="RandomFlip"),
            dict(type="Normalize", **img_norm_cfg),
            dict(type="Pad", size_divisor=32),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]
validation = dict(
    type=dataset_type,
    classes=classes,
    ann_file=data_root + "val.json",
    img_prefix=data_root + "val/",
    pipeline=test_pipeline,
)
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=1,
    train=dict(
        type=dataset_type,
        classes=classes,
        ann_file=data_root + "train.json",
        img_prefix=data_root + "train/",
        pipeline=train_pipeline,
    ),
    val=validation,
    test=validation,
)

optimizer = dict(type="AdamW", lr=1.5e-3, weight_decay=0.05)
optimizer_config = dict(grad_clip=dict(max_norm=10.0, norm_type=2))
lr_config = dict(
    policy="CosineAnnealing",
    min_lr_ratio=0.02,
    by_epoch=False,
    warmup="linear",
    warmup_iters=100,
    warmup_ratio=0.01,
)
runner = dict(type="EpochBasedRunner", max_epochs=5)
evaluation = dict(interval=5, metric=["bbox", "segm"])
log_config = dict(interval=20, hooks=[dict(type="TextLoggerHook")])
