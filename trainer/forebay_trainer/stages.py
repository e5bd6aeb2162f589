"""``train_cfg`` and ``test_cfg`` of a model: what is in them, by the stage that reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay_trainer.config import ConfigError, errors_at
from forebay_trainer.ops.nms import check_nms
from forebay_trainer.registry import MODELS

if TYPE_CHECKING:
    from forebay_trainer.registry import Config

_SAMPLED = "assigner sampler pos_weight debug"
_PROPOSED = "nms_pre max_per_img nms min_bbox_size"
STAGES = {
    "train_cfg": "rpn rpn_proposal rcnn",
    "train_cfg.rpn": f"{_SAMPLED} allowed_border",
    "train_cfg.rpn_proposal": _PROPOSED,
    "train_cfg.rcnn": f"{_SAMPLED} mask_size soft_mask_target",
    "test_cfg": "rpn rcnn",
    "test_cfg.rpn": _PROPOSED,
    "test_cfg.rcnn": "score_thr nms max_per_img mask_thr_binary",
}
_NEEDED = {
    "train_cfg.rpn": ("assigner",),
    "train_cfg.rcnn": ("assigner", "sampler"),
    "train_cfg.rpn_proposal": ("nms", "max_per_img"),
    "test_cfg.rpn": ("nms", "max_per_img"),
    "test_cfg.rcnn": ("score_thr", "nms", "max_per_img"),
}


def dicts_at(config: Config, place: str) -> list[dict[str, Any]]:
    """Return what is at a place: one dict, none, or those of a cascade's stages."""
    found: Any = config._cfg_dict
    for key in place.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    listed = found if isinstance(found, (list, tuple)) else [found]
    return [each for each in listed if isinstance(each, dict)]


def check_stages(config: Config, is_training: bool) -> None:
    """Check that a detector of ours has what each stage needs. Raises ConfigError."""
    kind = config.model["type"]
    built = MODELS.get(kind) if isinstance(kind, str) else kind
    if not built.__module__.startswith("forebay_trainer."):
        return
    stages = ["rpn", *(["rcnn"] if config.model.get("roi_head") else [])]
    for key in ("test_cfg", *(["train_cfg"] if is_training else [])):
        # Old configurations have both beside the model.
        place = key if config.model.get(key) is None and key in config else f"model.{key}"
        for stage in stages:
            if not dicts_at(config, f"{place}.{stage}"):
                raise ConfigError(f"{place}.{stage} is missing")
        for stage, needed in _NEEDED.items():
            if stage.startswith(key):
                _check_stage(config, stage.replace(key, place), needed)


def _check_stage(config: Config, place: str, needed: tuple[str, ...]) -> None:
    for stage in dicts_at(config, place):
        for key in needed:
            if key not in stage:
                raise ConfigError(f"{place}.{key} is missing")
        if stage.get("nms") is not None:
            with errors_at(f"{place}.nms"):
                check_nms(stage["nms"])
