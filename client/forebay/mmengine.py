"""mmengine reads and writes Ceph/S3 through the node's daemon once this is imported.

Either ``import forebay.mmengine`` or, in a configuration, ``custom_imports =
dict(imports=['forebay.mmengine'])``. It registers the backends ``petrel``, ``s3``, ``aws``,
``memcached`` and ``forebay`` and the prefixes ``s3`` and ``petrel``, for ``mmengine.fileio`` and
for its older ``FileClient``, and lets ``lmdb`` open a database that is an object. Under ``forebay
exec`` no import is needed.
"""

from __future__ import annotations

import io
import os
import posixpath
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.fileio import backends as upstream
from mmengine.fileio.backends import registry_utils
from mmengine.fileio.file_client import FileClient
from mmengine.fileio.file_client import HardDiskBackend as UpstreamHardDiskBackend

from forebay._imports import when_imported
from forebay._local import file_name
from forebay._openmmlab import (
    CachedFiles,
    LeasedLmdb,
    MappedFiles,
    Objects,
    load_mapped,
    make_picklable,
)

if TYPE_CHECKING:
    from forebay._paths import StrPath

_PETREL_NAMES = ("s3", "forebay", "petrel")
_PETREL_PREFIXES = ("s3", "petrel")
_COPY_BYTES = 1 << 20


class PetrelBackend(Objects, upstream.BaseStorageBackend):
    """Answers for ``petrel`` and its like: ``get`` gives bytes, folders have no slash."""

    def get(self, filepath: StrPath) -> bytes:
        """Return an object's bytes. Raises ObjectNotFoundError, which is a FileNotFoundError."""
        return self._read(filepath)

    def join_path(self, filepath: StrPath, *filepaths: StrPath) -> str:
        return self._join(filepath, filepaths, strip=True)

    def generate_presigned_url(
        self, url: str, client_method: str = "get_object", expires_in: int = 3600
    ) -> str:
        """Return a URL with which anybody may do *client_method* for *expires_in* seconds."""
        return self._client.presign(self._object(url), client_method, expires_in)

    # --- removing ----------------------------------------------------------------------------

    def remove(self, filepath: StrPath) -> None:
        """Remove an object. Raises FileNotFoundError, and IsADirectoryError for a prefix."""
        if self.isfile(filepath):
            self._client.remove(self._object(filepath), missing_ok=True)
        elif self.isdir(filepath):
            raise IsADirectoryError(f"{filepath} is a folder, not a file")
        else:
            raise FileNotFoundError(f"filepath {filepath} does not exist")

    def rmtree(self, dir_path: StrPath) -> None:
        """Remove everything below a prefix."""
        self._client.remove_tree(self._object(dir_path).rstrip("/") + "/")

    # --- copying -----------------------------------------------------------------------------

    def copyfile(self, src: StrPath, dst: StrPath) -> str:
        """Copy an object, into *dst* if that is a folder. Raises shutil.SameFileError."""
        source, target = self._format_path(self._map_path(src)), self._target(dst, src)
        if self._object(source) == self._object(target):
            raise shutil.SameFileError(f"src and dst are the same: {source}")
        self._client.copy(self._object(source), self._object(target))
        return target

    def copytree(self, src: StrPath, dst: StrPath) -> str:
        """Copy what lies below a prefix. Raises FileExistsError."""
        target = self._new_folder(dst)
        prefix = self._object(target).rstrip("/")
        for uri, name in self._objects_below(src):
            self._client.copy(uri, f"{prefix}/{name}")
        return target

    def copyfile_from_local(self, src: StrPath, dst: StrPath) -> str:
        """Copy a local file, into *dst* if that is a folder."""
        target = self._target(dst, src)
        self._client.put_file(self._object(target), src)
        return target

    def copytree_from_local(self, src: StrPath, dst: StrPath) -> str:
        """Copy a local folder. Raises FileExistsError."""
        target = self._new_folder(dst)
        for folder, _, names in os.walk(src):
            for name in names:
                local = Path(folder, name)
                below = local.relative_to(src).as_posix()
                self._client.put_file(self._object(self.join_path(target, below)), local)
        return target

    def copyfile_to_local(self, src: StrPath, dst: StrPath) -> StrPath:
        """Copy an object to a local file, into *dst* if that is a folder."""
        target: StrPath = dst
        if Path(dst).is_dir():
            below = Path(dst, posixpath.basename(str(src)))
            target = str(below) if isinstance(dst, str) else below
        self._download(self._object(src), Path(target))
        return target

    def copytree_to_local(self, src: StrPath, dst: StrPath) -> StrPath:
        """Copy what lies below a prefix to a local folder."""
        for uri, name in self._objects_below(src):
            # Names such as ".." would lead elsewhere.
            target = Path(dst, *(file_name(part) for part in name.split("/")))
            target.parent.mkdir(parents=True, exist_ok=True)
            self._download(uri, target)
        return dst

    def _download(self, uri: str, target: Path) -> None:
        """Write an object to a local file, which has its name once it is whole."""
        scratch = target.with_name(f".forebay-{secrets.token_hex(8)}")
        try:
            with self._client.open(uri) as source, scratch.open("xb") as sink:
                shutil.copyfileobj(source, sink, _COPY_BYTES)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def copy_if_symlink_fails(self, src: StrPath, dst: StrPath) -> bool:
        """Copy: there are no links. Returns False."""
        if self.isfile(src):
            self.copyfile(src, dst)
        else:
            self.copytree(src, dst)
        return False

    def _target(self, dst: StrPath, src: StrPath) -> str:
        target = self._format_path(self._map_path(dst))
        return self.join_path(target, posixpath.basename(str(src))) if self.isdir(dst) else target

    def _new_folder(self, dst: StrPath) -> str:
        if self.exists(dst):
            raise FileExistsError(f"dst should not exist: {dst}")
        return self._format_path(self._map_path(dst))


