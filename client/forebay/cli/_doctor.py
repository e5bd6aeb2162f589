"""``forebay doctor``: looks at everything that Forebay needs, and says what to do about it."""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import forebay
from forebay._paths import Paths, check_mapping
from forebay.cli import _doctor_daemon, _serve
from forebay.cli._bounded import bounded
from forebay.cli._common import SECONDS, TEXT, address_option, json_option, print_json
from forebay.cli._doctor_origins import Origin, check_origins
from forebay_protos.findings import Finding, ok, problem, problem_of, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_DISK_S = 30.0  # for what takes a few seconds on a disk that works
_LEAST_KERNEL, _TESTED_PYTHONS = (4, 14), ((3, 10), (3, 13))
_LEAST_MAPPINGS = 65_530  # the usual limit; a client maps up to 16,448 files
_LEVELS = {"ok": "green", "skipped": "bright_black", "warning": "yellow", "problem": "red"}


@click.command()
@click.argument("paths", nargs=-1, type=TEXT)
@address_option
@click.option("--config", type=click.Path(path_type=Path), help="As of `forebay serve`.")
@click.option("--cache-dir", type=_serve.FOLDER, help="As of `forebay serve`.")
@click.option("--max-bytes", help="As of `forebay serve`.")
@click.option("--endpoint-url", help="As of `forebay serve`.")
@click.option("--region", help="As of `forebay serve`.")
@click.option(
    "--timeout-s",
    default=10.0,
    show_default=True,
    type=SECONDS,
    metavar="SECONDS",
    help="How long an origin may take for one answer.",
)
@json_option
def doctor(
    paths: tuple[str, ...],
    address: str | None,
    timeout_s: float,
    as_json: bool,
    **serve_options: Any,
) -> None:
    """Look at what Forebay needs, and say what to do; exit code 1 if there is a problem.

    It asks the daemon that answers, and looks at its machine, folder and disk, and at its origins
    with its keys; PATHS are buckets or prefixes that should be there. With options of
    `forebay serve` it looks at what a daemon would meet that is started so. Nothing is changed.

    \b
    Example:
      forebay doctor s3://bucket
      forebay doctor --cache-dir /nvme/forebay --endpoint-url http://ceph:7480
    """
    told = {name: value for name, value in serve_options.items() if value is not None}
    if told and address is not None:
        raise click.UsageError("--address asks a daemon, the options of `forebay serve` ask none")
    findings = []
    for finding in _findings(address, told, paths, timeout_s):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    if any(finding.level == "problem" for finding in findings):
        raise click.exceptions.Exit(1)


def _show(finding: Finding) -> None:
    level = click.style(f"{finding.level:8}", fg=_LEVELS[finding.level])
    todo = f" -> {finding.todo}" if finding.todo else ""
    line = f"{finding.check}: {finding.found}{todo}"
    click.echo(level + " ".join(line.split()))  # errors of libraries may have several lines


def _findings(
    address: str | None, told: dict[str, Any], paths: tuple[str, ...], timeout_s: float
) -> Iterator[Finding]:
    yield from _check_host()
    if not told:
        with forebay.Client(address, timeout_s=_doctor_daemon.LOOK_S) as client:
            try:
                daemon = _doctor_daemon.ask(client)
            except (forebay.ForebayError, ValueError) as error:
                yield problem_of("daemon", error)
            else:
                yield from _with_daemon(client, daemon, paths, timeout_s)
                return
            if not client._node.channel.address.startswith("unix:"):
                return  # it may be on any machine
    yield from _without_daemon(told, paths, timeout_s)


# --- with a daemon ----------------------------------------------------------------------------


def _with_daemon(
    client: forebay.Client, daemon: _doctor_daemon.Daemon, paths: tuple[str, ...], timeout_s: float
) -> Iterator[Finding]:
    stats = daemon.stats
    yield from _doctor_daemon.check_daemon(daemon)
    yield _doctor_daemon.check_sharing(client, daemon)
    if daemon.is_here:
        yield _doctor_daemon.check_open_files(daemon)
        yield from _check_disk(
            _doctor_daemon.cache_folder(daemon),
            max_bytes=stats["max_bytes"],
            min_free_bytes=stats["min_free_bytes"],
            used_bytes=stats["used_bytes"]
            + stats["overhead_bytes"]
            + stats["spool"]["spool_used_bytes"],
        )
    with forebay.Client(daemon.address, timeout_s=timeout_s) as asking:
        yield from check_origins(
            [
                Origin(row["prefix"], row["endpoint_url"], row.get("ca_bundle"))
                for row in stats["origins"]
                if row["prefix"]  # of what nobody configured
            ],
            _wanted(daemon.path_mapping, paths, asking._uri),
            lambda uri: asking._stat(uri, fresh=True) is not None,
            from_here=daemon.is_here,
            by_daemon=True,
            timeout_s=timeout_s,
        )


