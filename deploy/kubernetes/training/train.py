"""A data-parallel training on objects: every rank reads its share, the first saves a checkpoint.

Run: torchrun train.py s3://bucket/prefix
"""

import os
import sys

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, DistributedSampler

import forebay
from forebay.torch import ObjectDataset, Sample, load, save


def to_tensor(sample: Sample) -> torch.Tensor:
    return torch.frombuffer(bytearray(sample.data), dtype=torch.uint8).float() / 255


def train(prefix: str) -> None:
    on_gpu = torch.cuda.is_available()
    device = f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    rank = distributed.get_rank()
    if rank == 0:
        with forebay.Client() as client:
            for number in range(64):
                client.put(f"{prefix}/samples/{number}", bytes([number] * 16))
            client.flush(prefix)  # the other node reads them from the origin
    distributed.barrier()

    samples = ObjectDataset.from_prefix(f"{prefix}/samples", to_tensor)
    sampler = DistributedSampler(samples)
    loader = DataLoader(samples, batch_size=8, sampler=sampler, num_workers=2)
    model = nn.parallel.DistributedDataParallel(nn.Linear(16, 1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for read in loader:
            batch = read.to(device)
            loss = nn.functional.mse_loss(model(batch), batch.mean(dim=1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if rank == 0:
            save({"model": model.module.state_dict(), "epoch": epoch}, f"{prefix}/last.pth")
            print(f"epoch {load(f'{prefix}/last.pth')['epoch']} saved, loss {loss.item():.4f}")
    print(f"rank {rank} of {distributed.get_world_size()} has read {len(sampler)} samples twice")
    distributed.destroy_process_group()


if __name__ == "__main__":
    train(sys.argv[1].rstrip("/"))
