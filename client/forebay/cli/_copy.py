"""``forebay cp``: objects as local files. A file has its name only once it is whole."""

from __future__ import annotations

import os
import secrets
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

import forebay
from forebay.cli._common import client_options, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 8 << 20
_OBJECTS_AT_ONCE = 256  # filled concurrently, then copied


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("-r", "recursive", is_flag=True, help="Everything below SOURCE, into folder TARGET.")
@client_options
def cp(source: str, target: Path, recursive: bool, address: str | None, timeout_s: float) -> None:
    """Copy an object to a local file or into a local folder, through the cache.

    \b
    Example:
      forebay cp s3://bucket/weights/r50.pth .
      forebay cp -r s3://bucket/coco/val2017 ./val2017
    """
    with forebay.Client(address, timeout_s=timeout_s) as client, _bar() as bar:
        copier = _Copier(client, bar)
        if not recursive:
            stat = client.stat(source)
            if target.is_dir():
                target = target / _file_name(stat.uri.rpartition("/")[2])
            copier.one(stat, target)
            return
        found = failed = 0
        for chunk in _chunks(client, source):
            client.warm([stat.uri for stat, _ in chunk])
            for stat, parts in chunk:
                found += 1
                try:
                    copier.one(stat, target.joinpath(*map(_file_name, parts)))
                except (forebay.ForebayError, OSError) as error:
                    failed += 1
                    click.echo(f"forebay: {error}", err=True)
        if not found:
            raise forebay.ObjectNotFoundError(f"there is nothing below {source}")
    if failed:
        raise click.ClickException(f"{failed:,} of {found:,} objects could not be copied")


def _chunks(
    client: forebay.Client, source: str
) -> Iterator[list[tuple[forebay.Stat, tuple[str, ...]]]]:
    """Yield some objects below a prefix at a time, with the components of their names below it."""
    prefix = client._uri(source).rstrip("/") + "/"
    below = (
        (entry, tuple(entry.uri.removeprefix(prefix).split("/")))
        for entry in client.list(source, recursive=True)
        if isinstance(entry, forebay.Stat)
    )
    while chunk := list(islice(below, _OBJECTS_AT_ONCE)):
        yield chunk


class _Copier:
    """Copies objects and shows how far it is."""

    def __init__(self, client: forebay.Client, bar: Progress) -> None:
        self._client = client
        self._bar = bar
        self._task = bar.add_task("", total=0)
        self._total = 0

    def one(self, stat: forebay.Stat, target: Path) -> None:
        self._total += stat.size_bytes
        self._bar.update(self._task, description=target.name, total=self._total)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".forebay-{secrets.token_hex(8)}.part")
        try:
            with self._client.open(stat.uri) as file, scratch.open("xb") as sink:
                while chunk := file.read(_CHUNK_BYTES):
                    sink.write(chunk)
                    self._bar.advance(self._task, len(chunk))
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)


def _file_name(part: str) -> str:
    """Return a key's component as a file name. Raises InvalidPathError for what leads elsewhere."""
    if part in ("", os.curdir, os.pardir) or "\0" in part:
        raise forebay.InvalidPathError(f"the key component {part!r} cannot be a file name")
    return part


def _bar() -> Progress:
    return progress_bar(DownloadColumn(binary_units=True), TransferSpeedColumn())
