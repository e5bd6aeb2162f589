"""``forebay ping`` and ``forebay stats``."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.live import Live
from rich.table import Table

import forebay
from forebay.cli._common import (
    SECONDS,
    address_option,
    client_options,
    connected,
    duration_text,
    json_option,
    print_json,
    ratio_text,
    size_text,
    table_console,
)

_WINDOWS = (("since_start", "since start"), ("last_minute", "last minute"), ("total", "total"))


@click.command()
@address_option
@click.option(
    "--timeout-s",
    default=2.0,
    show_default=True,
    type=SECONDS,
    metavar="SECONDS",
    help="How long to wait for an answer.",
)
@json_option
def ping(address: str | None, timeout_s: float, as_json: bool) -> None:
    """Ask the daemon whether it is there; exit code 3 if not.

    \b
    Example:
      forebay ping --address unix:/run/forebay/forebay.sock
    """
    with forebay.Client(address, timeout_s=timeout_s) as client:
        started = time.monotonic()
        try:
            raw = client.stats().raw
        except forebay.DeadlineExceededError as error:
            raise forebay.DaemonUnavailableError(str(error)) from error
        seconds = time.monotonic() - started
    if as_json:
        print_json({"version": raw["version"], "pid": raw["pid"], "seconds": seconds})
        return
    click.echo(
        f"forebay {raw['version']} (pid {raw['pid']}) answers in {duration_text(seconds)}, "
        f"up {duration_text(raw['uptime_s'])}"
    )


@click.command()
@click.option(
    "--watch",
    type=SECONDS,
    metavar="SECONDS",
    help="Show again every so many seconds; with --json a line each time.",
)
@client_options
@json_option
def stats(address: str | None, timeout_s: float, as_json: bool, watch: float | None) -> None:
    """Show hits, misses, traffic, space and errors of the node's cache.

    \b
    Example:
      forebay stats --watch 2
    """
    with connected(address, timeout_s) as client:
        if watch is None:
            raw = client.stats().raw
            if as_json:
                print_json(raw)
            else:
                table_console().print(_tables(raw))
        elif as_json:
            while True:
                print_json(client.stats().raw, one_line=True)
                time.sleep(watch)
        else:
            with Live(auto_refresh=False) as live:
                while True:
                    live.update(_tables(client.stats().raw), refresh=True)
                    time.sleep(watch)


def _tables(raw: dict[str, Any]) -> Table:
    page = Table.grid(padding=(0, 0))
    page.add_row(_reads(raw))
    page.add_row(_facts(raw))
    return page


def _reads(raw: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for _, title in _WINDOWS:
        table.add_column(title, justify="right")
    rows: list[tuple[str, Any]] = [
        ("hits", lambda w: f"{w['hits']:,}"),
        ("misses", lambda w: f"{w['misses']:,}"),
        ("hit ratio, objects", lambda w: ratio_text(w["hit_ratio"])),
        ("hit ratio, bytes", lambda w: ratio_text(w["byte_hit_ratio"])),
        ("served from the cache", lambda w: size_text(w["hit_bytes"])),
        ("read from the origin", lambda w: size_text(w["origin_bytes"])),
        ("origin requests", lambda w: f"{w['origin_requests']:,}"),
        ("origin retries", lambda w: f"{w['origin_retries']:,}"),
        ("reads past the cache", lambda w: f"{w['uncached_reads']:,}"),
        ("served while stale", lambda w: f"{w['stale_served']:,}"),
    ]
    for title, text in rows:
        table.add_row(title, *(text(raw[window]) for window, _ in _WINDOWS))
    return table


def _facts(raw: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("", style="bold")
    table.add_column("")
    used = raw["used_bytes"] + raw["overhead_bytes"]
    share = ratio_text(used / raw["max_bytes"] if raw["max_bytes"] else None)
    evictions = ", ".join(
        f"{reason}: {row['objects']:,} ({size_text(row['bytes'])})"
        for reason, row in raw["evictions"].items()
    )
    errors = ", ".join(f"{kind.lower()}: {count:,}" for kind, count in raw["errors"].items())
    facts = [
        ("disk", f"{size_text(used)} of {size_text(raw['max_bytes'])} ({share})"),
        ("objects", f"{raw['objects']:,}"),
        ("pinned prefixes", ", ".join(raw["pinned_prefixes"]) or "none"),
        ("attached clients", f"{raw['attached_clients']:,}"),
        (
            "fills",
            f"{raw['fills_in_flight']} in flight, {raw['deduplicated_fills']:,} readers joined one",
        ),
        ("origin latency", _latency(raw["origin_latency_s"])),
        ("fill latency", _latency(raw["fill_latency_s"])),
        ("evictions", evictions or "none"),
        *_writes(raw["spool"]),
        ("errors", errors or "none"),
        (
            "daemon",
            f"{raw['version']}, pid {raw['pid']}, up {duration_text(raw['uptime_s'])}, "
            f"{raw['cache_dir']}",
        ),
    ]
    for name, text in facts:
        table.add_row(name, text)
    return table


def _writes(spool: dict[str, Any]) -> list[tuple[str, str]]:
    backlog = "none"
    if spool["backlog_uploads"]:
        backlog = (
            f"{spool['backlog_uploads']:,} uploads, {size_text(spool['backlog_bytes'])}, "
            f"oldest {duration_text(spool['oldest_age_s'])}"
        )
    if spool["overdue"]:
        backlog += "; overdue: see `forebay uploads`"
    rate = size_text(spool["uploaded_bytes_last_minute"] // 60)
    return [
        ("write backlog", backlog),
        (
            "uploads",
            f"{spool['uploads_done']:,} done ({size_text(spool['uploaded_bytes'])}), "
            f"{rate}/s in the last minute, {spool['uploads_failed']:,} failed",
        ),
        (
            "spool",
            f"{size_text(spool['spool_used_bytes'])} of {size_text(spool['spool_max_bytes'])}",
        ),
    ]


def _latency(percentiles: dict[str, Any]) -> str:
    if not percentiles["count"]:
        return "-"
    return ", ".join(f"{name} {duration_text(percentiles[name])}" for name in ("p50", "p99"))
