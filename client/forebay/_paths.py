"""Paths as users write them to URIs. Pure text: knows nothing of files, the daemon or the table.

A path is a URI, or a local path that a *path mapping* turns into one. Mappings come in tiers (the
client's, ``FOREBAY_PATH_MAPPING``, the daemon's): the first tier with a match decides, in it the
longest prefix of whole components, at the start only, once. Local paths are normalised lexically
(``./data//x`` is ``data/x``); a URI never is: ``..`` and ``//`` are names in an object store.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Union

from forebay._errors import InvalidPathError
from forebay_protos import uris

if TYPE_CHECKING:
    from collections.abc import Iterable

StrPath = Union[str, "os.PathLike[str]"]
Tier = tuple[tuple[str, str], ...]
"""A checked mapping: (prefix in normal form, canonical URI), both without a slash at the end."""


def as_text(path: StrPath) -> str:
    """Return *path* as str. Raises TypeError for anything that is no path, bytes included."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is str or os.PathLike of str, not {path!r}")
    return text


def parse_mapping(text: str) -> dict[str, str]:
    """Parse ``FOREBAY_PATH_MAPPING``: a JSON object, or FROM=TO pairs separated by commas."""
    if text.lstrip().startswith("{"):
        try:
            mapping: dict[str, str] = json.loads(text)
        except ValueError as error:
            raise InvalidPathError(f"FOREBAY_PATH_MAPPING is not valid JSON: {error}") from error
        if not all(isinstance(value, str) for value in mapping.values()):
            raise InvalidPathError(f"FOREBAY_PATH_MAPPING must map texts to texts: {text}")
        return mapping
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not all(prefix and target for prefix, _, target in pairs):
        raise InvalidPathError(f"FOREBAY_PATH_MAPPING must be FROM=TO,FROM=TO or JSON: {text}")
    return {prefix: target for prefix, _, target in pairs}


def check_mapping(mapping: Mapping[str, str]) -> Tier:
    """Return a mapping as users write it in the form that ``Paths`` takes.

    Raises InvalidPathError for a target that is no URI, TypeError for what is no mapping.
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"path_mapping maps prefixes to URIs, it cannot be {mapping!r}")
    tier = {}
    for prefix, target in mapping.items():
        if not prefix:
            raise InvalidPathError("path_mapping: the prefix is empty: write './' or '/'")
        try:
            uri = uris.canonical(as_text(target))
        except ValueError as error:
            raise InvalidPathError(f"path_mapping: {prefix!r} leads to no URI: {error}") from error
        tier[_normal(as_text(prefix)).removesuffix("/") or "/"] = uri.removesuffix("/")
    return tuple(tier.items())


def _normal(path: str) -> str:
    """Return a path as prefixes are compared: ``./data/x``, ``/data/x``, ``../x`` or a URI."""
    if uris.is_uri(path):
        head, separator, rest = path.partition("://")
        cluster, colon, scheme = head.rpartition(":")
        return cluster + colon + scheme.lower() + separator + rest
    normal = posixpath.normpath(path)
    if normal.startswith("/"):
        normal = "/" + normal.lstrip("/")
    elif normal not in (".", "..") and not normal.startswith("../"):
        normal = f"./{normal}"
    return normal + "/" if path.endswith("/") and normal != "/" else normal


class Paths:
    """Turns paths into canonical URIs."""

    def __init__(self, tiers: Iterable[Tier]) -> None:
        """*tiers*: the most important first."""
        self._tiers = [dict(tier) for tier in tiers if tier]

    def uri(self, path: str) -> str:
        """Return the canonical URI of *path*. Raises InvalidPathError, which says what to do."""
        if not path:
            raise InvalidPathError("the path is empty: give s3://bucket/key or a mapped path")
        normal = _normal(path)
        uri = self._map(normal)
        if uri is None:
            uri = normal if uris.is_uri(normal) else path  # which an error names as it was written
        try:
            return uris.canonical(uri)
        except ValueError as error:
            raise InvalidPathError(str(error)) from error

    def maps(self, path: str) -> bool:
        """Tell whether *path* lies below a prefix of a mapping."""
        return self._map(_normal(path)) is not None

    def covers(self, path: str) -> bool:
        """Tell whether *path* is a URI or lies below a prefix of a mapping."""
        return uris.is_uri(path) or self.maps(path)

    def _map(self, normal: str) -> str | None:
        for tier in self._tiers:
            found = uris.longest_prefix(normal, tier)
            if found is not None:
                prefix, target = found
                rest = normal if prefix == "/" else normal[len(prefix) :]
                # "file:///" has lost its last slash, and the root itself needs it.
                return target + (rest or ("/" if target.endswith("/") else ""))
        return None

    def is_uniform_below(self, folder: str) -> bool:
        """Tell whether all plain names in *folder* are mapped alike.

        That is so unless a mapping names something in the folder itself.
        """
        prefix = _normal(folder + "/")
        return not any(key.startswith(prefix) for tier in self._tiers for key in tier)
