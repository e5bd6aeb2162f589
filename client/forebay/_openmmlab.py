"""What the plugs of mmcv and mmengine have in common; imports neither.

Their backends differ in what ``get`` returns, in how folders are listed and in which errors they
promise; what they do to paths and objects is the same, and is here.
"""

from __future__ import annotations

import contextlib
import functools
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay import _environment
from forebay._client import Client
from forebay._paths import Paths, as_text, check_mapping
from forebay._petrel_conf import default_cluster
from forebay._values import Stat
from forebay_protos import uris

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from typing_extensions import Buffer

    from forebay._paths import StrPath

_OBJECT_FIRST = (
    "get",
    "get_text",
    "remove",
    "exists",
    "isdir",
    "isfile",
    "get_local_path",
    "list_dir_or_file",
    "copyfile_to_local",
    "copytree_to_local",
)
_OBJECT_SECOND = ("put", "put_text", "copyfile_from_local", "copytree_from_local")
_NAMES = ("filepath", "dir_path", "dst", "src")  # what upstream calls it


@functools.lru_cache(maxsize=64)
def _shared(
    items: tuple[tuple[str, str], ...],
    conf_path: str | None,
    address: str | None,
    timeout_s: float,
    _: tuple[str | None, ...],
) -> tuple[Client, Paths, str]:
    """Return (client, own mapping, default cluster): backends are made for every read by some."""
    cluster = default_cluster(conf_path)
    mapping = {key: _with_cluster(target, cluster) for key, target in items}
    return Client(address, mapping, timeout_s), Paths((check_mapping(mapping),)), cluster


def _with_cluster(uri: str, cluster: str) -> str:
    if "petrel://" in as_text(uri):
        uri = uri.replace("petrel://", "s3://", 1)
    return f"{cluster}:{uri}" if cluster and uri.startswith("s3://") else uri


