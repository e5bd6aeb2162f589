"""What a reader of a page types: programs and commands, in a process of their own each."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

WAIT_S = 300.0
_TESTS = str(Path(__file__).parents[1])
# What takes long to import: done once, in the process that the others are forked from.
_IMPORTED = [
    *("forebay.cli", "forebay_trainer.browse", "forebay_trainer.infer", "forebay_trainer.test"),
    *("torch._dynamo", "matplotlib.backends.backend_agg"),  # which a run asks for late
]
_MODULES = {
    "forebay": "forebay",
    "torchrun": "torch.distributed.run",
    "train": "forebay_trainer.train",
}


class Typist:
    """Runs lines as a shell in *folder* would, with *env* added to the environment.

    Torch has one thread: the tests have no core to themselves, and threads that wait for each other
    on a core that others have take many times as long.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder, self._env = folder, dict(env)

    def run(self, line: str, *, code: int = 0) -> str:
        """Run ``forebay …``, ``torchrun …``, ``train …`` or ``python FILE``; return what it wrote.

        ``train`` is ``python -m forebay_trainer.train``. Fails with what it wrote if the exit code
        is not *code*, which is below 0 for a signal.
        """
        output = self._folder / "output.txt"
        environment = {**os.environ, **self._env, "OMP_NUM_THREADS": "1"}
        found = _server().run(
            {"line": line, "folder": str(self._folder), "env": environment, "output": str(output)}
        )
        text = output.read_text()
        assert found == code, f"{line}: exit code {found}\n{text}"
        return text


def as_typed(options: Mapping[str, object]) -> str:
    """Return what ``--cfg-options`` is given to change a configuration so."""
    pairs = (f"{key}={value}".replace(" ", "") for key, value in options.items())
    return " ".join(map(shlex.quote, pairs))


class _Server:
    """A process that has imported what takes long, and forks for each line.

    Not multiprocessing's fork server: a test may have started that one before, without these
    imports and with the environment that it had.
    """

    def __init__(self) -> None:
        program = f"import sys; sys.path[0] = {_TESTS!r}; from support import typed; typed.serve()"
        self._process = subprocess.Popen(  # noqa: S603  # ours
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,  # it ends with this process, which alone holds the other end
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # torch reads it when it is imported
            text=True,
        )

    def run(self, request: Mapping[str, Any]) -> int:
        """Run a line to its end, or for WAIT_S; return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        pid = self._told()
        assert self._process.stdout is not None
        if not select.select([self._process.stdout.fileno()], [], [], WAIT_S)[0]:
            os.killpg(pid, signal.SIGKILL)
        code = self._told()
        with contextlib.suppress(ProcessLookupError):  # nobody is left of what it has started
            os.killpg(pid, signal.SIGKILL)
        return code

    def _told(self) -> int:
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        assert told, f"what runs the lines has ended: {self._process.wait()}"
        return int(told)


@functools.cache
def _server() -> _Server:
    return _Server()


def serve() -> None:
    """Fork for each line of requests; tell the child's number, and at its end its exit code."""
    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        ready, is_ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()  # so that it ends with all that it has started
            os.close(is_ready)
            os.close(ready)
            _run(**request)
            return
        os.close(is_ready)
        os.read(ready, 1)  # until it is the leader of its group
        os.close(ready)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(line: str, folder: str, env: Mapping[str, str], output: str) -> None:
    with open(os.devnull, "rb") as nothing, open(output, "wb") as file:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    program, *arguments = shlex.split(line)
    if program == "python":
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        sys.argv = [program, *arguments]
        runpy.run_module(_MODULES[program], run_name="__main__")
