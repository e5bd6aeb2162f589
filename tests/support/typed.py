"""What a reader of a page types: programs and commands, in a process of their own each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import shlex
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WAIT_S = 300.0
# What takes long to import: done once, in the process that the others are forked from.
_IMPORTED = [
    *("forebay.cli", "forebay_trainer.browse", "forebay_trainer.infer", "forebay_trainer.test"),
    *("torch._dynamo", "matplotlib.backends.backend_agg"),  # which a run asks for late
]
_MODULES = {"forebay": "forebay", "torchrun": "torch.distributed.run"}


class Typist:
    """Runs lines as a shell in *folder* would, with *env* added to the environment."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder, self._env = folder, dict(env)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_IMPORTED)

    def run(self, line: str) -> str:
        """Run ``forebay …``, ``torchrun …`` or ``python FILE``; return what it wrote.

        Fails with that if the exit code is not 0.
        """
        output = self._folder / "output.txt"
        process = self._context.Process(target=_run, args=(line, self._folder, self._env, output))
        process.start()
        assert process.pid is not None
        process.join(WAIT_S)
        process.kill()
        with contextlib.suppress(ProcessLookupError):  # nobody is left of what it has started
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        text = output.read_text()
        assert process.exitcode == 0, f"{line}: exit code {process.exitcode}\n{text}"
        return text


def _run(line: str, folder: Path, env: Mapping[str, str], output: Path) -> None:
    os.setsid()  # so that it ends with all that it has started
    multiprocessing.set_start_method(None, force=True)  # what a shell's programs have
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    os.environ.update(env)
    program, *arguments = shlex.split(line)
    if program == "python":
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        sys.argv = [program, *arguments]
        runpy.run_module(_MODULES[program], run_name="__main__")
