"""PyTorch: a DataLoader over a prefix, and a checkpoint.

Run: python examples/torch_loader.py s3://bucket/demo/
"""

import sys

import torch
from torch.utils.data import DataLoader

import forebay
from forebay.torch import ObjectDataset, load, save

prefix = sys.argv[1].rstrip("/")


def to_tensor(sample):
    return torch.frombuffer(bytearray(sample.data), dtype=torch.uint8)


if __name__ == "__main__":
    with forebay.Client() as client:
        for number in range(8):
            client.put(f"{prefix}/samples/{number}", bytes([number] * 4))

        samples = ObjectDataset.from_prefix(f"{prefix}/samples", to_tensor)
        loader = DataLoader(samples, batch_size=4, num_workers=2)
        print("batches:", [tuple(batch.shape) for batch in loader])

        save({"weight": torch.ones(3)}, f"{prefix}/model.pth")
        client.flush(prefix)
        print("loaded:", load(f"{prefix}/model.pth")["weight"].tolist())
