"""What every origin must do. A new origin is one subclass with a ``place`` fixture.

A :class:`Place` is somewhere to put objects without the origin's help, and the configuration that
leads to them.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import pytest

from forebayd.errors import ObjectNotFoundError, VersionChangedError
from forebayd.origin.build import build

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from forebayd.config import OriginConfig
    from forebayd.origin.base import ObjectInfo, Origin

T = TypeVar("T")

# Names that every kind of store can hold.
ODD_KEYS = [
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ä/ö",
    "日本/語",
    "😀",
    "a=b&c",
    "a'b",
    "a(b)",
    "~a",
    "a,b;c",
]


class Writer(Protocol):
    """Puts an object; the key is relative to the place's root."""

    def __call__(self, key: str, data: bytes) -> None: ...


class Runner:
    """An event loop and the origins that were opened in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._origins: dict[OriginConfig, Origin] = {}

    def run(self, config: OriginConfig, work: Callable[[Origin], Awaitable[T]]) -> T:
        async def run() -> T:
            if config not in self._origins:
                self._origins[config] = build(config)
            return await work(self._origins[config])

        return self._loop.run_until_complete(run())

    def use(self, origin: Origin, work: Callable[[Origin], Awaitable[T]]) -> T:
        """Return what *work* returns for an origin that the caller closes."""

        async def run() -> T:
            return await work(origin)

        return self._loop.run_until_complete(run())

    def close(self) -> None:
        for origin in self._origins.values():
            self._loop.run_until_complete(origin.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


@dataclass(frozen=True)
class Place:
    """Where an origin's objects are."""

    config: OriginConfig
    root: str  # a URI that ends with "/"
    put: Writer
    runner: Runner = field(default_factory=Runner)

    def use(self, work: Callable[[Origin], Awaitable[T]]) -> T:
        """Return what *work* returns for the origin."""
        return self.runner.run(self.config, work)

    def head(self, key: str) -> ObjectInfo:
        return self.use(lambda origin: origin.head(self.root + key))

    def get(
        self, key: str, start: int = 0, end: int = 1 << 20, version: str | None = None
    ) -> bytes:
        async def get(origin: Origin) -> bytes:
            body = await origin.get_range(self.root + key, start, end, version=version)
            assert body.info.uri == self.root + key
            return bytes(body.data)

        return self.use(get)

    def list(self, prefix: str, *, recursive: bool = False) -> tuple[list[ObjectInfo], list[str]]:
        """Return all objects, and the prefixes relative to the root."""

        async def read(origin: Origin) -> tuple[list[ObjectInfo], list[str]]:
            objects: list[ObjectInfo] = []
            prefixes: list[str] = []
            async for page in origin.list(self.root + prefix, recursive=recursive):
                objects += page.objects
                prefixes += page.prefixes
            return objects, [uri.removeprefix(self.root) for uri in prefixes]

        return self.use(read)

    def names(self, prefix: str, *, recursive: bool = False) -> set[str]:
        """Return objects and prefixes below *prefix*, relative to the root."""
        objects, prefixes = self.list(prefix, recursive=recursive)
        assert len(objects) == len({info.uri for info in objects})
        return {info.uri.removeprefix(self.root) for info in objects} | set(prefixes)


