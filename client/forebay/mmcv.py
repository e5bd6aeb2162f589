"""mmcv 1.x reads and writes Ceph/S3 through the node's daemon once this is imported.

Either ``import forebay.mmcv`` or, in a configuration, ``custom_imports =
dict(imports=['forebay.mmcv'])``. It registers the backends ``petrel``, ``ceph``, ``aws``, ``s3``,
``memcached`` and ``forebay`` and the prefix ``s3``, and lets ``lmdb`` open a database that is an
object. Under ``forebay exec`` no import is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

try:
    from mmcv.fileio import file_client as upstream
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("mmcv.fileio"):
        raise ImportError(
            "forebay.mmcv is for mmcv 1.x; mmcv 2 uses the file clients of mmengine: "
            "import forebay.mmengine"
        ) from error
    raise

from forebay._imports import when_imported
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

_NAMES = ("petrel", "ceph", "s3", "forebay")


class PetrelBackend(Objects, upstream.BaseStorageBackend):
    """Answers for ``petrel`` and its like: ``get`` gives a memoryview, folders have no slash."""

    def get(self, filepath: StrPath) -> memoryview:
        """Return an object's bytes. Raises ObjectNotFoundError, which is a FileNotFoundError."""
        return memoryview(self._read(filepath))

    def remove(self, filepath: StrPath) -> None:
        """Remove an object, if there is one."""
        self._client.remove(self._object(filepath), missing_ok=True)

    def join_path(self, filepath: StrPath, *filepaths: StrPath) -> str:
        return self._join(filepath, filepaths, strip=False)


class AWSBackend(PetrelBackend):
    """Answers for ``aws``: folders have a slash at their end."""

    _folder_mark = "/"


class MemcachedBackend(CachedFiles, PetrelBackend):
    """Answers for ``memcached``."""


class _Files(PetrelBackend):
    """Objects that are taken for files, whose ``get`` gives bytes."""

    def get(self, filepath: StrPath) -> bytes:  # type: ignore[override]  # as upstream's differ
        return self._read(filepath)

    def remove(self, filepath: StrPath) -> None:
        self._client.remove(self._object(filepath))


# As upstream names them, which hooks log and pickle goes by.
class HardDiskBackend(MappedFiles, upstream.HardDiskBackend):
    """Local files, and objects where a mapping covers the path."""

    _objects_class = _Files


class HTTPBackend(MappedFiles, upstream.HTTPBackend):
    """Files of the web, and objects where a mapping covers the URL."""

    _objects_class = _Files


class LmdbBackend(LeasedLmdb, upstream.LmdbBackend):
    """An LMDB of the local disk or of Ceph/S3."""


def register(*, local_paths: bool = False) -> None:
    """Register the backends; *local_paths*: those of local files and of http, too.

    Those then take what a path mapping covers from Ceph/S3, checkpoints included, and everything
    else from where they always did.
    """
    client = upstream.FileClient
    for name in _NAMES:
        client.register_backend(name, PetrelBackend, force=True)
    client.register_backend("petrel", PetrelBackend, force=True, prefixes="s3")
    client.register_backend("aws", AWSBackend, force=True)
    client.register_backend("memcached", MemcachedBackend, force=True)
    client.register_backend("lmdb", LmdbBackend, force=True)
    make_picklable(client)
    if local_paths:
        client.register_backend("disk", HardDiskBackend, force=True)
        client.register_backend("http", HTTPBackend, force=True, prefixes=["http", "https"])
        when_imported("mmcv.runner.checkpoint", _register_loaders)


def _link_no_objects() -> None:
    """Make no ``latest.pth`` beside checkpoints that a mapping makes objects, as upstream does."""
    import mmcv

    link = mmcv.symlink

    def symlink(src: StrPath, dst: StrPath, *args: Any, **kwargs: Any) -> None:
        if not PetrelBackend()._client.is_mapped(dst):
            link(src, dst, *args, **kwargs)

    mmcv.symlink = symlink


def _register_loaders() -> None:
    from mmcv.runner import checkpoint

    _link_no_objects()

    register_scheme = checkpoint.CheckpointLoader.register_scheme
    load_file = checkpoint.load_from_local
    checkpoint.load_from_http = load_mapped(checkpoint.load_from_http, PetrelBackend, load_file)
    register_scheme("", load_mapped(load_file, PetrelBackend, load_file), force=True)
    register_scheme(("http://", "https://"), checkpoint.load_from_http, force=True)


register(local_paths="FOREBAY_EXEC" in os.environ)
