"""fsspec: forebay:// wherever a library takes a URL.

Run: python examples/fsspec_files.py s3://bucket/demo/
"""

import sys

import fsspec

prefix = sys.argv[1].rstrip("/").replace("s3://", "forebay://")

with fsspec.open(f"{prefix}/table.csv", "w") as file:
    file.write("a,b\n1,2\n")
with fsspec.open(f"{prefix}/table.csv") as file:
    print("read:", file.read())

fs = fsspec.filesystem("forebay")
with fs.transaction:  # both files, or none
    fs.pipe_file(f"{prefix}/one", b"1")
    fs.pipe_file(f"{prefix}/two", b"2")
print("names:", *(name.rpartition("/")[2] for name in fs.ls(prefix, detail=False)))
fs.flush()
