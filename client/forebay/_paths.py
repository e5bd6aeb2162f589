"""From a path as a config writes it to a URI.

A mapping turns a prefix of whole path components into another, at the start only, once: the longest
one wins. Local paths are compared in normal form (``./data//x`` is ``data/x``); the keys of URIs are
names in an object store and stay as they are.
"""

from __future__ import annotations

import json
import os
import posixpath
from typing import TYPE_CHECKING

from forebay._errors import InvalidPathError
from forebay_protos import uris

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def parse_mapping(text: str) -> dict[str, str]:
    """Parse ``FOREBAY_PATH_MAPPING``: a JSON object, or FROM=TO pairs separated by commas.

    Raises InvalidPathError with what is wrong.
    """
    text = text.strip()
    if not text:
        return {}
    if text.startswith("{"):
        try:
            table = json.loads(text)
        except ValueError as error:
            raise InvalidPathError(f"path mapping is no JSON object: {error}") from error
        if not all(isinstance(value, str) for value in table.values()):
            raise InvalidPathError("path mapping must map strings to strings")
        return dict(table)
    table = {}
    for pair in text.split(","):
        source, separator, target = pair.strip().partition("=")
        if not separator or not source or not target:
            raise InvalidPathError(
                f"path mapping {pair!r} is not FROM=TO; write pairs separated by commas, or JSON"
            )
        table[source] = target
    return table


class PathMapping:
    """Mappings in tiers: the first tier that has a prefix of the path decides."""

    def __init__(self, tiers: Sequence[Mapping[str, str]]) -> None:
        """Check and sort the tables. Raises InvalidPathError for a target that is no URI."""
        self._tiers = [_checked(tier) for tier in tiers if tier]

    def uri(self, path: str | os.PathLike[str]) -> str:
        """Return the canonical URI of *path*. Raises InvalidPathError if there is none."""
        text = os.fspath(path)
        if not isinstance(text, str):
            raise InvalidPathError(f"{path!r} is not text: give str or a path")
        if not text:
            raise InvalidPathError("the path is empty: give s3://bucket/key or a mapped path")
        normal = _normal(text)
        for tier in self._tiers:
            found = uris.longest_prefix(normal, tier)
            if found is not None:
                prefix, target = found
                text = _join(target, normal[len(prefix) :])
                break
        try:
            return uris.canonical(text)
        except ValueError as error:
            raise InvalidPathError(str(error)) from error


def _normal(path: str) -> str:
    """Return a local path in normal form, with its last slash; a URI as it is."""
    if uris.is_uri(path):
        return path
    normal = posixpath.normpath(path)
    return normal + "/" if path.endswith("/") and normal != "/" else normal


def _join(target: str, rest: str) -> str:
    rest = rest.lstrip("/") if not target.endswith("/") or rest.startswith("/") else rest
    if not rest:
        return target
    return target + rest if target.endswith("/") else f"{target}/{rest}"


def _checked(table: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for source, target in table.items():
        if not uris.is_uri(target):
            raise InvalidPathError(
                f"path mapping {source!r} leads to {target!r}, which is no URI: "
                "map to s3://bucket/prefix/"
            )
        # Without its last slash: the prefix is one of whole components either way, and the
        # folder itself, written without the slash, is mapped too.
        key = _normal(source)
        key = key if key.endswith("://") or key == "/" else key.rstrip("/")
        checked[key] = target
    return checked
