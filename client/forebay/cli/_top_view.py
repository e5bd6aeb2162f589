"""What ``forebay top`` shows: lines that fit the terminal; in a small one, the most urgent."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from forebay.cli._common import duration_text, ratio_text, size_text
from forebay.cli._top_history import percentile
from forebay.cli._top_lines import (
    bar,
    fitted,
    in_ascii,
    middle,
    printable,
    shares,
    sparkline,
    spread,
)
from forebay_protos.counters import HIT_BOUNDS_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forebay.cli._top_history import Buckets, History
    from forebay.cli._top_processes import Process

SORTED_BY = ("objects_used", "received_bytes", "sent_bytes")
_KEYS = "q quit  p pause  prefixes by: 1 objects  2 from origin  3 to origin"
_TWO_COLUMNS, _SPARKS_ALONE = 160, 76
_LATENCY_WIDTH = 40
_PLAIN_LINES = 10_000


@dataclass
class View:
    """What somebody wants to see, and how."""

    address: str
    sort: str = SORTED_BY[0]
    is_paused: bool = False
    silence: str = ""  # why there is no answer
    silent_since: float = 0.0  # monotonic
    processes: Mapping[int, Process] = field(default_factory=dict)  # by their row

    def lines(
        self, history: History, width: int, height: int | None = None, *, is_ascii: bool = False
    ) -> list[Text]:
        """Return the lines of a screen; without *height*, all that there is and no keys."""
        frame = _Frame(self, history, width)
        top = [frame.head(), *frame.space(), *frame.rates(), frame.troubles()]
        if height is None:
            lines = [*top, *frame.sections(_PLAIN_LINES)]
        else:
            body = frame.sections(max(0, height - len(top) - 1))
            foot = fitted(Text(_KEYS, "dim"), width)
            gap = [Text("")] * (height - len(top) - len(body) - 1)
            lines = [*top, *body, *gap, foot][:height]
        return [in_ascii(line) for line in lines] if is_ascii else lines


class _Frame:
    """One picture of one moment."""

    def __init__(self, view: View, history: History, width: int) -> None:
        self._view = view
        self._history = history
        self._width = width
        self._raw = history.now

    # --- above -------------------------------------------------------------------------------

    def head(self) -> Text:
        raw, view = self._raw, self._view
        state = Text(" paused" if view.is_paused else "", "bold yellow")
        if view.silence:
            silent = duration_text(math.floor(time.monotonic() - view.silent_since))
            state = Text(f" NO ANSWER for {silent}", "bold red")
        left = Text.assemble(
            (f"forebay {raw['version']}", "bold"),
            f"  pid {raw['pid']}, up {duration_text(raw['uptime_s'])}, {printable(view.address)}",
        )
        return spread(left, state, self._width)

    def space(self) -> list[Text]:
        raw, spool = self._raw, self._raw["spool"]
        used = raw["used_bytes"] + raw["overhead_bytes"] + spool["spool_used_bytes"]
        waiting = spool["backlog_uploads"]
        uploads = "nothing to upload"
        if waiting:
            uploads = f"{waiting:,} to upload, oldest {duration_text(spool['oldest_age_s'])}"
        disk = f"{raw['objects']:,} objects, {size_text(raw['disk_free_bytes'])} free"
        return [
            self._used("disk", used, raw["max_bytes"], disk),
            self._used(
                "spool", spool["spool_used_bytes"], spool["spool_max_bytes"], uploads,
                "bold red" if spool["overdue"] else "",
            ),
        ]  # fmt: skip

    def _used(self, name: str, used: int, most: int, more: str, style: str = "") -> Text:
        share = used / most if most else 0.0
        line = Text.assemble(
            (f"{name:<8}", "bold"),
            (bar(share, max(8, self._width // 8)), "yellow" if share > 0.9 else "green"),
            f" {size_text(used)} of {size_text(most)} ({ratio_text(share)}), ",
            (more, style),
        )
        return fitted(line, self._width)

    def rates(self) -> list[Text]:
        """Return what flows, with its history, and beside it how long things take."""
        is_wide = self._width >= _SPARKS_ALONE
        width = self._width - (_LATENCY_WIDTH + 2 if is_wide else 0)
        sparks = [
            self._spark("from cache", "hit_bytes", _speed, "green", width),
            self._spark("from origin", "origin_bytes", _speed, "cyan", width),
            self._spark("to origin", "uploaded_bytes", _speed, "magenta", width),
            self._spark("evicted", "evicted_bytes", _speed, "yellow", width),
            self._spark("reads", "reads", lambda reads: f"{reads:,.0f}/s", "green", width),
            self._spark("hit ratio", "hit_ratio", ratio_text, "green", width, 1.0),
        ]
        table = self._latencies()
        if is_wide:
            return [Text.assemble(s, "  ", t) for s, t in zip(sparks, table, strict=True)]
        return [*sparks, *(fitted(line, self._width) for line in table)]

    def _spark(
        self, title: str, name: str, text: Callable[[float], str], style: str, width: int,
        top: float | None = None,
    ) -> Text:  # fmt: skip
        values = self._history.rates[name]
        latest = values[-1] if values else None
        line = Text.assemble(
            (f"{title:<12}", "bold"),
            f"{'-' if latest is None else text(latest):>12} ",
            (sparkline([*values], max(1, width - 25), top), style),
        )
        return fitted(line, width)

    def _latencies(self) -> list[Text]:
        lines = [Text(f"{'':<13}{'p50':>9}{'p95':>9}{'p99':>9}", "bold")]
        for title, section in (
            ("hits", "hits"),
            ("fills", "fills"),
            ("origin reads", "reads"),
            ("origin writes", "writes"),
            ("uploads", "uploads"),
        ):
            buckets = self._history.latency(section)
            cells = "".join(f"{_percentile(buckets, share):>9}" for share in (0.5, 0.95, 0.99))
            lines.append(Text.assemble((f"{title:<13}", "bold"), cells))
        return [fitted(line, _LATENCY_WIDTH) for line in lines]

    def troubles(self) -> Text:
        errors = [
            (f"{kind.lower()} {count:,}", "bold red" if self._history.is_growing(kind) else "")
            for kind, count in self._raw["errors"].items()
        ]
        evictions = [(f"{r} {row['objects']:,}", "") for r, row in self._raw["evictions"].items()]
        line = Text("errors  ", "bold")
        if self._view.silence:
            line.append(printable(self._view.silence), "red")
        else:
            line.append_text(_joined(errors))
            line.append("; evictions  ", "bold")
            line.append_text(_joined(evictions))
        return fitted(line, self._width)

    # --- below -------------------------------------------------------------------------------

    def sections(self, room: int) -> list[Text]:
        """Return what there are lists of, as much as there is room for."""
        makers = (self._fills, self._uploads, self._prefixes, self._clients, self._origins)
        if self._width < _TWO_COLUMNS or room == _PLAIN_LINES:
            return _cut([make(self._width) for make in makers], room)
        half = (self._width - 2) // 2
        left = _cut([make(half) for make in (self._fills, self._uploads, self._origins)], room)
        right = _cut([make(half) for make in (self._prefixes, self._clients)], room)
        rows = range(max(len(left), len(right)))
        empty = fitted(Text(""), half)
        return [
            Text.assemble(
                left[row] if row < len(left) else empty,
                "  ",
                right[row] if row < len(right) else empty,
            )
            for row in rows
        ]

    def _fills(self, width: int) -> list[Text]:
        count, titles = self._raw["fills_in_flight"], ("readers", "since", "cached")
        lines = [_title("fills in flight", count, titles, _FILL, width)]
        for row in self._raw["fills"]:
            size = "?" if row["size_bytes"] is None else size_text(row["size_bytes"])
            cells = (
                f"{row['waiting']:,}",
                duration_text(row["age_s"]),
                f"{size_text(row['cached_bytes'])} of {size}",
            )
            lines.append(_row(row["uri"], cells, _FILL, width))
        return lines

    def _uploads(self, width: int) -> list[Text]:
        spool = self._raw["spool"]
        titles = ("state", "tries", "since", "uploaded")
        lines = [_title("uploads", spool["backlog_uploads"], titles, _UPLOAD, width)]
        for row in spool["uploads"]:
            size = f"{size_text(row['uploaded_bytes'])} of {size_text(row['size_bytes'])}"
            what = row["kind"] if row["kind"] not in ("put", "create", "append") else size
            cells = (row["state"], f"{row['attempts']:,}", duration_text(row["age_s"]), what)
            lines.append(_row(row["uri"], cells, _UPLOAD, width))
            if row["last_error"]:
                lines.append(_row(f"  {row['last_error']}", (), (), width, "red"))
        return lines

    def _prefixes(self, width: int) -> list[Text]:
        view = self._view
        rows = sorted(self._raw["prefixes"], key=lambda row: -row[view.sort])
        titles = tuple(
            f"{title}{'*' if name == view.sort else ''}"
            for title, name in zip(("objects", "from origin", "to origin"), SORTED_BY, strict=True)
        )
        lines = [_title("busiest in the last minute", None, titles, _PREFIX, width)]
        for row in rows:
            sizes = (size_text(row["received_bytes"]), size_text(row["sent_bytes"]))
            lines.append(_row(row["prefix"], (f"{row['objects_used']:,}", *sizes), _PREFIX, width))
        return lines

    def _clients(self, width: int) -> list[Text]:
        raw, history = self._raw, self._history
        speeds = history.speeds("clients", "row", "hits", "hit_bytes")
        name = (
            f"clients: {raw['attached_clients']:,}, leases: {raw['leases']:,}, "
            f"staged files: {raw['spool']['staged_files']:,}"
        )
        lines = [_title(name, None, ("running", "hits", "from cache"), _CLIENT, width)]
        for row, (hits, size) in sorted(speeds.items(), key=lambda item: item[1], reverse=True):
            process = self._view.processes.get(row)
            told = f"row {row}" if process is None else f"{process.pid} {process.command}"
            since = "" if process is None else duration_text(process.age_s)
            lines.append(_row(told, (since, f"{hits:,.0f}/s", _speed(size)), _CLIENT, width))
        return lines

    def _origins(self, width: int) -> list[Text]:
        history = self._history
        titles = ("errors", "p50", "p99", "from it", "to it")
        lines = [_title("origins", None, titles, _ORIGIN, width)]
        speeds = history.speeds("origins", "prefix", "received_bytes", "sent_bytes")
        for row in self._raw["origins"]:
            if not (row["reads"] or row["writes"]):
                continue  # most of those that are there by default are never asked
            prefix = row["prefix"]
            reads = history.latency("reads", prefix)
            cells = (
                f"{sum(row['errors'].values()):,}",
                *(_percentile(reads, share) for share in (0.5, 0.99)),
                *map(_speed, speeds[prefix]),
            )
            endpoint = f" {row['endpoint_url']}" if row["endpoint_url"] else ""
            lines.append(_row(f"{prefix}{endpoint}", cells, _ORIGIN, width))
        return lines


# Widths of the columns after the name.
_FILL = (9, 12, 24)
_UPLOAD = (11, 6, 12, 24)
_PREFIX = (10, 13, 13)
_CLIENT = (12, 12, 13)
_ORIGIN = (8, 9, 9, 13, 13)


def _title(
    name: str, count: int | None, titles: Sequence[str], widths: Sequence[int], width: int
) -> Text:
    told = name if count is None else f"{name}: {count:,}" if count else f"{name}: none"
    line = _row(told, titles if count != 0 else (), widths if count != 0 else (), width)
    line.stylize("bold cyan")
    return line


def _row(
    name: str, cells: Sequence[str], widths: Sequence[int], width: int, style: str = ""
) -> Text:
    numbers = "".join(f"{cell[: w - 1]:>{w}}" for cell, w in zip(cells, widths, strict=True))
    return fitted(Text(middle(name, max(0, width - len(numbers))) + numbers, style), width)


def _cut(sections: Sequence[list[Text]], room: int) -> list[Text]:
    given = shares([len(section) for section in sections], room)
    return [line for section, n in zip(sections, given, strict=True) for line in section[:n]]


def _joined(parts: Sequence[tuple[str, str]]) -> Text:
    return Text(", ").join([Text(*part) for part in parts]) if parts else Text("none")


def _speed(rate: float) -> str:
    return f"{size_text(round(rate))}/s"


def _percentile(buckets: Buckets, share: float) -> str:
    seconds = percentile(buckets, share)
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return f"> {duration_text(HIT_BOUNDS_NS[-1] / 1e9)}"
    return duration_text(seconds)
