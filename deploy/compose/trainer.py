"""What a training container does: it reads a data set twice and writes a checkpoint.

The daemon is that of FOREBAY_ADDRESS, the bucket that of DEMO_BUCKET; both are made ready here.
"""

from __future__ import annotations

import os
import time

import forebay

_OBJECTS, _OBJECT_BYTES = 100, 100_000
_ORIGIN_STARTS_S = 90.0  # it may come up with us
_PAUSE_S = 1.0


def main() -> None:
    bucket = f"s3://{os.environ.get('DEMO_BUCKET', 'demo')}"
    keys = [f"{bucket}/samples/{number:03}" for number in range(_OBJECTS)]
    with forebay.Client() as client:
        make_bucket(client, bucket)
        for number, key in enumerate(keys):
            client.put(key, bytes([number]) * _OBJECT_BYTES)
        client.flush(f"{bucket}/")
        client.evict(f"{bucket}/")
        for epoch in (1, 2):
            began = time.perf_counter()
            size_bytes = sum(len(data) for data in client.get_many(keys))
            taken_s = time.perf_counter() - began
            print(f"epoch {epoch}: {size_bytes / 1e6:.0f} MB in {taken_s:.3f} s", flush=True)
        with client.open(f"{bucket}/checkpoints/last.pth", "wb") as file:
            file.write(b"state" * 1_000_000)
        client.flush()
    print(f"uid {os.getuid()} wrote {bucket}/checkpoints/last.pth", flush=True)


def make_bucket(client: forebay.Client, bucket: str) -> None:
    deadline = time.monotonic() + _ORIGIN_STARTS_S
    while not _can_make(client, bucket, is_last_try=time.monotonic() > deadline):
        time.sleep(_PAUSE_S)


def _can_make(client: forebay.Client, bucket: str, *, is_last_try: bool) -> bool:
    try:
        client.create_bucket(bucket)
    except forebay.ForebayError as error:
        if is_last_try:
            raise
        print(f"waiting for the origin: {error}", flush=True)
        return False
    return True


if __name__ == "__main__":
    main()
