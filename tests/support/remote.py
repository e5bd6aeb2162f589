"""A client in a process of its own: another user, another namespace, or just another process.

The tests' side is :class:`RemoteClient`; this module is also what the process runs. What it does is
named by a function of ``support.remote_work`` that gets the process's ``forebay.Client`` first.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Concatenate

    from typing_extensions import ParamSpec, Self

    import forebay

    P = ParamSpec("P")

Result = TypeVar("Result")

_ANSWER_S = 120.0  # a hang is an error, a busy machine is none


class RemoteHungError(Exception):
    """The process did not answer."""


class RemoteClient:
    """A process with a ``forebay.Client``; ends with the context."""

    def __init__(
        self,
        address: str | None = None,
        *,
        path_mapping: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        user: tuple[int, int] | None = None,
    ) -> None:
        """Start it. *prefix* is a command that runs the process's (``unshare …``), *user* the
        (uid, gid) that it takes once everything is imported, without other groups."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [*prefix, sys.executable, "-m", "support.remote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **python_path(), **(env or {})},
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        self._connection.send((user, (address, path_mapping, timeout_s)))

    def start(
        self,
        work: Callable[Concatenate[forebay.Client, P], object],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> None:
        """Have *work* done; ``result`` waits for it."""
        self._connection.send((work, arguments, named))

    def result(self, timeout_s: float = _ANSWER_S) -> Any:
        """Return what the work returned, or raise what it raised."""
        if not self._connection.poll(timeout_s):
            raise RemoteHungError(f"no answer in {timeout_s:g} s")
        try:
            is_error, value = self._connection.recv()
        except EOFError:
            code = self._process.wait(_ANSWER_S)
            raise RemoteHungError(f"the process ended with {code}") from None
        if is_error:
            raise value
        return value

    def is_done(self) -> bool:
        """Tell whether ``result`` would not wait."""
        return self._connection.poll(0)

    def do(
        self,
        work: Callable[Concatenate[forebay.Client, P], Result],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> Result:
        """Have *work* done and return its result."""
        self.start(work, *arguments, **named)
        value: Result = self.result()
        return value

    def close(self) -> None:
        """Let the process end, and make sure of it."""
        self._connection.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.close()


def python_path() -> dict[str, str]:
    """Let the process import what the tests can."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def main() -> None:
    """Serve one RemoteClient."""
    import forebay

    connection = Connection(int(sys.argv[1]))
    user, arguments = connection.recv()
    importlib.import_module("support.remote_work")  # before the user is one who may not read it
    if user is not None:
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])
    with forebay.Client(*arguments) as client, contextlib.suppress(EOFError, ConnectionError):
        while True:
            work, given, named = connection.recv()
            try:
                reply: tuple[bool, Any] = (False, work(client, *given, **named))
            except Exception as error:  # it is the tests' to judge
                reply = (True, error)
            connection.send(reply)


if __name__ == "__main__":
    main()