class AWSBackend(PetrelBackend):
    """Answers for ``aws``: folders have a slash at their end."""

    _folder_mark = "/"


class MemcachedBackend(CachedFiles, PetrelBackend):
    """Answers for ``memcached``."""


# As upstream names them, which hooks log and pickle goes by.
class LocalBackend(MappedFiles, upstream.LocalBackend):
    """Local files, and objects where a mapping covers the path."""

    _objects_class = PetrelBackend


class HardDiskBackend(MappedFiles, UpstreamHardDiskBackend):
    """The same for the older FileClient."""

    _objects_class = PetrelBackend


class HTTPBackend(MappedFiles, upstream.HTTPBackend):
    """Files of the web, and objects where a mapping covers the URL."""

    _objects_class = PetrelBackend


class LmdbBackend(LeasedLmdb, upstream.LmdbBackend):
    """An LMDB of the local disk or of Ceph/S3."""


# --- registering ------------------------------------------------------------------------------


def register(*, local_paths: bool = False) -> None:
    """Register the backends; *local_paths*: those of local files and of http, too.

    Those then take what a path mapping covers from Ceph/S3, checkpoints included, and everything
    else from where they always did.
    """
    for name in _PETREL_NAMES:
        _register(name, PetrelBackend, _PETREL_PREFIXES if name == "petrel" else ())
    _register("aws", AWSBackend)
    _register("memcached", MemcachedBackend)
    _register("lmdb", LmdbBackend)
    make_picklable(FileClient)
    if local_paths:
        registry_utils.register_backend("local", LocalBackend, force=True, prefixes="")
        _register_client("disk", HardDiskBackend)
        _register("http", HTTPBackend, ("http", "https"))
    when_imported("mmengine.runner.checkpoint", lambda: _register_loaders(local_paths=local_paths))


def _register(name: str, backend: type[Any], prefixes: tuple[str, ...] = ()) -> None:
    registry_utils.register_backend(name, backend, force=True, prefixes=prefixes or None)
    _register_client(name, backend, prefixes)
    # Those that ``fileio.get`` and its like have made already.
    from mmengine.fileio import io as functions

    functions.backend_instances.clear()


def _register_client(name: str, backend: type[Any], prefixes: tuple[str, ...] = ()) -> None:
    FileClient.register_backend(name, backend, force=True, prefixes=prefixes or None)
    for prefix in prefixes:  # force does not replace these
        FileClient._prefix_to_backends[prefix] = backend


def _register_loaders(*, local_paths: bool) -> None:
    from mmengine.runner import checkpoint

    def load_from_ceph(filename: str, map_location: Any = None, backend: str = "petrel") -> Any:
        store = PetrelBackend() if backend == "petrel" else registry_utils.backends[backend]()
        return _load(io.BytesIO(store.get(filename)), map_location)

    register_scheme = checkpoint.CheckpointLoader.register_scheme
    checkpoint.load_from_ceph = load_from_ceph
    register_scheme([r"(\S+\:)?s3://", r"(\S+\:)?petrel://"], load_from_ceph, force=True)
    if local_paths:
        checkpoint.load_from_http = load_mapped(checkpoint.load_from_http, PetrelBackend, _load)
        local = load_mapped(checkpoint.load_from_local, PetrelBackend, _load)
        register_scheme("", local, force=True)
        register_scheme(("http://", "https://"), checkpoint.load_from_http, force=True)


def _load(file: Any, map_location: Any) -> Any:
    """Load a checkpoint of mmengine, whose message hub torch's safe loader does not know."""
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    safe_globals = getattr(torch.serialization, "safe_globals", None)
    if safe_globals is None:  # before torch 2.5, which loads anything by default
        return torch.load(file, map_location=map_location)
    names = np._core if hasattr(np, "_core") else np.core
    dtypes = {type(np.dtype(kind)) for kind in np.typecodes["All"]}
    reconstruct = names.multiarray._reconstruct, names.multiarray.scalar
    with safe_globals([HistoryBuffer, np.ndarray, np.dtype, *reconstruct, *dtypes, getattr]):
        return torch.load(file, map_location=map_location)


register(local_paths="FOREBAY_EXEC" in os.environ)
