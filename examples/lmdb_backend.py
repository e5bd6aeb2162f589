"""An LMDB data set in Ceph/S3, read by mmengine's LmdbBackend.

Run: python examples/lmdb_backend.py s3://bucket/demo/
"""

import sys
import tempfile

import lmdb
from mmengine.fileio import get_file_backend

import forebay
import forebay.mmengine

prefix = sys.argv[1].rstrip("/")

with tempfile.TemporaryDirectory() as folder:
    with lmdb.open(folder) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"image-1", b"bytes of an image")
    with forebay.Client() as client:
        client.put_file(f"{prefix}/train.lmdb/data.mdb", f"{folder}/data.mdb")

backend = get_file_backend(backend_args=dict(backend="lmdb", db_path=f"{prefix}/train.lmdb"))
print("read:", bytes(backend.get("image-1")))
