"""Python runs this at its start below ``forebay exec``: plugs in as frameworks are imported.

It imports nothing of Forebay by itself, since every Python of the program pays for it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _install() -> None:
    spec = importlib.util.spec_from_file_location(
        "forebay_imports", f"{os.path.dirname(_HERE)}/_imports.py"
    )
    assert spec is not None  # noqa: S101  # it lies beside us
    assert spec.loader is not None  # noqa: S101
    imports = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imports)
    imports.when_imported("mmcv.fileio.file_client", lambda: _plug("forebay.mmcv"))
    imports.when_imported("mmengine.fileio.file_client", lambda: _plug("forebay.mmengine"))
    if os.environ.get("FOREBAY_EXEC_S3"):
        imports.when_imported("fsspec.registry", _replace_s3)


def _plug(name: str) -> None:
    try:
        plug = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "forebay":
            raise
        print(f"forebay exec: {sys.executable} has no package forebay", file=sys.stderr)
        return
    plug.register(local_paths=True)


def _replace_s3() -> None:
    from fsspec.registry import register_implementation

    for protocol in ("s3", "s3a"):
        register_implementation(protocol, "forebay.fsspec.ForebayS3FileSystem", clobber=True)


def _run_the_hidden_one() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    rest = [path for path in sys.path if os.path.abspath(path or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_install()
_run_the_hidden_one()
