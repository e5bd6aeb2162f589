"""``forebay ls``, ``stat`` and ``cat``: looking at objects, through the cache."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time

import click

import forebay
from forebay.cli._common import (
    TEXT,
    client_options,
    connected,
    json_option,
    print_json,
    size_text,
)

_CHUNK_BYTES = 8 << 20


def _time_text(modified: float | None) -> str:
    return "-" if modified is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))


@click.command()
@click.argument("path", type=TEXT)
@click.option("-l", "long", is_flag=True, help="Sizes, times, and how much is cached.")
@click.option("-R", "recursive", is_flag=True, help="Everything below.")
@client_options
@json_option
def ls(
    path: str, long: bool, recursive: bool, address: str | None, timeout_s: float, as_json: bool
) -> None:
    """List what is below a prefix.

    \b
    Example:
      forebay ls -l s3://bucket/coco/train2017/
    """
    with connected(address, timeout_s) as client:
        found = False
        rows: list[dict[str, object]] = []
        for entry in client.list(path, recursive=recursive):
            found = True
            if as_json:
                is_object = isinstance(entry, forebay.Stat)
                rows.append(dataclasses.asdict(entry) if is_object else {"prefix": entry})  # type: ignore[arg-type]
            elif isinstance(entry, forebay.Stat):
                click.echo(_row(entry) if long else entry.uri)
            else:
                click.echo(f"{'-':>10} {'-':>16} {'':>6} {entry}" if long else entry)
        if not found:
            rows = _single(client, path, long, as_json)
        if as_json:
            print_json(rows)


def _single(
    client: forebay.Client, path: str, long: bool, as_json: bool
) -> list[dict[str, object]]:
    """Show *path* itself; ObjectNotFoundError if it is neither prefix nor object."""
    stat = client.stat(path)
    if not as_json:
        click.echo(_row(stat) if long else stat.uri)
    return [dataclasses.asdict(stat)]


def _row(stat: forebay.Stat) -> str:
    share = 1.0 if not stat.size_bytes else stat.cached_bytes / stat.size_bytes
    cached = "-" if not stat.cached_bytes else f"{100 * share:.0f} %"
    return (
        f"{size_text(stat.size_bytes):>10} {_time_text(stat.modified):>16} {cached:>6} {stat.uri}"
    )


@click.command()
@click.argument("path", type=TEXT)
@client_options
@json_option
def stat(path: str, address: str | None, timeout_s: float, as_json: bool) -> None:
    """Show an object's size, version and time, and how much of it is cached.

    \b
    Example:
      forebay stat s3://bucket/coco/train2017/000000000009.jpg
    """
    with connected(address, timeout_s) as client:
        result = client.stat(path)
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    click.echo(f"uri      {result.uri}")
    click.echo(f"size     {size_text(result.size_bytes)} ({result.size_bytes} bytes)")
    click.echo(f"version  {result.version}")
    click.echo(f"modified {_time_text(result.modified)}")
    pinned = ", pinned" if result.is_pinned else ""
    click.echo(f"cached   {size_text(result.cached_bytes)}{pinned}")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=TEXT)
@client_options
def cat(paths: tuple[str, ...], address: str | None, timeout_s: float) -> None:
    """Write the bytes of objects to standard output.

    \b
    Example:
      forebay cat s3://bucket/coco/annotations/instances_val2017.json | jq .info
    """
    # Without looking for a daemon: what is cached is there without it.
    with forebay.Client(address, timeout_s=timeout_s) as client:
        for path in paths:
            with client.open(path) as file:
                shutil.copyfileobj(file, sys.stdout.buffer, _CHUNK_BYTES)
        sys.stdout.buffer.flush()