def _wanted(
    path_mapping: Mapping[str, str], paths: Iterable[str], to_uri: Callable[[str], str]
) -> dict[str, str]:
    """Return the URIs that should be there, by what they are called."""
    mapped = {f"path mapping {path}": target for path, target in path_mapping.items()}
    return mapped | {path: to_uri(path) for path in paths}


# --- without one ------------------------------------------------------------------------------


def _without_daemon(
    told: dict[str, Any], paths: tuple[str, ...], timeout_s: float
) -> Iterator[Finding]:
    try:
        from forebayd import doctor as looking
        from forebayd.config import load
        from forebayd.errors import ConfigError
    except ModuleNotFoundError as error:
        yield skipped("configuration", _serve.MISSING.format(name=error.name))
        return
    try:
        config = load(told.pop("config", None), told)
        looking.check_listeners(config)
    except ConfigError as error:
        yield problem_of("configuration", error)
        return
    yield _doctor_daemon.open_files(
        "open files", "this shell", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    )
    yield from _check_disk(
        config.cache_dir,
        max_bytes=config.max_bytes,
        min_free_bytes=config.min_free_bytes,
        used_bytes=None,
    )
    yield from check_origins(
        [
            Origin(o.prefix, o.endpoint_url, None if o.ca_bundle is None else str(o.ca_bundle))
            for o in config.origins
        ],
        _wanted(config.path_mapping, paths, Paths([check_mapping(config.path_mapping)]).uri),
        lambda uri: looking.is_there(config.origins, uri, timeout_s),
        from_here=True,
        by_daemon=False,
        timeout_s=timeout_s,
    )


# --- the machine ------------------------------------------------------------------------------


def _check_host() -> Iterator[Finding]:
    python = platform.python_version()
    oldest, newest = _TESTED_PYTHONS
    if oldest <= sys.version_info[:2] <= newest:
        yield ok("python", python)
    else:
        yield warning(
            "python", f"{python} is not tested", "use {}.{} to {}.{}".format(*oldest, *newest)
        )
    kernel = platform.release()
    numbers = tuple(int(part) for part in kernel.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= _LEAST_KERNEL:
        yield ok("kernel", kernel)
    else:
        yield problem(
            "kernel",
            f"{kernel} cannot tell what is in its page cache (preadv2 with RWF_NOWAIT)",
            "use Linux 4.14 or newer",
        )
    yield _check_limits()


def _check_limits() -> Finding:
    name = "memory maps"
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    if most < _LEAST_MAPPINGS:
        return warning(
            name,
            f"a process may have {most:,}, a client may want 16,448 besides its own",
            f"sysctl vm.max_map_count={_LEAST_MAPPINGS}",
        )
    room, _ = resource.getrlimit(resource.RLIMIT_AS)
    if room != resource.RLIM_INFINITY:
        return warning(
            name,
            f"a process may map {room:,} bytes only (ulimit -v); the cache is mapped as a whole",
            "ulimit -v unlimited",
        )
    return ok(name, f"a process may have {most:,}, of any size")


def _check_disk(
    cache_dir: Path | None, *, max_bytes: int, min_free_bytes: int, used_bytes: int | None
) -> Iterator[Finding]:
    if cache_dir is None:
        yield skipped("disk", "the daemon's folder cannot be seen from here")
        return
    try:
        from forebayd import doctor as looking
    except ModuleNotFoundError as error:
        yield skipped("disk", _serve.MISSING.format(name=error.name))
        return
    is_served = used_bytes is not None
    yield _tried(
        looking.FOLDER,
        cache_dir,
        lambda: looking.check_folder(cache_dir, is_served=is_served),
    )
    yield _tried(
        looking.SPACE,
        cache_dir,
        lambda: looking.check_space(
            cache_dir, max_bytes=max_bytes, min_free_bytes=min_free_bytes, used_bytes=used_bytes
        ),
    )
    try:
        is_writable = bounded(_DISK_S, lambda: looking.is_writable(cache_dir))
    except TimeoutError:
        return  # as has been said
    if not is_writable:
        yield skipped(
            looking.SPEED, f"uid {os.geteuid()} may not write there: look as the daemon's user"
        )
        return
    yield _tried(looking.FILES, cache_dir, lambda: looking.check_files(cache_dir))
    yield _tried(
        looking.SPEED,
        cache_dir,
        lambda: looking.check_speed(cache_dir, min_free_bytes=min_free_bytes),
    )


def _tried(name: str, cache_dir: Path, check: Callable[[], Finding]) -> Finding:
    try:
        return bounded(_DISK_S, check)
    except OSError as error:  # TimeoutError too
        found = f"{cache_dir}: {error.strerror or error}"
        return problem(name, found, "see whether the disk works, or use another")
