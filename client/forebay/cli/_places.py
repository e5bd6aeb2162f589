"""Arguments of the command line: local files, or objects and prefixes?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import forebay
from forebay.cli._common import check_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Place:
    """What an argument names."""

    text: str
    uri: str  # "" for a local file or folder

    @property
    def is_local(self) -> bool:
        return not self.uri

    @property
    def is_slashed(self) -> bool:
        """Tell whether it is written as a folder."""
        return self.text.endswith("/")


def find_place(client: forebay.Client, text: str) -> Place:
    """Return what *text* names: URIs and mapped paths name objects, the rest local files.

    Raises click.UsageError for a mapped path that is a local file, too, NotTextError for a name
    that no object has.
    """
    is_uri = "://" in text
    if not is_uri and not client._misses.paths(client._timeout_s).covers(text):
        return Place(text, "")
    check_text(text)
    uri = client._uri(text)
    if not is_uri and os.path.lexists(text):
        raise click.UsageError(
            f"{text} is a local file or folder and, by the path mapping, {uri}: write "
            f"{uri} or {os.path.realpath(text)}"
        )
    return Place(text, uri)


def object_below(client: forebay.Client, target: Place, name: str) -> str:
    """Return the URI of what is copied to *target*, into it if it is a folder, as in ``cp``.

    It is if it is written with a slash at the end, if it is a bucket, and if there is no object of
    this name but some below it. Raises NotTextError for a name that no object has.
    """
    bucket, _, key = target.uri.partition("://")[2].partition("/")
    is_folder = target.uri.endswith("/") or (bucket and not key)
    if not is_folder:
        try:
            is_folder = client._stat(target.uri).is_prefix
        except forebay.ObjectNotFoundError:
            is_folder = False
    if not is_folder:
        return target.uri
    check_text(name)
    return target.uri.rstrip("/") + "/" + name


def below(client: forebay.Client, source: str) -> Iterator[tuple[forebay.Stat, tuple[str, ...]]]:
    """Yield the objects below a prefix, with the components of their names below it."""
    prefix = client._uri(source).rstrip("/") + "/"
    for entry in client.list(source, recursive=True):
        # Markers of folders, which other tools make, are no files.
        if isinstance(entry, forebay.Stat) and not entry.uri.endswith("/"):
            yield entry, tuple(entry.uri.removeprefix(prefix).split("/"))
