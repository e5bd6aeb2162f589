"""mmengine: a Runner whose checkpoints and logs go to Ceph/S3, and that begins from one there.

Run: python examples/mmengine_runner.py s3://bucket/demo/
"""

import sys
import tempfile
from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import forebay
import forebay.mmengine  # or custom_imports = dict(imports=['forebay.mmengine'])

prefix = sys.argv[1].rstrip("/")


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, inputs, target, mode):
        return {"loss": (self.linear(inputs) - target).square().mean()}


samples = [{"inputs": torch.ones(1), "target": torch.zeros(1)} for _ in range(8)]
with tempfile.TemporaryDirectory() as work_dir:
    Runner(
        Model(),
        work_dir=work_dir,
        train_dataloader=DataLoader(samples, batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=1, out_dir=f"{prefix}/ckpt"),
            logger=dict(type="LoggerHook", out_dir=f"{prefix}/logs"),
        ),
    ).train()
    last = Path(work_dir, "last_checkpoint").read_text()

with forebay.Client() as client:
    client.flush(prefix)  # a job ends when everything is in Ceph/S3
    names = [stat.uri for stat in client.list(f"{prefix}/ckpt", recursive=True)]
print("last:", last)
print("checkpoints:", len(names))
