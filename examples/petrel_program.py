"""A program of petrel_client, unchanged.

Run: forebay exec -- python examples/petrel_program.py s3://bucket/demo/
"""

import sys

from petrel_client.client import Client

prefix = sys.argv[1].rstrip("/")
client = Client("~/petreloss.conf")
client.put(f"{prefix}/hello.txt", "hello")
print("read:", client.get(f"{prefix}/hello.txt"))
print("names:", *client.list(prefix))
print("missing:", client.get(f"{prefix}/none.txt"))
