"""``forebay exec``: a program, unchanged, whose reads and writes go through the daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from forebay import _exec
from forebay._errors import ForebayError
from forebay._paths import Paths, check_mapping, parse_mapping
from forebay.cli._common import TEXT, address_option, connected

_CONNECT_S = 10.0
_NOT_FOUND = 127  # as shells have it


class _NoProgramError(click.ClickException):
    exit_code = _NOT_FOUND


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--path-mapping",
    "mappings",
    multiple=True,
    type=TEXT,
    metavar="FROM=TO",
    help="Read what lies below FROM from TO where the program gives no mapping. Repeatable.",
)
@click.option("--s3", is_flag=True, help="Let s3:// of fsspec go through the daemon, too.")
@address_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    mappings: tuple[str, ...], s3: bool, address: str | None, command: tuple[str, ...]
) -> None:
    """Run a program with petrel_client, mmcv and mmengine answered by the daemon.

    No import and no change of a configuration is needed: the backends petrel, aws and their like,
    and local paths that a mapping covers, are Forebay's in every Python below. What it writes is
    uploaded behind it: end a job with `forebay flush`.

    \b
    Example:
      forebay exec -- python tools/train.py config.py
      forebay exec --path-mapping data/coco/=s3://bucket/coco/ -- torchrun train.py config.py
    """
    environment = dict(os.environ)
    try:
        mapping = parse_mapping(environment.get("FOREBAY_PATH_MAPPING", ""))
        check_mapping(mapping)
    except ForebayError as error:
        raise click.UsageError(f"FOREBAY_PATH_MAPPING: {error}") from error
    for text in mappings:
        prefix, equals, target = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r}: write FROM=TO", param_hint="--path-mapping")
        try:
            check_mapping({prefix: target})
        except ForebayError as error:
            raise click.BadParameter(f"{text!r}: {error}", param_hint="--path-mapping") from error
        mapping[prefix] = target
    if address is not None:
        environment["FOREBAY_ADDRESS"] = address
    environment["FOREBAY_EXEC"] = "1"
    if s3:
        environment["FOREBAY_EXEC_S3"] = "1"
    # A daemon that is down is said now, not by the hundredth line of a traceback.
    with connected(address, _CONNECT_S) as client:
        theirs = client._node.attachment(_CONNECT_S).path_mapping
    # So that no program has to ask the daemon what is mapped. What is shadowed stays so.
    own = Paths([check_mapping(mapping)])
    mapping |= {prefix: to for prefix, to in theirs.items() if not own.maps(prefix)}
    if mapping:
        environment["FOREBAY_PATH_MAPPING"] = json.dumps(mapping)
    stand_ins = str(Path(next(iter(_exec.__path__))))
    told = environment.get("PYTHONPATH", "")
    # An empty entry is the current folder, unless it is all there is.
    rest = [path for path in told.split(os.pathsep) if path != stand_ins] if told else []
    environment["PYTHONPATH"] = os.pathsep.join([stand_ins, *rest])
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  # which is what was asked for
    except OSError as error:
        raise _NoProgramError(f"{command[0]}: {error.strerror}") from error
