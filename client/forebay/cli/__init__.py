"""The command ``forebay``: operates the daemon and shows the cache.

Sizes are for people unless ``--json`` is given. Exit codes: 0 done, 1 the thing asked for failed,
2 wrong usage, 3 no daemon answers.
"""

from __future__ import annotations

import sys

import click

from forebay._errors import DaemonUnavailableError, ForebayError
from forebay._version import __version__
from forebay.cli import _cache, _read, _serve, _stats

_FAILED, _NO_DAEMON = 1, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="forebay")
def cli() -> None:
    """Cached reads of Ceph/S3 for training.

    \b
    Example:
      forebay serve --cache-dir /nvme/forebay --max-bytes 500GB --endpoint-url http://ceph:7480
      forebay stats --watch 2
    """


for command in (
    _serve.serve,
    _stats.ping,
    _stats.stats,
    _read.ls,
    _read.stat,
    _read.cat,
    _read.cp,
    _cache.warm,
    _cache.evict,
    _cache.pin,
    _cache.unpin,
    _cache.check,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; errors of ours become one line on stderr and an exit code."""
    try:
        cli(prog_name="forebay")
    except DaemonUnavailableError as error:
        _fail(error, _NO_DAEMON)
    except (ForebayError, OSError) as error:
        _fail(error, _FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Exception, code: int) -> None:
    click.echo(f"forebay: {error}", err=True)
    sys.exit(code)
