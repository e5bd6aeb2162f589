"""What client containers run: commands on standard input, a line of JSON in answer to each.

Usage: python3 program.py; each line is a JSON list [command, argument, ...].
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from typing import Any

import forebay


class Commands:
    def __init__(self) -> None:
        self.client = forebay.Client(timeout_s=120)  # a restart of the daemon on a busy machine
        self.reading = threading.Thread(target=self._read_on)
        self.ends = threading.Event()
        self.reads = 0
        self.wrong: list[str] = []
        self.expected: dict[str, str] = {}

    def who(self) -> dict[str, int]:
        return {"pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid()}

    def put(self, uris: list[str], size_bytes: int) -> None:
        for number, uri in enumerate(uris):
            self.client.put(uri, number.to_bytes(4, "little") * (size_bytes // 4))
        self.client.flush()

    def evict(self, uris: list[str]) -> None:
        for uri in uris:
            self.client.evict(uri)

    def digests(self, uris: list[str]) -> list[str]:
        """Read objects, and return their MD5s."""
        return [self._digest(uri) for uri in uris]

    def _digest(self, uri: str) -> str:
        return hashlib.md5(self.client.get(uri), usedforsecurity=False).hexdigest()

    def write(self, uri: str, size_bytes: int) -> str:
        """Write a checkpoint; returns its MD5."""
        data = os.urandom(size_bytes)
        with self.client.open(uri, "wb") as file:
            file.write(data)
        self.client.flush()
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def start_reading(self, uris: list[str]) -> None:
        """Read objects over and over, until ``stop_reading``."""
        self.expected = {uri: self._digest(uri) for uri in uris}
        self.reading.start()

    def _read_on(self) -> None:
        while not self.ends.is_set():
            for uri, digest in self.expected.items():
                try:
                    found = self._digest(uri)
                except forebay.ForebayError as error:
                    found = str(error)
                self.reads += 1
                if found != digest:
                    self.wrong.append(f"{uri}: {found}")

    def count(self) -> int:
        return self.reads

    def stop_reading(self) -> list[str]:
        """Return what was read wrongly."""
        self.ends.set()
        self.reading.join()
        return self.wrong


def main() -> None:
    commands = Commands()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            answer["result"] = getattr(commands, name)(*arguments)
        except Exception as error:  # the test is told
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