class OriginContract:
    """Subclass it as ``TestSomething`` with a ``place`` fixture."""

    @pytest.fixture(autouse=True)
    def _close(self, place: Place) -> Iterator[None]:
        yield
        place.runner.close()

    def test_head_tells_size_version_and_time(self, place: Place) -> None:
        place.put("k", b"12345")

        info = place.head("k")

        assert (info.uri, info.size_bytes) == (place.root + "k", 5)
        assert info.version
        assert info.modified is not None
        assert abs(info.modified - time.time()) < 3600

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (0, 10, b"0123456789"),
            (0, 3, b"012"),
            (2, 5, b"234"),
            (9, 10, b"9"),
            (7, 1000, b"789"),
            (0, 1 << 40, b"0123456789"),
            (10, 20, b""),
            (500, 1000, b""),
            (3, 3, b""),
        ],
    )
    def test_range_is_half_open_and_ends_with_the_object(
        self, place: Place, start: int, end: int, expected: bytes
    ) -> None:
        place.put("k", b"0123456789")

        assert place.get("k", start, end) == expected

    def test_body_carries_the_whole_objects_info(self, place: Place) -> None:
        place.put("k", b"0123456789")

        async def get(origin: Origin) -> ObjectInfo:
            return (await origin.get_range(place.root + "k", 2, 5)).info

        assert place.use(get) == place.head("k")

    def test_empty_object_reads_as_no_bytes(self, place: Place) -> None:
        place.put("k", b"")

        assert place.get("k") == b""
        assert place.head("k").size_bytes == 0

    def test_missing_object_is_not_found(self, place: Place) -> None:
        place.put("k", b"1")

        with pytest.raises(ObjectNotFoundError, match="k2"):
            place.head("k2")
        with pytest.raises(ObjectNotFoundError, match="k2"):
            place.get("k2")

    def test_folder_is_no_object(self, place: Place) -> None:
        place.put("folder/k", b"1")

        with pytest.raises(ObjectNotFoundError):
            place.head("folder")

    def test_version_that_still_is_can_be_read(self, place: Place) -> None:
        place.put("k", b"0123456789")
        version = place.head("k").version

        assert place.get("k", 0, 5, version) == b"01234"
        assert place.get("k", 5, 10, version) == b"56789"
        assert place.get("k", 10, 20, version) == b""

    def test_version_that_is_gone_is_refused(self, place: Place) -> None:
        place.put("k", b"old")
        version = place.head("k").version
        place.put("k", b"newer")

        assert place.head("k").version != version
        with pytest.raises(VersionChangedError, match="k"):
            place.get("k", 0, 5, version)
        with pytest.raises(VersionChangedError, match="k"):
            place.get("k", 100, 200, version)

    def test_odd_keys_are_read_and_listed(self, place: Place) -> None:
        keys = {f"odd/{key}" for key in ODD_KEYS}
        for key in keys:
            place.put(key, key.encode())

        assert {key for key in keys if place.get(key) == key.encode()} == keys
        assert place.names("odd", recursive=True) == keys

    def test_listing_shows_one_level_or_all(self, place: Place) -> None:
        for key in ("top/k", "top/a/1", "top/a/b/2", "topper/3", "top2"):
            place.put(key, b"1")

        assert place.names("top") == {"top/k", "top/a/"}
        assert place.names("top/") == {"top/k", "top/a/"}
        assert place.names("top", recursive=True) == {"top/k", "top/a/1", "top/a/b/2"}

    def test_listing_of_nothing_is_empty(self, place: Place) -> None:
        place.put("folder/k", b"1")

        assert place.names("missing") == set()
        assert place.names("missing", recursive=True) == set()
        assert place.names("fold") == set()

    def test_listing_tells_the_same_as_head(self, place: Place) -> None:
        place.put("folder/k", b"12345")

        (listed,), _ = place.list("folder")

        told = place.head("folder/k")
        assert (listed.uri, listed.size_bytes, listed.version) == (
            told.uri,
            told.size_bytes,
            told.version,
        )

    def test_many_requests_at_once_are_all_answered(self, place: Place) -> None:
        for i in range(8):
            place.put(f"many/{i}", str(i).encode())

        async def get(origin: Origin) -> list[bytes]:
            uris = [f"{place.root}many/{i % 8}" for i in range(40)]
            bodies = await asyncio.gather(*(origin.get_range(uri, 0, 100) for uri in uris))
            return [bytes(body.data) for body in bodies]

        expected = [str(i % 8).encode() for i in range(40)]
        narrow = replace(place, config=replace(place.config, max_requests=3))
        assert narrow.use(get) == expected
