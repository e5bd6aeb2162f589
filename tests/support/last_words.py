"""A program that asks the daemon at its very end: in an exit handler, and when it is taken down.

Usage: python -m support.last_words URI; FOREBAY_ADDRESS names the daemon.
"""

from __future__ import annotations

import atexit
import sys

import forebay


class Asks:
    def __init__(self, client: forebay.Client, uri: str) -> None:
        self.client, self.uri = client, uri
        self.write = sys.stdout.write

    def __del__(self) -> None:
        self.write(f"finalizer: {self.client.stat(self.uri).size_bytes}\n")


def main(uri: str) -> None:
    client = forebay.Client()
    client.stat(uri)
    atexit.register(lambda: print("exit handler:", client.stat(uri).size_bytes))
    sys.modules["kept until the end"] = Asks(client, uri)  # type: ignore[assignment]


if __name__ == "__main__":
    main(sys.argv[1])
