"""The command ``forebay``: operates the daemon and shows the cache.

Sizes are for people unless ``--json`` is given. Exit codes: 0 done, 1 the thing asked for failed,
2 wrong usage, 3 no daemon answers.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from importlib.metadata import EntryPoints, entry_points
from typing import Any, NoReturn

import click

from forebay._errors import DaemonUnavailableError, ForebayError
from forebay._version import __version__
from forebay.cli import (
    _cache,
    _change,
    _copy,
    _doctor,
    _exec,
    _read,
    _serve,
    _stats,
    _top,
    _uploads,
)
from forebay.cli._common import readable

_FAILED, _WRONG_USAGE, _NO_DAEMON = 1, 2, 3


@functools.cache
def _added() -> EntryPoints:
    return entry_points(group="forebay.commands")


class _Commands(click.Group):
    """The commands, and those that other packages add by entry points (the trainer's).

    A reader that has seen enough (``| head``) ends any of them silently.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_added().names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if known is not None or cmd_name not in _added().names:
            return known
        added: click.Command = _added()[cmd_name].load()
        return added

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Python flushes at its end, and must have somewhere to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(_FAILED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="forebay")
def cli() -> None:
    """Cached reads of Ceph/S3 for training, and writes behind the node's disk.

    \b
    Example:
      forebay serve --cache-dir /nvme/forebay --max-bytes 500GB --endpoint-url http://ceph:7480
      forebay stats --watch 2
    """


for command in (
    _serve.serve,
    _exec.exec_,
    _stats.ping,
    _stats.stats,
    _top.top,
    _read.ls,
    _read.stat,
    _read.cat,
    _copy.cp,
    _change.rm,
    _change.mv,
    _change.mb,
    _uploads.flush,
    _uploads.uploads,
    _cache.warm,
    _cache.evict,
    _cache.pin,
    _cache.unpin,
    _cache.check,
    _doctor.doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; errors of ours become one line on stderr and an exit code."""
    # So that what a command has begun (a copy, a lease) is taken back; `serve` has its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(cli(prog_name="forebay", standalone_mode=False))
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except click.Abort:  # Ctrl-C
        sys.exit(128 + signal.SIGINT)
    except DaemonUnavailableError as error:
        _fail(str(error), _NO_DAEMON)
    except (ForebayError, OSError) as error:
        _fail(str(error), _FAILED)
    except UnicodeEncodeError as error:  # of the environment, or what a terminal cannot show
        _fail(f"{readable(error.object)} cannot be written as {error.encoding}", _WRONG_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"forebay: {message}", err=True)
    sys.exit(code)
