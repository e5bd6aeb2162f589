"""``forebay warm``, ``evict``, ``pin``, ``unpin`` and ``check``: working on what is cached."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import DownloadColumn

from forebay.cli import _serve
from forebay.cli._common import (
    TEXT,
    ObjectsColumn,
    client_options,
    connected,
    json_option,
    print_json,
    progress_bar,
    size_text,
)

if TYPE_CHECKING:
    import forebay

_CHECK_TIMEOUT_S = 600.0  # of a cache with millions of objects


@click.command()
@click.argument("paths", nargs=-1, required=True, type=TEXT)
@client_options
@json_option
def warm(paths: tuple[str, ...], address: str | None, timeout_s: float, as_json: bool) -> None:
    """Bring objects, or all below a prefix, into the cache.

    \b
    Example:
      forebay warm s3://bucket/coco/train2017/
    """
    with connected(address, timeout_s) as client:
        finals = [_warm_one(client, path, quiet=as_json) for path in paths]
    failed = sum(final.objects_failed for final in finals)
    if as_json:
        print_json(
            [
                {"path": path, **dataclasses.asdict(final)}
                for path, final in zip(paths, finals, strict=True)
            ]
        )
    else:
        done = sum(final.objects_done for final in finals)
        size = sum(final.bytes_done for final in finals)
        click.echo(f"{done:,} objects are cached, {size_text(size)}")
    if failed:
        raise click.exceptions.Exit(1)


def _warm_one(client: forebay.Client, path: str, *, quiet: bool) -> forebay.WarmProgress:
    if quiet:
        return client.warm(path)
    bar = progress_bar(DownloadColumn(binary_units=True), ObjectsColumn())
    with bar:
        task = bar.add_task(path, total=None, objects_done=0, objects_total=0)

        def show(progress: forebay.WarmProgress) -> None:
            bar.update(
                task,
                completed=progress.bytes_done,
                total=progress.bytes_total or None,
                objects_done=progress.objects_done,
                objects_total=progress.objects_total,
            )

        final = client.warm(path, progress=show)
        show(final)
    for uri, reason in final.failures:
        click.echo(f"forebay: {uri}: {reason}", err=True)
    if final.objects_failed:
        click.echo(f"forebay: {final.objects_failed} objects could not be read", err=True)
    return final


@click.command()
@click.argument("prefixes", nargs=-1, type=TEXT)
@click.option("--all", "everything", is_flag=True, help="Everything that is cached.")
@client_options
@json_option
def evict(
    prefixes: tuple[str, ...],
    everything: bool,
    address: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Drop what is cached of objects or below prefixes; the origin keeps everything.

    \b
    Example:
      forebay evict s3://bucket/old-experiment/
      forebay evict --all
    """
    if bool(prefixes) is everything:
        raise click.UsageError("give objects or prefixes, or --all")
    objects = size_bytes = 0
    with connected(address, timeout_s) as client:
        if everything:
            objects, size_bytes = client.evict(everything=True)
        for prefix in prefixes:
            dropped = client.evict(prefix)
            objects += dropped.objects
            size_bytes += dropped.size_bytes
    if as_json:
        print_json({"objects": objects, "bytes": size_bytes})
    else:
        click.echo(f"evicted {objects:,} objects, {size_text(size_bytes)}")


@click.command()
@click.argument("prefixes", nargs=-1, required=True, type=TEXT)
@client_options
@json_option
def pin(prefixes: tuple[str, ...], address: str | None, timeout_s: float, as_json: bool) -> None:
    """Keep objects or prefixes from being evicted for space, what is cached later included.

    \b
    Example:
      forebay pin s3://bucket/coco/val2017/
    """
    with connected(address, timeout_s) as client:
        objects = sum(client.pin(prefix) for prefix in prefixes)
    _print_changed("pinned", objects, as_json=as_json)


@click.command()
@click.argument("prefixes", nargs=-1, required=True, type=TEXT)
@client_options
@json_option
def unpin(prefixes: tuple[str, ...], address: str | None, timeout_s: float, as_json: bool) -> None:
    """Undo ``forebay pin`` of the same prefixes; exit code 1 if one is not pinned.

    \b
    Example:
      forebay unpin s3://bucket/coco/val2017/
    """
    objects, is_failed = 0, False
    with connected(address, timeout_s) as client:
        for prefix in prefixes:
            before = _pinned(client)
            uri = client._uri(prefix)
            # A pin keeps the prefix as it was written, and means the same with a slash.
            same = {pin for pin in before if pin.rstrip("/") == uri.rstrip("/")}
            objects += sum(client.unpin(pin) for pin in same or {uri})
            if _pinned(client) == before:
                click.echo(f"forebay: {prefix} is not pinned", err=True)
                is_failed = True
    _print_changed("unpinned", objects, as_json=as_json)
    if is_failed:
        raise click.exceptions.Exit(1)


def _pinned(client: forebay.Client) -> set[str]:
    return set(client.stats().raw["pinned_prefixes"])


def _print_changed(what: str, objects: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"objects": objects})
    else:
        click.echo(f"{what} {objects:,} cached objects")


@click.command()
@click.option("--repair", is_flag=True, help="Mend or drop what is wrong.")
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Check this folder itself, when no daemon runs.",
)
@client_options
@json_option
def check(
    repair: bool, cache_dir: Path | None, address: str | None, timeout_s: float, as_json: bool
) -> None:
    """Compare the cache's index, files and totals; exit code 1 if something is wrong.

    \b
    Example:
      forebay check --repair
    """
    if cache_dir is not None:
        report = _serve.check_offline(cache_dir, repair=repair)
    else:
        with connected(address, max(timeout_s, _CHECK_TIMEOUT_S)) as client:
            report = dataclasses.asdict(client.check(repair=repair))
    problems = report["problems"]
    if as_json:
        print_json(report)
    else:
        for problem in problems:
            suffix = " (repaired)" if problem["repaired"] else ""
            click.echo(f"{problem['what']}{suffix}")
        click.echo(
            f"{report['objects']:,} objects, {size_text(report['bytes'])}: "
            + (f"{len(problems):,} problems" if problems else "clean")
        )
    if any(not problem["repaired"] for problem in problems):
        raise click.exceptions.Exit(1)
