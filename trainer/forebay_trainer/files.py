"""Every byte of a training, in and out: objects through :mod:`forebay`, local files as they are."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import forebay
from forebay import _environment
from forebay._paths import Paths, check_mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Result = TypeVar("Result")

_LOCAL_BACKENDS = ("disk", "local")


@functools.lru_cache(maxsize=16)
def _client(items: tuple[tuple[str, str], ...], _: tuple[str | None, ...]) -> forebay.Client:
    return forebay.Client(path_mapping=dict(items))


class Files:
    """Paths as a configuration names them; cheap to make, and picklable.

    A path is an object's if it is a URI, or if a mapping covers it: the given one, that of
    ``FOREBAY_PATH_MAPPING``, the daemon's. Any other is a local file's, and needs no daemon.
    """

    def __init__(self, path_mapping: Mapping[str, str] | None = None) -> None:
        self._items = tuple((path_mapping or {}).items())
        self._fetched: dict[str, bytes] = {}

    @classmethod
    def of(cls, file_client_args: Mapping[str, Any] | None) -> Files:
        """Return the files of a configuration's ``file_client_args``.

        The backend decides nothing but this: with ``disk`` the given mapping is not looked at, as
        upstream's takes none. All others are Forebay.
        """
        arguments = dict(file_client_args or {})
        if arguments.get("backend", "disk") in _LOCAL_BACKENDS:
            return cls()
        return cls(arguments.get("path_mapping"))

    @property
    def client(self) -> forebay.Client:
        """The client of this process, shared by all with the same mapping."""
        return _client(self._items, _environment.values())

    def is_object(self, path: str | os.PathLike[str]) -> bool:
        text = os.fspath(path)
        return "://" in text or self.client.is_mapped(text)

    def mapped(self, path: str) -> str:
        """Return where the given mapping leads, or *path* where it does not cover it."""
        paths = Paths([check_mapping(dict(self._items))])
        return paths.uri(path) if paths.maps(path) else path

    def prefetch(self, paths: Iterable[str]) -> None:
        """Fetch at once those objects that are not cached, for one ``apply`` of each.

        Their bytes are kept until then: nothing is fetched twice, also where the cache has no room
        or is another host's. What the previous call has fetched is forgotten.
        """
        missing = [
            path
            for path in dict.fromkeys(paths)
            if self.is_object(path) and not self.client.is_cached(path)
        ]
        found = self.client.get_many(missing) if missing else []
        self._fetched = dict(zip(missing, found, strict=True))

    def apply(self, path: str, function: Callable[[memoryview], Result]) -> Result:
        """Return what *function* makes of the bytes; those of a cached object are not copied.

        It may be called again, if the object was evicted meanwhile, and must not keep the view.
        """
        fetched = self._fetched.pop(path, None)
        if fetched is not None:
            return function(memoryview(fetched))
        if self.is_object(path):
            return self.client.apply(path, function)
        return function(memoryview(Path(path).read_bytes()))

    def get(self, path: str) -> bytes:
        """Return the bytes. Raises FileNotFoundError."""
        return self.client.get(path) if self.is_object(path) else Path(path).read_bytes()

    def get_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of each, what is not cached being fetched at once."""
        objects = [path for path in paths if self.is_object(path)]
        found = dict(zip(objects, self.client.get_many(objects), strict=True)) if objects else {}
        return [found[path] if path in found else Path(path).read_bytes() for path in paths]

    def put(self, path: str, data: bytes | str) -> None:
        """Write a whole object or file; it has its name only when it is complete."""
        with self.open(path, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)

    @contextlib.contextmanager
    def open(self, path: str, mode: str = "rb") -> Iterator[Any]:
        """Open for "rb" or "wb"; what is written is seen when the block has ended without error."""
        if self.is_object(path):
            with self.client.open(path, mode) as file:
                yield file
        elif mode == "rb":
            with Path(path).open("rb") as file:
                yield file
        else:
            final = Path(path)
            final.parent.mkdir(parents=True, exist_ok=True)
            scratch = final.with_name(f".{final.name}.{os.getpid()}")
            try:
                with scratch.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                scratch.replace(final)
            finally:
                scratch.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        return self.client.exists(path) if self.is_object(path) else Path(path).exists()

    def names(self, path: str) -> list[str]:
        """Return the names of the files and objects directly in a folder, sorted; none if there is
        no such folder.
        """
        if not self.is_object(path):
            return sorted(found.name for found in Path(path).glob("*") if found.is_file())
        found = [each.uri for each in self.client.list(path) if isinstance(each, forebay.Stat)]
        return sorted(uri.rpartition("/")[2] for uri in found)

    def remove(self, path: str) -> None:
        """Remove an object or file; nothing happens if there is none."""
        if self.is_object(path):
            self.client.remove(path, missing_ok=True)
        else:
            Path(path).unlink(missing_ok=True)

    def local_path(self, path: str) -> contextlib.AbstractContextManager[Any]:
        """Lend a local file with the bytes, for libraries that want one."""
        if self.is_object(path):
            return self.client.local_path(path)
        return contextlib.nullcontext(path)
