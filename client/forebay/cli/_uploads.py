"""``forebay flush`` and ``uploads``: what this node wrote and the origins do not have yet."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live
from rich.progress import DownloadColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

import forebay
from forebay._uploads import ask, failure_counts
from forebay.cli._common import (
    SECONDS,
    TEXT,
    ObjectsColumn,
    client_options,
    connected,
    duration_text,
    json_option,
    print_json,
    progress_bar,
    size_text,
    table_console,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_WATCH_S = 2.0


@click.command()
@click.argument("paths", nargs=-1, type=TEXT)
@click.option(
    "--timeout",
    "limit_s",
    type=SECONDS,
    metavar="SECONDS",
    help="Give up after so long; the uploads go on.  [default: wait for ever]",
)
@client_options
@json_option
def flush(
    paths: tuple[str, ...],
    limit_s: float | None,
    address: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Wait until everything written, or what is below PATHS, is in the origin.

    Exit code 1 if something failed for good, or is not there in time.

    \b
    Example:
      forebay flush --timeout 600 s3://bucket/run7/
    """
    with connected(address, timeout_s) as client:
        bar = progress_bar(
            DownloadColumn(binary_units=True), ObjectsColumn("uploads"), TransferSpeedColumn()
        )
        total = forebay.FlushProgress(0, 0, 0, 0)

        def show(progress: forebay.FlushProgress) -> None:
            nonlocal total
            total = progress
            bar.update(
                task,
                completed=progress.bytes_total - progress.bytes_left,
                total=progress.bytes_total,
                objects_done=progress.uploads_total - progress.uploads_left,
                objects_total=progress.uploads_total,
            )

        failed: tuple[forebay.Upload, ...] = ()
        with bar:
            task = bar.add_task("uploading", total=None, objects_done=0, objects_total=0)
            try:
                client.flush(paths or None, limit_s, show)
            except forebay.UploadFailedError as error:
                failed = error.uploads
    if as_json:
        print_json(
            {
                "uploads": total.uploads_total,
                "bytes": total.bytes_total,
                "failed": [dataclasses.asdict(upload) for upload in failed],
            }
        )
    elif failed:
        table_console(stderr=True).print(_table(failed))
        click.echo(
            f"forebay: {failure_counts(failed)}; nothing is lost: forebay uploads --retry, or "
            "--discard ID",
            err=True,
        )
    else:
        click.echo(f"uploaded {total.uploads_total:,} writes, {size_text(total.bytes_total)}")
    if failed:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("ids", nargs=-1, type=TEXT)
@click.option(
    "--watch",
    is_flag=False,
    flag_value=_WATCH_S,
    type=SECONDS,
    metavar="[SECONDS]",
    help="Show again every so many seconds (2); with --json a line each time.",
)
@click.option("--retry", is_flag=True, help="Try the uploads with these IDS, or all failed, again.")
@click.option("--discard", is_flag=True, help="Give up the uploads with these IDS and their bytes.")
@click.option("--yes", is_flag=True, help="Discard without asking.")
@client_options
@json_option
def uploads(
    ids: tuple[str, ...],
    watch: float | None,
    retry: bool,
    discard: bool,
    yes: bool,
    address: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show what was written and is not in the origin yet; retry or discard what failed for good.

    Exit code 1 if an upload has failed for good, or is older than it should get.

    \b
    Example:
      forebay uploads --watch 5
      forebay uploads --retry
      forebay uploads --discard 00000003-000000000017
    """
    if retry + discard + (watch is not None) > 1:
        raise click.UsageError("give one of --watch, --retry and --discard")
    if discard and not ids:
        raise click.UsageError(
            "--discard needs the ids of uploads, as `forebay uploads` shows them"
        )
    if ids and not (retry or discard):
        raise click.UsageError("ids go with --retry or --discard")
    with connected(address, timeout_s) as client:
        if retry or discard:
            _settle(client, ids, discard=discard, is_sure=yes, as_json=as_json)
        elif watch is None:
            if _show(client, timeout_s, as_json=as_json):
                raise click.exceptions.Exit(1)
        else:
            _watch(client, timeout_s, watch, as_json=as_json)


def _settle(
    client: forebay.Client, ids: Sequence[str], *, discard: bool, is_sure: bool, as_json: bool
) -> None:
    if discard and not is_sure:
        doomed = [upload for upload in client.uploads() if upload.id in ids]
        for unknown in sorted(set(ids) - {upload.id for upload in doomed}):
            raise click.ClickException(f"no upload has the id {unknown}: see `forebay uploads`")
        table_console(stderr=True).print(_table(doomed))
        click.confirm("Lose what these wrote?", abort=True, err=True)
    settled = client.settle_uploads(ids or None, discard=discard)
    if as_json:
        print_json({"uploads": settled})
    else:
        click.echo(f"{'discarded' if discard else 'trying again'}: {settled:,} uploads")


def _show(client: forebay.Client, timeout_s: float, *, as_json: bool) -> bool:
    """Print what is under way; tells whether somebody should look at it."""
    found, is_overdue = ask(client._node.channel, timeout_s)
    if as_json:
        print_json(_document(found, is_overdue=is_overdue))
    else:
        table_console().print(_page(found, is_overdue=is_overdue))
    return is_overdue


def _watch(client: forebay.Client, timeout_s: float, every_s: float, *, as_json: bool) -> None:
    if as_json:
        while True:
            found, is_overdue = ask(client._node.channel, timeout_s)
            print_json(_document(found, is_overdue=is_overdue), one_line=True)
            time.sleep(every_s)
    with Live(auto_refresh=False) as live:
        while True:
            found, is_overdue = ask(client._node.channel, timeout_s)
            live.update(_page(found, is_overdue=is_overdue), refresh=True)
            time.sleep(every_s)


def _document(found: Sequence[forebay.Upload], *, is_overdue: bool) -> dict[str, Any]:
    return {
        "uploads": [dataclasses.asdict(upload) for upload in found],
        "is_overdue": is_overdue,
    }


def _page(found: Sequence[forebay.Upload], *, is_overdue: bool) -> Table | str:
    if not found:
        return "overdue: see the daemon's log" if is_overdue else "everything is in the origin"
    page = Table.grid()
    page.add_row(_table(found))
    left = sum(upload.size_bytes - upload.uploaded_bytes for upload in found)
    failed = sum(upload.state == "failed" for upload in found)
    state = f"; {failed:,} failed for good" if failed else "; overdue" if is_overdue else ""
    page.add_row(f"{len(found):,} uploads, {size_text(left)} left{state}")
    return page


def _table(found: Sequence[forebay.Upload]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("id", "what", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("size", "done", "age", "attempts"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("path", overflow="fold")
    table.add_column("error", overflow="fold")
    for upload in found:
        has_bytes = upload.kind in ("put", "create", "append")
        share = upload.uploaded_bytes / upload.size_bytes if upload.size_bytes else 0.0
        blocked = f"waits for {upload.blocked_by}" if upload.blocked_by else ""
        target = f" -> {upload.target}" if upload.target else ""
        table.add_row(
            upload.id,
            upload.kind,
            upload.state,
            size_text(upload.size_bytes) if has_bytes else "-",
            f"{100 * share:.0f} %" if has_bytes else "-",
            duration_text(upload.age_s),
            f"{upload.attempts}",
            Text(upload.path + target),  # which may hold what Rich takes for markup
            Text(upload.last_error or blocked),
        )
    return table
