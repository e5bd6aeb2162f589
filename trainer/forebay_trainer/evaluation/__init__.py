"""How good detections are: COCO's and VOC's average precision, and recall of proposals."""

from forebay_trainer.evaluation.mean_ap import eval_map
from forebay_trainer.evaluation.recall import eval_recalls

__all__ = ["eval_map", "eval_recalls"]
