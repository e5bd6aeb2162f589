"""What a ``RemoteClient`` can be asked to do. Everything here must be importable by both sides."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import forebay

_FORKS_S = 120.0


def get(
    client: forebay.Client, path: str, start: int | None = None, end: int | None = None
) -> bytes:
    return client.get(path, start, end)


def get_many(client: forebay.Client, paths: Sequence[str]) -> list[bytes]:
    return client.get_many(paths)


def put(client: forebay.Client, path: str, data: bytes) -> None:
    client.put(path, data)


def apply_bytes(client: forebay.Client, path: str) -> bytes:
    return client.apply(path, bytes)


def open_and_read(client: forebay.Client, path: str) -> bytes:
    with client.open(path) as file:
        return file.read()


def local_files(client: forebay.Client, path: str) -> dict[str, bytes]:
    """Return what ``local_path`` gives: {"": bytes} for an object, else by relative name."""
    with client.local_path(path) as local:
        root = Path(local)
        if root.is_file():
            return {"": root.read_bytes()}
        return {
            str(file.relative_to(root)): file.read_bytes()
            for file in sorted(root.rglob("*"))
            if file.is_file()
        }


def raw_stats(client: forebay.Client) -> dict[str, Any]:
    return client.stats().raw


def is_attached(client: forebay.Client) -> bool:
    """Tell whether this process reads through the shared folder."""
    return client._node.folder() is not None


def pid(_: forebay.Client) -> int:
    return os.getpid()


def listed(_: forebay.Client, folder: str) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208  # its error is the answer


def read_file(_: forebay.Client, path: str) -> bytes:
    return Path(path).read_bytes()


def write_file(_: forebay.Client, path: str) -> None:
    Path(path).write_bytes(b"")


def open_for_writing(_: forebay.Client, path: str) -> None:
    with Path(path).open("r+b"):
        pass


_held: list[tuple[contextlib.ExitStack, str]] = []


def hold_local_path(client: forebay.Client, path: str) -> str:
    """Enter ``local_path`` until ``release_local_path``; return the file's path."""
    stack = contextlib.ExitStack()
    local = stack.enter_context(client.local_path(path))
    _held.append((stack, local))
    return local


def release_local_path(_: forebay.Client) -> None:
    _held.pop()[0].close()


# --- many processes ---------------------------------------------------------------------------

_crowds: list[tuple[int, list[int]]] = []  # (write end of the gate, pids)


def gather_crowd(
    client: forebay.Client, address: str, count: int, paths: Sequence[str], expected: bytes
) -> int:
    """Fork *count* processes that read all *paths* and stay; return how many read right bytes."""
    import forebay

    answers, answer = os.pipe()
    gate, open_gate = os.pipe()
    pids = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(open_gate)
                with forebay.Client(address) as own:
                    right = all(own.get(path) == expected for path in paths)
                    os.write(answer, b"1" if right else b"0")
                    os.read(gate, 1)  # the end, when the gate opens
                code = 0
            finally:
                os._exit(code)
        pids.append(child)
    os.close(answer)
    os.close(gate)
    _crowds.append((open_gate, pids))
    read_right = sum(os.read(answers, 1) == b"1" for _ in range(count))
    os.close(answers)
    return read_right


def release_crowd(_: forebay.Client) -> int:
    """Let the processes end; return how many ended well."""
    open_gate, pids = _crowds.pop()
    os.close(open_gate)
    return sum(os.waitpid(child, 0)[1] == 0 for child in pids)


# --- watching ---------------------------------------------------------------------------------


def read_until(
    client: forebay.Client, paths: Sequence[str], old: bytes, new: bytes, stop_file: str
) -> dict[str, int]:
    """Read *paths* again and again until *stop_file* is there and all of them are *new*.

    Returns how often what was read. Once *new* was seen at a path, *old* counts as "relapsed".
    """
    counts = {"old": 0, "new": 0, "relapsed": 0, "other": 0}
    seen: set[str] = set()
    deadline = time.monotonic() + _FORKS_S
    while time.monotonic() < deadline:
        for path in paths:
            data = client.get(path)
            if data == new:
                counts["new"] += 1
                seen.add(path)
            elif data == old:
                counts["relapsed" if path in seen else "old"] += 1
            else:
                counts["other"] += 1
        # A reader that was slow may have read all of them before there was anything new.
        if seen.issuperset(paths) and os.path.exists(stop_file):  # noqa: PTH110  # often
            break
    return counts


def apply_when_told(client: forebay.Client, path: str, started_file: str, go_file: str) -> bytes:
    """Read a view only after *go_file* is there; *started_file* says that the view is held."""

    def wait_and_copy(view: memoryview) -> bytes:
        Path(started_file).touch()
        deadline = time.monotonic() + _FORKS_S
        while not Path(go_file).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return bytes(view)

    return client.apply(path, wait_and_copy)


def read_seconds(client: forebay.Client, path: str) -> float:
    """Return how long it takes to read an object, 8 MiB at a time."""
    buffer = bytearray(8 << 20)
    began = time.perf_counter()
    with client.open(path) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def get_seconds(client: forebay.Client, path: str) -> float:
    began = time.perf_counter()
    client.get(path)
    return time.perf_counter() - began