class Objects:
    """Objects as the file clients of OpenMMLab see them. Cheap to make."""

    _allow_symlink = False
    _folder_mark = ""  # behind the names of folders in listings

    def __init__(
        self,
        path_mapping: dict[str, str] | None = None,
        enable_mc: bool = True,
        conf_path: str | None = None,
        *,
        address: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Make a backend.

        Args:
            path_mapping: prefixes of paths and what takes their place. Unlike upstream's, a key
                matches at the start of a path only, whole components, and one of them once.
            enable_mc: ignored: Forebay is the cache.
            conf_path: the configuration file of ``petrel_client``; only its default cluster counts,
                keys and endpoints are the daemon's.
            address: of the daemon, see :class:`forebay.Client`.
            timeout_s: see :class:`forebay.Client`.
        """
        # An AssertionError is what upstream raises.
        assert isinstance(path_mapping, dict) or path_mapping is None  # noqa: S101
        self.path_mapping = path_mapping
        items = tuple(path_mapping.items()) if path_mapping else ()
        shared = _shared(items, conf_path, address, timeout_s, _environment.values())
        self._client, self._own_paths, self._cluster = shared

    def _objects_below(self, dir_path: StrPath) -> Iterator[tuple[str, str]]:
        """Yield (URI, name relative to *dir_path*) of the objects there, but not folders' marks."""
        root = self._client._uri(self._object(dir_path)).rstrip("/") + "/"
        plain = uris.without_cluster(root)
        for entry in self._client.list(root, recursive=True):
            if isinstance(entry, Stat) and not entry.uri.endswith("/"):
                yield entry.uri, entry.uri.removeprefix(root).removeprefix(plain)

    # --- paths -------------------------------------------------------------------------------

    def _map_path(self, filepath: StrPath) -> str:
        path = str(filepath)
        return self._own_paths.uri(path) if self._own_paths.maps(path) else path

    @staticmethod
    def _format_path(filepath: str) -> str:
        """Return a path that ``os.path.join`` made on Windows as it was meant."""
        while "\\" in filepath:
            head, _, tail = filepath.partition("\\")
            filepath = f"{head}/{tail.lstrip(chr(92))}"
        return filepath

    def _object(self, filepath: StrPath) -> str:
        """Return a path as the client takes it."""
        path = filepath if type(filepath) is str else as_text(filepath)
        if "\\" in path:
            path = self._format_path(path)
        return _with_cluster(path, self._cluster)

    def _join(self, filepath: StrPath, parts: tuple[StrPath, ...], *, strip: bool) -> str:
        joined = [self._format_path(self._map_path(filepath)).removesuffix("/")]
        for part in parts:
            text = self._format_path(str(part))
            joined.append(text.lstrip("/") if strip else text)
        return "/".join(joined)

    # --- objects -----------------------------------------------------------------------------

    def get_text(self, filepath: StrPath, encoding: str = "utf-8") -> str:
        return self._read(filepath).decode(encoding)

    def _read(self, filepath: StrPath) -> bytes:
        return self._client.get(self._object(filepath))

    def put(self, obj: Buffer | str, filepath: StrPath) -> None:
        """Write an object; it is durable on this node when this returns."""
        self._client.put(self._object(filepath), obj)

    def put_text(self, obj: str, filepath: StrPath, encoding: str = "utf-8") -> None:
        self.put(obj.encode(encoding), filepath)

    def exists(self, filepath: StrPath) -> bool:
        return self._client.exists(self._object(filepath))

    def isdir(self, filepath: StrPath) -> bool:
        return self._client.isdir(self._object(filepath))

    def isfile(self, filepath: StrPath) -> bool:
        path = self._object(filepath)
        return not path.endswith("/") and self._client.isfile(path)

    def get_local_path(self, filepath: StrPath) -> AbstractContextManager[str]:
        """Return a context manager of a local file, for reading only: the cached one if it can be.

        Of a prefix, a folder.
        """
        return self._client.local_path(self._object(filepath))

    def list_dir_or_file(
        self,
        dir_path: StrPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Return names relative to *dir_path*. Raises TypeError at once, as upstream does."""
        if list_dir and suffix is not None:
            raise TypeError("`list_dir` should be False when `suffix` is not None")
        if suffix is not None and not isinstance(suffix, (str, tuple)):
            raise TypeError("`suffix` must be a string or tuple of strings")
        root = self._client._uri(self._object(dir_path)).rstrip("/") + "/"
        return (
            name[:-1] + self._folder_mark if name.endswith("/") else name
            for name in self._below(root, recursive=recursive)
            if (
                list_dir
                if name.endswith("/")
                else list_file and (not suffix or name.endswith(suffix))
            )
        )

    def _below(self, root: str, *, recursive: bool) -> Iterator[str]:
        """Yield names relative to *root*, those of folders with a slash and before what they hold.

        The markers of empty folders, which some tools make, are those folders.
        """
        told: set[str] = set()
        plain = uris.without_cluster(root)  # as it is known where no origin is of that cluster
        entries = self._client.list(root, recursive=recursive)
        uris_below = (entry if isinstance(entry, str) else entry.uri for entry in entries)
        # Folders come after the objects of their page; recursively, there are none.
        for uri in uris_below if recursive else sorted(uris_below):
            name = uri.removeprefix(root).removeprefix(plain)
            at = name.find("/")
            while at >= 0:
                folder = name[: at + 1]
                if folder not in told and not ("/" + folder).endswith("//"):  # it has a name
                    told.add(folder)
                    yield folder
                at = name.find("/", at + 1)
            if name and not name.endswith("/"):
                yield name


class CachedFiles(Objects):
    """Answers for ``memcached``, whose servers cache files: what no mapping covers is one."""

    def __init__(
        self, server_list_cfg: str = "", client_cfg: str = "", sys_path: str | None = None
    ) -> None:
        """The arguments are upstream's, and ignored: Forebay is the cache."""
        del server_list_cfg, client_cfg, sys_path
        super().__init__()

    def _read(self, filepath: StrPath) -> bytes:
        path = self._object(filepath)
        if "://" in path or self._client.is_mapped(path):
            return super()._read(path)
        return Path(path).read_bytes()


class MappedFiles:
    """In front of upstream's backend of local files: takes mapped paths from objects.

    What no mapping covers passes through untouched. A subclass names in ``_objects_class`` whose
    objects these are, and upstream's backend as its second base.
    """

    _objects_class: type[Objects]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._objects = self._objects_class()

    def _is_mapped(self, path: object) -> bool:
        is_path = isinstance(path, (str, os.PathLike)) and isinstance(os.fspath(path), str)
        return is_path and self._objects._client.is_mapped(path)  # type: ignore[arg-type]

    def rmtree(self, dir_path: StrPath) -> None:
        if not self._is_mapped(dir_path):
            super().rmtree(dir_path)  # type: ignore[misc]  # upstream's
        elif self._objects.isdir(dir_path):
            self._objects.rmtree(dir_path)  # type: ignore[attr-defined]  # mmengine's
        else:
            raise FileNotFoundError(f"there is no folder {dir_path}")

    def copyfile(self, src: StrPath, dst: StrPath) -> Any:
        return self._copy("copyfile", src, dst)

    def copytree(self, src: StrPath, dst: StrPath) -> Any:
        if self._is_mapped(src) and not self._is_mapped(dst) and Path(dst).exists():
            raise FileExistsError(f"dst should not exist: {dst}")
        return self._copy("copytree", src, dst)

    def _copy(self, kind: str, src: StrPath, dst: StrPath) -> Any:
        if not self._is_mapped(src) and not self._is_mapped(dst):
            return getattr(super(), kind)(src, dst)
        if self._is_mapped(src) and self._is_mapped(dst):
            return getattr(self._objects, kind)(src, dst)
        direction = "to_local" if self._is_mapped(src) else "from_local"
        return getattr(self._objects, f"{kind}_{direction}")(src, dst)

    def copy_if_symlink_fails(self, src: StrPath, dst: StrPath) -> bool:
        if not self._is_mapped(src) and not self._is_mapped(dst):
            return bool(super().copy_if_symlink_fails(src, dst))  # type: ignore[misc]  # upstream's
        is_file: bool = self.isfile(src)  # type: ignore[attr-defined]  # upstream's
        (self.copyfile if is_file else self.copytree)(src, dst)
        return False


def _by_path(name: str, index: int) -> Callable[..., Any]:
    def method(self: MappedFiles, *args: Any, **kwargs: Any) -> Any:
        path = args[index] if len(args) > index else _by_name(kwargs)
        chosen = self._objects if self._is_mapped(path) else super(MappedFiles, self)
        return getattr(chosen, name)(*args, **kwargs)

    method.__name__ = name
    return method


def _by_name(kwargs: dict[str, Any]) -> Any:
    return next((kwargs[name] for name in _NAMES if name in kwargs), None)


for _index, _methods in enumerate((_OBJECT_FIRST, _OBJECT_SECOND)):
    for _name in _methods:
        setattr(MappedFiles, _name, _by_path(_name, _index))


def load_mapped(
    load: Callable[..., Any], backend: type[Objects], load_file: Callable[[str, Any], Any]
) -> Callable[..., Any]:
    """Return upstream's *load* of a checkpoint, but for paths that a mapping covers.

    Those are the objects of a *backend*, which *load_file* then loads.
    """

    def load_from_mapped(filename: str, map_location: Any = None, **kwargs: Any) -> Any:
        objects = backend()
        if not objects._client.is_mapped(filename):
            return load(filename, map_location=map_location, **kwargs)
        if not objects.isfile(filename):
            raise FileNotFoundError(f"{filename} can not be found.")
        with objects.get_local_path(filename) as path:
            return load_file(path, map_location)

    load_from_mapped.__name__ = load.__name__  # of which upstream logs a part
    return load_from_mapped


class LeasedLmdb:
    """In front of upstream's LMDB backend: opens databases that are objects, too.

    Such a one is cached, and pinned while this lives.
    """

    db_path: str
    readonly: bool
    lock: bool
    readahead: bool
    kwargs: dict[str, Any]
    _client: Any = None
    _lease: ExitStack | None = None
    _pid = 0

    def _get_client(self) -> Any:
        client = Client()
        if not ("://" in self.db_path or client.is_mapped(self.db_path)):
            return super()._get_client()  # type: ignore[misc]  # upstream's
        if not self.readonly or self.lock:
            raise ValueError(
                f"{self.db_path} is an object: open its LMDB with readonly=True, lock=False"
            )
        import lmdb

        self._pid = os.getpid()
        self._lease = ExitStack()
        local = self._lease.enter_context(client.local_path(self.db_path))
        options = {"readonly": True, "lock": False, "readahead": self.readahead, **self.kwargs}
        try:
            # One file instead of a folder is an LMDB, too.
            return lmdb.open(local, **{"subdir": Path(local).is_dir(), **options})
        except lmdb.Error as error:
            raise type(error)(f"{self.db_path}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_lease": None}  # opened anew where it is read

    def __del__(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._lease is not None and self._pid == os.getpid():  # after a fork it is the parent's
            with contextlib.suppress(Exception):
                self._lease.close()


# --- upstream's FileClient ----------------------------------------------------------------------


def make_picklable(file_client: type[Any]) -> None:
    """Let upstream's FileClients be pickled.

    Without arguments, as pickle makes them, they are the one of the disk, which then becomes what
    was pickled.
    """
    file_client.__reduce__ = _reduce  # type: ignore[assignment]  # as a method it has no argument


def _reduce(client: Any) -> tuple[Any, ...]:
    return _restore, (type(client), client.__dict__)


def _restore(file_client: type[Any], state: dict[str, Any]) -> Any:
    client = object.__new__(file_client)
    client.__dict__.update(state)
    return client
