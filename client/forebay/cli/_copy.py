"""``forebay cp``: objects to local files, local files to objects, objects to objects.

Neither a file nor an object has its name before it is whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

import forebay
from forebay.cli._common import ObjectsColumn, check_text, client_options, progress_bar
from forebay.cli._places import below, find_place, object_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay.cli._places import Place

_CHUNK_BYTES = 8 << 20
_OBJECTS_AT_ONCE = 256  # filled concurrently, then copied
_WRITERS = 8


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("-r", "recursive", is_flag=True, help="Everything below SOURCE, to below TARGET.")
@client_options
def cp(source: str, target: str, recursive: bool, address: str | None, timeout_s: float) -> None:
    """Copy objects to local files, local files to objects, or objects to objects.

    URIs and mapped paths name objects, all other paths local files. A TARGET that is a folder, or
    ends with a slash, takes the copy under its own name; folders that are not there are made. What
    is written is safe on this node when
    the command ends; `forebay flush` waits until it is in the origin.

    \b
    Example:
      forebay cp s3://bucket/weights/r50.pth .
      forebay cp -r s3://bucket/coco/val2017 ./val2017
      forebay cp -r ./checkpoints s3://bucket/run7/checkpoints
    """
    if "-" in (source, target):
        raise click.UsageError(
            "`forebay cat` writes an object to standard output, and /dev/stdin can be copied"
        )
    with forebay.Client(address, timeout_s=timeout_s) as client:
        one, other = find_place(client, source), find_place(client, target)
        if one.is_local and not os.path.lexists(source):
            raise click.ClickException(
                f"{source} is no local file, and neither a URI nor mapped to one: give a file, "
                "s3://bucket/key, or map its prefix"
            )
        if one.is_local and other.is_local:
            raise click.UsageError(
                f"both {source} and {target} are local: one must be a URI or a mapped path"
            )
        with _bar() as bar:
            copier = _Copier(client, bar)
            if one.is_local:
                jobs = _uploads(client, copier, Path(source), other, recursive=recursive)
            elif other.is_local:
                jobs = _downloads(client, copier, one, other, recursive=recursive)
            else:
                jobs = _copies(client, copier, one, other, recursive=recursive)
            if recursive:
                # Downloads are filled many at once; what is written is fsynced one by one.
                copier.all(jobs, source, threads=1 if other.is_local else _WRITERS)
            else:
                for job in jobs:
                    copier.run(job)


@dataclass(frozen=True, slots=True)
class _Job:
    """One copy."""

    name: str
    size_bytes: int
    copy: Callable[[], None]


def _uploads(
    client: forebay.Client, copier: _Copier, source: Path, target: Place, *, recursive: bool
) -> Iterator[_Job]:
    if recursive and source.is_dir():
        prefix = target.uri.rstrip("/") + "/"
        for path in _files(source, copier.fail):
            uri = prefix + path.relative_to(source).as_posix()
            yield _Job(path.name, _size(path), partial(copier.upload_file, path, uri))
        return
    if source.is_dir():
        raise click.UsageError(f"{source} is a folder: use -r")
    uri = object_below(client, target, source.name)
    yield _Job(source.name, _size(source), partial(copier.upload, source, uri))


def _downloads(
    client: forebay.Client, copier: _Copier, source: Place, target: Place, *, recursive: bool
) -> Iterator[_Job]:
    folder = Path(target.text)
    if not recursive:
        stat = client.stat(source.uri)
        if target.is_slashed or folder.is_dir():
            folder = folder / _file_name(stat.uri.rpartition("/")[2])
        yield _Job(folder.name, stat.size_bytes, partial(copier.download, stat.uri, folder))
        return
    objects = below(client, source.uri)
    while chunk := list(islice(objects, _OBJECTS_AT_ONCE)):
        client.warm([stat.uri for stat, _ in chunk])
        for stat, parts in chunk:
            copy = partial(copier.download, stat.uri, folder, parts)
            yield _Job(parts[-1], stat.size_bytes, copy)


def _copies(
    client: forebay.Client, copier: _Copier, source: Place, target: Place, *, recursive: bool
) -> Iterator[_Job]:
    if not recursive:
        stat = client.stat(source.uri)
        name = stat.uri.rpartition("/")[2]
        uri = object_below(client, target, name)
        if uri == stat.uri:
            raise click.UsageError(f"{source.text} and {target.text} are the same object")
        yield _Job(name, stat.size_bytes, partial(copier.copy, stat, uri))
        return
    prefix = target.uri.rstrip("/") + "/"
    if prefix.startswith(source.uri.rstrip("/") + "/"):
        raise click.UsageError(f"{source.text} cannot be copied into itself, {target.text}")
    for stat, parts in below(client, source.uri):
        uri = prefix + "/".join(parts)
        yield _Job(parts[-1], stat.size_bytes, partial(copier.copy, stat, uri))


class _StoppedError(Exception):
    """The command is being ended."""


class _Copier:
    """Copies objects and shows how far it is. Thread-safe."""

    def __init__(self, client: forebay.Client, bar: Progress) -> None:
        self._client = client
        self._bar = bar
        self._task = bar.add_task("", total=0, objects_done=0, objects_total=0)
        self._lock = threading.Lock()  # guards what follows
        self._total_bytes = self._found = self._done = self._failed = 0
        self._is_stopped = False
        self._ended_by: forebay.DaemonUnavailableError | None = None

    def run(self, job: _Job) -> None:
        self._add(job)
        job.copy()
        self._count(failed=False)

    def all(self, jobs: Iterator[_Job], source: str, *, threads: int) -> None:
        """Run all jobs; those that fail do not keep the others. Raises ForebayError, or
        click.ClickException if one failed."""
        places = threading.Semaphore(2 * threads)  # so that a million jobs do not wait in memory

        def attempt(job: _Job) -> None:
            try:
                job.copy()
            except _StoppedError:
                pass
            except forebay.DaemonUnavailableError as error:  # the others would wait as long each
                self._ended_by = error
                self._is_stopped = True
            except Exception as error:
                self._tell(error)
            else:
                self._count(failed=False)
            finally:
                places.release()

        with ThreadPoolExecutor(threads) as pool:
            try:
                for job in jobs:
                    places.acquire()
                    if self._is_stopped:
                        break
                    self._add(job)
                    pool.submit(attempt, job)
                pool.shutdown()  # here, so that Ctrl-C stops those that are left
            except BaseException:
                self._is_stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._ended_by is not None:
            raise self._ended_by
        if not self._found:
            raise forebay.ObjectNotFoundError(f"there is nothing below {source}")
        if self._failed:
            raise click.ClickException(
                f"{self._failed:,} of {self._found:,} objects could not be copied"
            )

    def fail(self, error: OSError) -> None:
        """Count what cannot even be looked at; the rest is copied."""
        self._add(_Job("", 0, lambda: None))
        self._tell(error)

    def download(self, uri: str, folder: Path, parts: tuple[str, ...] = ()) -> None:
        target = folder.joinpath(*map(_file_name, parts))
        if str(target) == "/dev/stdout":  # what it is redirected to is not to be replaced
            self._receive(uri, sys.stdout.buffer)
            sys.stdout.flush()
            return
        if target.exists() and not target.is_file():  # a device or a pipe; folders raise
            with target.open("wb") as sink:
                self._receive(uri, sink)
            return
        target = Path(os.path.realpath(target))  # a link stays one: what it leads to is written
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".forebay-{secrets.token_hex(8)}.part")
        try:
            with scratch.open("xb") as sink:
                self._receive(uri, sink)
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(target, scratch)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def _receive(self, uri: str, sink: BinaryIO) -> None:
        with self._client.open(uri) as file:
            while chunk := file.read(_CHUNK_BYTES):
                sink.write(chunk)
                self._advance(len(chunk))

    def upload_file(self, path: Path, uri: str) -> None:
        check_text(uri)
        if path.exists() and not path.is_file():  # such as a pipe, which would never end
            raise click.ClickException(f"{path} is neither a file nor a folder")
        self.upload(path, uri)

    def upload(self, path: Path, uri: str) -> None:
        # Unbuffered, for a pipe: Ctrl-C is noticed between any two reads.
        with path.open("rb", buffering=0) as file, self._client.open(uri, "wb") as sink:
            while chunk := file.read(_CHUNK_BYTES):
                sink.write(chunk)
                self._advance(len(chunk))

    def copy(self, stat: forebay.Stat, uri: str) -> None:
        self._client.copy(stat.uri, uri)
        self._advance(stat.size_bytes)

    def _add(self, job: _Job) -> None:
        with self._lock:
            self._found += 1
            self._total_bytes += job.size_bytes
            total, found = self._total_bytes, self._found
        self._bar.update(self._task, description=job.name, total=total, objects_total=found)

    def _advance(self, size_bytes: int) -> None:
        if self._is_stopped:
            raise _StoppedError
        self._bar.advance(self._task, size_bytes)

    def _tell(self, error: Exception) -> None:
        click.echo(f"forebay: {error}", err=True)
        self._count(failed=True)

    def _count(self, *, failed: bool) -> None:
        with self._lock:
            self._failed += failed
            self._done += not failed
            done = self._done
        self._bar.update(self._task, objects_done=done)


def _files(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the files below a folder, through links too, but never round in a circle."""
    waiting: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]
    while waiting:
        here, above = waiting.pop()
        chain = (*above, os.path.realpath(here))
        try:
            inside = sorted(here.iterdir())
        except OSError as error:
            on_error(error)
            continue
        for path in inside:
            if not os.path.isdir(path):  # noqa: PTH112  # also what one may not look at
                yield path
            elif not _leads_back(os.path.realpath(path), chain):
                waiting.append((path, chain))


def _leads_back(real: str, chain: tuple[str, ...]) -> bool:
    """Tell whether a folder is, or holds, one of those that were passed on the way to it."""
    return any(real == each or each.startswith(real.rstrip("/") + "/") for each in chain)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # which opening it will tell
        return 0


def _file_name(part: str) -> str:
    """Return a key's component as a file name. Raises InvalidPathError for what leads elsewhere."""
    if part in ("", os.curdir, os.pardir) or "\0" in part:
        raise forebay.InvalidPathError(f"the key component {part!r} cannot be a file name")
    return part


def _bar() -> Progress:
    return progress_bar(DownloadColumn(binary_units=True), ObjectsColumn(), TransferSpeedColumn())
