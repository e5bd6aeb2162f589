"""What a training container does: it reads a data set twice and writes a checkpoint.

Bucket and daemon are those of the environment: DEMO_BUCKET, FOREBAY_ADDRESS.
"""

import os
import time

import forebay

bucket = os.environ.get("DEMO_BUCKET", "demo")
keys = [f"s3://{bucket}/samples/{number:03}" for number in range(100)]

with forebay.Client() as client:
    client.create_bucket(f"s3://{bucket}")
    for number, key in enumerate(keys):
        client.put(key, number.to_bytes(4, "little") * 25_000)
    client.flush(f"s3://{bucket}/")
    client.evict(f"s3://{bucket}/")
    for epoch in (1, 2):
        began = time.perf_counter()
        size_bytes = sum(len(data) for data in client.get_many(keys))
        taken = time.perf_counter() - began
        print(f"epoch {epoch}: {size_bytes / 1e6:.0f} MB in {taken:.3f} s", flush=True)
    with client.open(f"s3://{bucket}/checkpoints/last.pth", "wb") as file:
        file.write(b"state" * 1_000_000)
    client.flush()
    print(f"as uid {os.getuid()}: a checkpoint is in s3://{bucket}/checkpoints/", flush=True)
